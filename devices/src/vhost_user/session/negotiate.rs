//! The agreement of frontend and backend when a connection begins.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::features::{
    self as wire_features, VHOST_F_LOG_ALL, VHOST_USER_F_PROTOCOL_FEATURES, protocol_names,
};
use vhost_user_wire::frontend::*;
use virtio_bindings::virtio_net::*;

use super::channel::Channel;
use super::channel_error::ChannelError;
use crate::deadline::Deadline;
use crate::vhost_user::Options;
use crate::vhost_user::error::Problem;
use crate::vhost_user::profile::Profile;
use crate::virtio::DeviceType;
use crate::virtio::features;

/// Every ring's index has to fit in eight bits (SET_VRING_KICK).
const MAX_QUEUES: u64 = 256;

/// The limit for a backend when the user does not give a number: a queue costs
/// two descriptors here and more in the backend.
const DEFAULT_MAX_QUEUES: u16 = 16;

/// The protocol features that this frontend uses when the backend has them.
const WANTED: &[Protocol] = &[
    Protocol::MQ,
    Protocol::CONFIG,
    Protocol::REPLY_ACK,
    Protocol::INFLIGHT_SHMFD,
    Protocol::BACKEND_REQ,
    Protocol::RESET_DEVICE,
    Protocol::STATUS,
    Protocol::CONFIGURE_MEM_SLOTS,
    Protocol::DEVICE_STATE,
    Protocol::SHMEM,
    Protocol::BACKEND_SEND_FD,
    Protocol::LOG_SHMFD,
];

/// Network features that read a configuration space.
const NET_CONFIG_FEATURES: &[u32] = &[
    VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_STATUS,
    VIRTIO_NET_F_MQ,
    VIRTIO_NET_F_RSS,
    VIRTIO_NET_F_HASH_REPORT,
    VIRTIO_NET_F_SPEED_DUPLEX,
];

/// Network features that send commands on a control queue, it included.
const NET_CONTROL_FEATURES: &[u32] = &[
    VIRTIO_NET_F_CTRL_VQ,
    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
    VIRTIO_NET_F_CTRL_RX,
    VIRTIO_NET_F_CTRL_VLAN,
    VIRTIO_NET_F_CTRL_RX_EXTRA,
    VIRTIO_NET_F_CTRL_MAC_ADDR,
    VIRTIO_NET_F_GUEST_ANNOUNCE,
    VIRTIO_NET_F_MQ,
    VIRTIO_NET_F_DEVICE_STATS,
    VIRTIO_NET_F_VQ_NOTF_COAL,
    VIRTIO_NET_F_NOTF_COAL,
    VIRTIO_NET_F_RSS,
    VIRTIO_NET_F_HASH_REPORT,
];

/// The properties of a backend, as agreed with it.
#[derive(Clone, Copy, Debug)]
pub struct Agreement {
    /// The backend's features as it stated them.
    backend_features: u64,
    /// Those of them that the device can have.
    pub features: u64,
    pub protocol: Protocol,
    /// Number of virtqueues, a control queue included.
    pub queues: u16,
    /// How many memory regions the backend takes, if they are added one by one.
    pub memory_slots: Option<u64>,
}

impl Agreement {
    /// Whether rings are enabled one by one; otherwise they all are, always.
    pub fn has_vring_enable(&self) -> bool {
        self.backend_features & (1 << VHOST_USER_F_PROTOCOL_FEATURES) != 0
    }

    /// Whether the backend can log the pages that it writes.
    pub fn can_log(&self) -> bool {
        self.protocol.contains(Protocol::LOG_SHMFD)
            && self.backend_features & (1 << VHOST_F_LOG_ALL) != 0
    }

    /// The features to set when the driver has accepted `driver_features`. The
    /// protocol bit has to be among them, or else all rings are enabled at once.
    pub fn features_to_set(&self, driver_features: u64) -> u64 {
        driver_features | self.backend_features & (1 << VHOST_USER_F_PROTOCOL_FEATURES)
    }
}

/// Asks for the features. The answer is the backend's first sign of life: a connection
/// alone is none, since the kernel accepts for a listener that is busy or about to
/// die. [`negotiate`] continues from there.
pub fn start_handshake(channel: &mut Channel, deadline: &Deadline) -> Result<(), ChannelError> {
    channel.tell(&SetOwner, deadline)?;
    channel.begin(&GetFeatures, deadline)
}

/// Opens the session on a channel that [`start_handshake`] has been called on.
pub fn negotiate(
    channel: &mut Channel,
    options: &Options,
    profile: &Profile,
    deadline: &Deadline,
) -> Result<Agreement, Problem> {
    let asked = options.queues;
    let backend_features = channel.complete::<GetFeatures>(deadline)?;
    if backend_features & features::VERSION_1 == 0 {
        return Err(Problem::Legacy);
    }
    let protocol = if backend_features & (1 << VHOST_USER_F_PROTOCOL_FEATURES) != 0 {
        negotiate_protocol(channel, options, deadline)?
    } else {
        Protocol::empty()
    };
    let has = if protocol.contains(Protocol::MQ) {
        Some(channel.ask(&GetQueueNum, deadline)?)
    } else {
        None
    };
    let memory_slots = if protocol.contains(Protocol::CONFIGURE_MEM_SLOTS) {
        Some(channel.ask(&GetMaxMemSlots, deadline)?)
    } else {
        None
    };
    let mut features = backend_features & !options.masked_features;
    let queues = if options.device_type == DeviceType::NET {
        let data = asked.unwrap_or_else(|| net_default(has, profile));
        let served = has_control_queue(features, protocol, data, has);
        features = net_features(features, protocol, served);
        if data == 2 {
            // One pair: the backend must look for the control queue behind the first.
            features &= !(1 << VIRTIO_NET_F_MQ);
        }
        net_queues(data, has)? + u16::from(served)
    } else {
        count_queues(asked, has, profile)?
    };
    Ok(Agreement {
        backend_features,
        features,
        protocol,
        queues,
        memory_slots,
    })
}

