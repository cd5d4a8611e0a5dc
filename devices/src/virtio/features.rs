//! Feature bits (virtio 1.3, sections 2.2 and 6): offering, choosing, naming.

use vhost_user_wire::features::{
    self as wire_features, VHOST_F_LOG_ALL, VHOST_USER_F_PROTOCOL_FEATURES, VIRTIO, own_names,
};
use virtio_bindings::virtio_config::*;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MQ;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use super::DeviceType;
use super::queue::Format;

/// VIRTIO_F_VERSION_1: without it a device or a driver is of the legacy kind,
/// which this transport does not do.
pub const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;

/// VIRTIO_F_RING_RESET: the driver can reset one queue.
pub const RING_RESET: u64 = 1 << VIRTIO_F_RING_RESET;

/// VIRTIO_F_EVENT_IDX: each side says at which entry it wants to be notified.
pub const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;

/// VIRTIO_NET_F_MQ: a network device has several pairs of queues.
pub const NET_MQ: u64 = 1 << VIRTIO_NET_F_MQ;

/// VIRTIO_F_RING_PACKED: queues are packed (section 2.8).
const RING_PACKED: u64 = 1 << VIRTIO_F_RING_PACKED;

/// Bits that no driver is offered whatever the device says, and why.
const WITHHELD: &[(u32, &str)] = &[
    // Legacy only (section 6.4); some backends set them nevertheless.
    (VIRTIO_F_NOTIFY_ON_EMPTY, "legacy"),
    (VIRTIO_F_ANY_LAYOUT, "legacy"),
    // Between frontend and backend only (vhost-user document).
    (VHOST_F_LOG_ALL, "not the driver's"),
    (VHOST_USER_F_PROTOCOL_FEATURES, "not the driver's"),
    // Features that this transport cannot support.
    (VIRTIO_F_ACCESS_PLATFORM, "there is no IOMMU"),
    (VIRTIO_F_SR_IOV, "PCI only"),
    (VIRTIO_F_NOTIFICATION_DATA, "a kick carries no data"),
    (VIRTIO_F_NOTIF_CONFIG_DATA, "a kick carries no data"),
    (VIRTIO_F_ADMIN_VQ, "PCI only"),
];

/// `features` without those that this transport cannot offer to a driver.
pub fn offerable(features: u64) -> u64 {
    WITHHELD
        .iter()
        .fold(features, |left, (bit, _)| left & !(1 << bit))
}

/// The driver's choice cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeaturesError {
    #[error("it left out VIRTIO_F_VERSION_1; only drivers for virtio 1.0 and later work here")]
    Legacy,
    #[error("it took what was not offered: {}", .0.join(", "))]
    NotOffered(Vec<String>),
}

/// The feature registers: what is offered, and what the driver has chosen so far.
#[derive(Clone, Copy, Debug)]
pub struct Negotiation {
    device_type: DeviceType,
    offered: u64,
    chosen: u64,
    device_select: u32,
    driver_select: u32,
}

impl Negotiation {
    /// `features` are the device's own; the driver sees those of them that are
    /// [`offerable`].
    pub fn new(device_type: DeviceType, features: u64) -> Self {
        Self {
            device_type,
            offered: offerable(features),
            chosen: 0,
            device_select: 0,
            driver_select: 0,
        }
    }

    pub fn offered(&self) -> u64 {
        self.offered
    }

    pub fn chosen(&self) -> u64 {
        self.chosen
    }

    /// The format of the queues that the driver's choice makes.
    pub fn queue_format(&self) -> Format {
        match self.chosen & RING_PACKED {
            0 => Format::Split,
            _ => Format::Packed,
        }
    }

    /// The value of the DeviceFeatures register.
    pub fn device_half(&self) -> u32 {
        match self.device_select {
            0 => self.offered as u32,
            1 => (self.offered >> u32::BITS) as u32,
            _ => 0,
        }
    }

    pub fn select_device_half(&mut self, select: u32) {
        self.device_select = select;
    }

    pub fn select_driver_half(&mut self, select: u32) {
        self.driver_select = select;
    }

    /// The driver writes the DriverFeatures register. Halves beyond the second
    /// hold no feature that could be offered, hence none that could be accepted.
    pub fn choose_half(&mut self, value: u32) {
        let (low, high) = (u64::from(u32::MAX), u64::from(u32::MAX) << u32::BITS);
        match self.driver_select {
            0 => self.chosen = self.chosen & high | u64::from(value),
            1 => self.chosen = self.chosen & low | u64::from(value) << u32::BITS,
            _ => {}
        }
    }

