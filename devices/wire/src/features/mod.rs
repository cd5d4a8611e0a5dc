//! Feature bits that mean the same to every device, and their names.
//!
//! Those of virtio 1.3, section 6, and of the vhost-user document. A device's own features have
//! meanings by its type ([`own_names`]).

mod own;

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use virtio_bindings::virtio_config::*;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

pub use own::own_names;

/// VHOST_F_LOG_ALL: the backend logs the pages it writes.
pub const VHOST_F_LOG_ALL: u32 = 26;
/// VHOST_USER_F_PROTOCOL_FEATURES: the backend speaks protocol features.
pub const VHOST_USER_F_PROTOCOL_FEATURES: u32 = 30;

/// Features of every device by bit, and the two between frontend and backend.
pub const VIRTIO: &[(u32, &str)] = &[
    (VIRTIO_F_NOTIFY_ON_EMPTY, "NOTIFY_ON_EMPTY"),
    (VHOST_F_LOG_ALL, "LOG_ALL"),
    (VIRTIO_F_ANY_LAYOUT, "ANY_LAYOUT"),
    (VIRTIO_RING_F_INDIRECT_DESC, "INDIRECT_DESC"),
    (VIRTIO_RING_F_EVENT_IDX, "EVENT_IDX"),
    (VHOST_USER_F_PROTOCOL_FEATURES, "PROTOCOL_FEATURES"),
    (VIRTIO_F_VERSION_1, "VERSION_1"),
    (VIRTIO_F_ACCESS_PLATFORM, "ACCESS_PLATFORM"),
    (VIRTIO_F_RING_PACKED, "RING_PACKED"),
    (VIRTIO_F_IN_ORDER, "IN_ORDER"),
    (VIRTIO_F_ORDER_PLATFORM, "ORDER_PLATFORM"),
    (VIRTIO_F_SR_IOV, "SR_IOV"),
    (VIRTIO_F_NOTIFICATION_DATA, "NOTIFICATION_DATA"),
    (VIRTIO_F_NOTIF_CONFIG_DATA, "NOTIF_CONFIG_DATA"),
    (VIRTIO_F_RING_RESET, "RING_RESET"),
    (VIRTIO_F_ADMIN_VQ, "ADMIN_VQ"),
];

/// The names of the bits set in `features`, lowest first, of a device whose own features have the
/// names `own`. A bit without a name is `bit N`.
pub fn names(features: u64, own: &[(u32, &str)]) -> Vec<String> {
    let name = |bit| {
        let known = VIRTIO.iter().chain(own).find(|(known, _)| *known == bit);
        known.map_or_else(|| format!("bit {bit}"), |(_, name)| (*name).to_owned())
    };
    bits(features).map(name).collect()
}

/// The names of protocol features, lowest first. A bit without a name is `bit N`.
pub fn protocol_names(features: u64) -> Vec<String> {
    let name = |bit| {
        let mut known = Protocol::from_bits_retain(1u64 << bit).iter_names();
        known
            .next()
            .map_or_else(|| format!("bit {bit}"), |(name, _)| name.to_owned())
    };
    bits(features).map(name).collect()
}

/// The protocol feature that is called `name`, in any case.
pub fn parse_protocol(name: &str) -> Option<Protocol> {
    let mut all = Protocol::all().iter_names();
    all.find_map(|(known, bit)| known.eq_ignore_ascii_case(name).then_some(bit))
}

fn bits(features: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |bit| features & (1 << bit) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_have_the_names_of_their_kind_or_their_numbers() {
        let own = [(1, "OWN")];
        assert_eq!(
            names(1 << 63 | 1 << 34 | 1 << 26 | 2 | 1, &own),
            ["bit 0", "OWN", "LOG_ALL", "RING_PACKED", "bit 63"]
        );
        assert_eq!(
            protocol_names(1 << 62 | 1 << 3 | 1),
            ["MQ", "REPLY_ACK", "bit 62"]
        );
        assert_eq!(parse_protocol("reply_ack"), Some(Protocol::REPLY_ACK));
        assert_eq!(parse_protocol("event_idx"), None);
    }

    #[test]
    fn no_bit_has_two_names() {
        let mut found = std::collections::HashSet::new();
        assert!(VIRTIO.iter().all(|(bit, _)| found.insert(bit)));
        let mut names = std::collections::HashSet::new();
        assert!(VIRTIO.iter().all(|(_, name)| names.insert(name)));
    }
}