fn negotiate_protocol(
    channel: &mut Channel,
    options: &Options,
    deadline: &Deadline,
) -> Result<Protocol, ChannelError> {
    let offered = Protocol::from_bits_retain(channel.ask(&GetProtocolFeatures, deadline)?);
    let wanted: Protocol = WANTED.iter().copied().collect();
    let mut protocol = offered & (wanted - options.masked_protocol);
    if !protocol.contains(Protocol::BACKEND_REQ) {
        // There would be no way to ask for a mapping.
        protocol.remove(Protocol::SHMEM);
    }
    if !protocol.contains(Protocol::SHMEM) {
        // No other request of a backend comes with a file.
        protocol.remove(Protocol::BACKEND_SEND_FD);
    }
    channel.tell(&SetProtocolFeatures(protocol.bits()), deadline)?;
    if protocol.contains(Protocol::REPLY_ACK) {
        channel.expect_acks();
    }
    Ok(protocol)
}

/// Queues of a device that is not a network device.
fn count_queues(asked: Option<u16>, has: Option<u64>, profile: &Profile) -> Result<u16, Problem> {
    if has == Some(0) {
        return Err(Problem::NoQueues);
    }
    let limit = has.unwrap_or(MAX_QUEUES).min(MAX_QUEUES);
    match asked {
        Some(asked) if asked == 0 || u64::from(asked) > limit => Err(Problem::TooManyQueues {
            asked,
            found: limit,
        }),
        Some(asked) => Ok(asked),
        None if has.is_some() => Ok(DEFAULT_MAX_QUEUES.min(limit as u16)),
        None => Ok(profile.queues),
    }
}

/// Data queues of a network device when the user does not say how many. Only a
/// backend that counts its control queue has an odd number.
fn net_default(has: Option<u64>, profile: &Profile) -> u16 {
    match has {
        Some(has @ 3..) if has % 2 == 1 => (has - 1).min(DEFAULT_MAX_QUEUES.into()) as u16,
        _ => profile.queues,
    }
}

/// Data queues of a network device. Whether `has` counts queues or pairs is
/// the backend's choice: rust-vmm's count queues, DPDK counts pairs.
fn net_queues(asked: u16, has: Option<u64>) -> Result<u16, Problem> {
    if asked == 0 || !asked.is_multiple_of(2) {
        return Err(Problem::OddQueues(asked));
    }
    // Without MQ there is one pair.
    let found = has
        .map_or(2, |has| has.saturating_mul(2))
        .min(MAX_QUEUES - 1);
    if u64::from(asked) > found {
        return Err(Problem::TooManyQueues { asked, found });
    }
    Ok(asked)
}

/// A control queue that is offered but not served hangs the driver. It is
/// served by a backend that owns the configuration space too (others leave both
/// to QEMU), unless its count says that there is none.
fn has_control_queue(features: u64, protocol: Protocol, data: u16, has: Option<u64>) -> bool {
    let offered = features & (1 << VIRTIO_NET_F_CTRL_VQ) != 0;
    // The driver looks for it behind the last pair that it is told of, the backend behind the
    // last that it has.
    let counted = has.is_none_or(|has| match has % 2 {
        1 if data > 2 => has == u64::from(data) + 1,
        _ => has > data.into() || has <= u64::from(data / 2),
    });
    offered && protocol.contains(Protocol::CONFIG) && counted
}

fn net_features(features: u64, protocol: Protocol, has_control_queue: bool) -> u64 {
    let without =
        |features, bits: &[u32]| bits.iter().fold(features, |left, bit| left & !(1 << bit));
    let features = if protocol.contains(Protocol::CONFIG) {
        features
    } else {
        without(features, NET_CONFIG_FEATURES)
    };
    if has_control_queue {
        features
    } else {
        without(features, NET_CONTROL_FEATURES)
    }
}

/// The protocol feature that a user calls `name`, of those that are ever used. One that
/// is called as a device's feature is has `protocol_` before it.
pub fn parse_protocol(name: &str) -> Option<Protocol> {
    let prefix = "protocol_";
    let name = match name.split_at_checked(prefix.len()) {
        Some((start, name)) if start.eq_ignore_ascii_case(prefix) => name,
        _ => name,
    };
    wire_features::parse_protocol(name).filter(|feature| WANTED.contains(feature))
}

/// Logs the agreement once.
pub fn log(id: &str, device_type: DeviceType, agreement: &Agreement) {
    tracing::info!(
        device = id,
        %device_type,
        queues = agreement.queues,
        features = features::names(device_type, agreement.features).join(", "),
        protocol = protocol_names(agreement.protocol.bits()).join(", "),
        "connected to the backend"
    );
}