    /// Whether the driver's choice is acceptable (section 3.1.1, step 6).
    pub fn check(&self) -> Result<(), FeaturesError> {
        let excess = self.chosen & !self.offered;
        if excess != 0 {
            return Err(FeaturesError::NotOffered(names(self.device_type, excess)));
        }
        if self.chosen & VERSION_1 == 0 {
            return Err(FeaturesError::Legacy);
        }
        Ok(())
    }
}

/// The feature that a user calls `name`: as [`names`] does in any case, the part
/// behind the device type will do, and the two of rings have short names.
pub fn parse(device_type: DeviceType, name: &str) -> Option<u32> {
    let name = name.to_ascii_uppercase();
    let name = match name.as_str() {
        "INDIRECT" => "INDIRECT_DESC",
        "PACKED" => "RING_PACKED",
        name => name,
    };
    let own = own_names(device_type).iter().map(|(bit, full)| {
        let short = full.split_once('_').map_or(*full, |(_, short)| short);
        (bit, *full == name || short == name)
    });
    let generic = VIRTIO.iter().map(|(bit, full)| (bit, *full == name));
    generic
        .chain(own)
        .find_map(|(bit, matches)| matches.then_some(*bit))
}

/// The names of the bits set in `features`, lowest first. A bit without a name
/// here is `bit N`.
pub fn names(device_type: DeviceType, features: u64) -> Vec<String> {
    wire_features::names(features, own_names(device_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_transport_cannot_do_is_not_offered() {
        let offered = offerable(u64::MAX);
        for bit in [24, 26, 27, 30, 33, 37, 38, 39, 41] {
            assert_eq!(offered & (1 << bit), 0, "bit {bit}");
        }
        for bit in [0, 28, 29, 32, 34, 35] {
            assert_ne!(offered & (1 << bit), 0, "bit {bit}");
        }
    }

    #[test]
    fn halves_are_selected_apart() {
        let mut registers = Negotiation::new(DeviceType::BLK, VERSION_1 | 1 << 9);
        assert_eq!(registers.device_half(), 1 << 9);
        registers.select_device_half(1);
        assert_eq!(registers.device_half(), 1);
        registers.select_device_half(2);
        assert_eq!(registers.device_half(), 0);

        registers.choose_half(1 << 9);
        registers.select_driver_half(1);
        registers.choose_half(1);
        registers.select_driver_half(2);
        registers.choose_half(u32::MAX);
        assert_eq!(registers.chosen(), VERSION_1 | 1 << 9);
    }

    #[test]
    fn a_legacy_choice_and_an_excessive_one_are_refused() {
        let mut registers = Negotiation::new(DeviceType::BLK, VERSION_1 | 1 << 9);
        assert_eq!(registers.check(), Err(FeaturesError::Legacy));
        registers.select_driver_half(1);
        registers.choose_half(1);
        assert_eq!(registers.check(), Ok(()));
        registers.select_driver_half(0);
        registers.choose_half(1 << 6);
        assert_eq!(
            registers.check(),
            Err(FeaturesError::NotOffered(vec!["BLK_BLK_SIZE".into()]))
        );
    }

    #[test]
    fn users_may_call_features_by_all_or_part_of_their_names() {
        for (name, bit) in [
            ("event_idx", 29),
            ("EVENT_IDX", 29),
            ("indirect", 28),
            ("indirect_desc", 28),
            ("packed", 34),
            ("blk_flush", 9),
            ("flush", 9),
            ("blk_size", 6),
        ] {
            assert_eq!(parse(DeviceType::BLK, name), Some(bit), "{name}");
        }
        assert_eq!(parse(DeviceType::NET, "flush"), None);
        assert_eq!(parse(DeviceType::RNG, ""), None);
    }

    #[test]
    fn names_know_the_device_type() {
        assert_eq!(
            names(DeviceType::NET, 1 | VERSION_1),
            ["NET_CSUM", "VERSION_1"]
        );
        assert_eq!(names(DeviceType::RNG, 1 | 1 << 29), ["bit 0", "EVENT_IDX"]);
        assert_eq!(names(DeviceType::CONSOLE, 1 << 1), ["CONSOLE_MULTIPORT"]);
        assert_eq!(parse(DeviceType::VSOCK, "seqpacket"), Some(1));
    }
}
