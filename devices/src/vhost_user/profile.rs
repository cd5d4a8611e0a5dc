//! The facts about a device type that a frontend has to know. Backends answer for all else.

use virtio_bindings::virtio_blk::VIRTIO_BLK_F_MQ;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MQ;

use crate::vhost_user::Options;
use crate::virtio::DeviceType;

/// One device type's needs (virtio 1.3, section 5).
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Queues when neither the user nor the backend says how many.
    pub queues: u16,
    /// Entries of a queue when the user does not say how many. The protocol
    /// has no way to ask a backend for its limit.
    pub queue_size: u16,
    /// Lengths of the configuration space in versions of the specification and
    /// in backends, longest first. Empty when there is none.
    pub config_sizes: &'static [u32],
    /// Whether drivers work without the configuration space.
    pub config_required: bool,
    /// The meaning of a driver's write there.
    pub config_writes: ConfigWrites,
    /// Whether backends of QEMU's kind draw on a display, on a socket that the frontend
    /// gives them.
    pub needs_display: bool,
    /// Whether each request ends by itself, and soon: no queue holds empty buffers.
    pub requests_end: bool,
    /// Where the configuration space counts queues.
    pub queue_count: Option<QueueCount>,
    /// Queues whose buffers the device uses in the order it takes them, and
    /// may take twice without harm.
    pub in_order: InOrder,
}

/// The meaning of a driver's write to the configuration space to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigWrites {
    /// Whatever it is, the backend gets the bytes that the driver wrote.
    Events,
    /// Only settings: a write of the value that is there already says nothing.
    Settings,
    /// A question, of several fields, to which the space then has the answer. QEMU
    /// sends the whole space with each write, and backends look at its start whatever
    /// the offset.
    Questions,
}

/// Which queues of a device a new backend can take up in the middle without the
/// old one's help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InOrder {
    /// Requests may finish in any order, or must not be repeated.
    None,
    /// Those with even numbers: the driver puts empty buffers in, and the
    /// device fills them as they come.
    Even,
    /// All: packets may get lost or come twice.
    All,
}

impl InOrder {
    pub fn includes(self, queue: u16) -> bool {
        match self {
            Self::None => false,
            Self::Even => queue.is_multiple_of(2),
            Self::All => true,
        }
    }
}

/// A configuration field that tells the driver how many queues there are. It
/// must not promise more than the transport has.
#[derive(Clone, Copy, Debug)]
pub struct QueueCount {
    /// In bytes.
    pub offset: usize,
    /// In bytes.
    pub width: usize,
    /// The feature bit without which the field means nothing.
    pub feature: Option<u32>,
    /// Queues that it does not count.
    pub uncounted: u16,
    /// Queues to one of what it counts.
    pub queues_each: u16,
}

impl QueueCount {
    /// Lowers the field in `config` to what `queues` queues allow.
    pub fn limit(&self, config: &mut [u8], features: u64, queues: u16) {
        if self.feature.is_some_and(|bit| features & (1 << bit) == 0) {
            return;
        }
        let Some(field) = config.get_mut(self.offset..self.offset + self.width) else {
            return;
        };
        let limit = u64::from(queues.saturating_sub(self.uncounted) / self.queues_each);
        let mut value = [0; size_of::<u64>()];
        value[..self.width].copy_from_slice(field);
        if u64::from_le_bytes(value) > limit {
            field.copy_from_slice(&limit.to_le_bytes()[..self.width]);
        }
    }
}

const fn plain(queues: u16, config_sizes: &'static [u32]) -> Profile {
    Profile {
        queues,
        queue_size: Options::QUEUE_SIZE,
        config_sizes,
        config_required: false,
        config_writes: ConfigWrites::Events,
        needs_display: false,
        requests_end: false,
        queue_count: None,
        in_order: InOrder::None,
    }
}

const fn ordered(in_order: InOrder, profile: Profile) -> Profile {
    Profile {
        in_order,
        ..profile
    }
}

const fn requiring(queues: u16, config_sizes: &'static [u32]) -> Profile {
    Profile {
        config_required: true,
        ..plain(queues, config_sizes)
    }
}

const fn writing(config_writes: ConfigWrites, profile: Profile) -> Profile {
    Profile {
        config_writes,
        ..profile
    }
}

const fn with_ends(profile: Profile) -> Profile {
    Profile {
        requests_end: true,
        ..profile
    }
}

const fn counting(profile: Profile, queue_count: QueueCount) -> Profile {
    Profile {
        queue_count: Some(queue_count),
        ..profile
    }
}

/// The profile of a type whose known backends take no larger queues than this.
const fn small(profile: Profile) -> Profile {
    Profile {
        queue_size: 64,
        ..profile
    }
}

const PROFILES: &[(DeviceType, Profile)] = &[
    (
        DeviceType::NET,
        counting(
            ordered(InOrder::All, plain(2, &[24, 20, 17, 12, 10, 8, 6])),
            QueueCount {
                offset: 8,
                width: 2,
                feature: Some(VIRTIO_NET_F_MQ),
                uncounted: 0,
                queues_each: 2,
            },
        ),
    ),
    (
        // With zones, with secure erase, with write-zeroes (what most backends
        // have), with queues, without topology.
        DeviceType::BLK,
        counting(
            with_ends(requiring(1, &[96, 72, 60, 36, 24, 8])),
            QueueCount {
                offset: 34,
                width: 2,
                feature: Some(VIRTIO_BLK_F_MQ),
                uncounted: 0,
                queues_each: 1,
            },
        ),
    ),
    (
        DeviceType::CONSOLE,
        ordered(InOrder::Even, small(plain(2, &[12, 8, 4]))),
    ),
    (
        DeviceType::RNG,
        with_ends(ordered(InOrder::All, plain(1, &[]))),
    ),
    (DeviceType::BALLOON, plain(2, &[16, 8])),
    (
        // Linux writes the default sizes of a request, and QEMU does not tell backends:
        // vhost-device-scsi ends itself when it is told.
        DeviceType::SCSI,
        counting(
            writing(ConfigWrites::Settings, small(requiring(3, &[36]))),
            QueueCount {
                offset: 0,
                width: 4,
                feature: None,
                uncounted: 2,
                queues_each: 1,
            },
        ),
    ),
    (
        DeviceType::GPU,
        Profile {
            needs_display: true,
            ..requiring(2, &[16])
        },
    ),
    (
        DeviceType::INPUT,
        writing(
            ConfigWrites::Questions,
            ordered(InOrder::Even, small(requiring(2, &[136]))),
        ),
    ),
    (
        DeviceType::VSOCK,
        ordered(InOrder::Even, requiring(3, &[8])),
    ),
    (DeviceType::CRYPTO, with_ends(requiring(2, &[56]))),
    (DeviceType::SOUND, small(requiring(4, &[16, 12]))),
    (
        DeviceType::FS,
        counting(
            with_ends(requiring(2, &[40])),
            QueueCount {
                offset: 36,
                width: 4,
                feature: None,
                uncounted: 1,
                queues_each: 1,
            },
        ),
    ),
    (DeviceType::PMEM, with_ends(requiring(1, &[16]))),
    (DeviceType::RPMB, with_ends(requiring(1, &[3]))),
    (DeviceType::SCMI, plain(2, &[])),
    (DeviceType::I2C, with_ends(plain(1, &[]))),
    (DeviceType::CAN, plain(3, &[2])),
    (DeviceType::GPIO, requiring(2, &[8])),
    (DeviceType::SPI, with_ends(requiring(1, &[32]))),
    (DeviceType::MEDIA, requiring(2, &[40])),
];

/// A type that is not in the table: whatever length works.
const UNKNOWN: Profile = plain(
    1,
    &[256, 128, 96, 64, 60, 48, 40, 36, 32, 24, 20, 16, 12, 8, 4],
);

/// The profile of `device_type`.
pub fn profile(device_type: DeviceType) -> Profile {
    PROFILES
        .iter()
        .find(|(known, _)| *known == device_type)
        .map_or(UNKNOWN, |(_, profile)| *profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_tried_from_the_longest() {
        for (device_type, profile) in PROFILES.iter().chain([&(DeviceType::BLK, UNKNOWN)]) {
            let sizes = profile.config_sizes;
            assert!(sizes.is_sorted_by(|a, b| a > b), "{device_type}");
            assert!(
                !profile.config_required || !sizes.is_empty(),
                "{device_type}"
            );
        }
    }

    #[test]
    fn a_config_never_promises_more_queues_than_there_are() {
        let limit = |device_type, config: &mut [u8], features, queues| {
            let count = profile(device_type).queue_count.unwrap();
            count.limit(config, features, queues);
        };
        let mut blk = [0; 60];
        blk[34] = 8;
        limit(DeviceType::BLK, &mut blk, 0, 4);
        assert_eq!(blk[34], 8, "without MQ the field is nobody's");
        limit(DeviceType::BLK, &mut blk, 1 << VIRTIO_BLK_F_MQ, 4);
        assert_eq!(blk[34..36], [4, 0]);
        limit(DeviceType::BLK, &mut blk, 1 << VIRTIO_BLK_F_MQ, 16);
        assert_eq!(
            blk[34..36],
            [4, 0],
            "nor does it promise more than the backend"
        );

        let mut fs = [0xff; 40];
        limit(DeviceType::FS, &mut fs, 0, 2);
        assert_eq!(fs[36..], [1, 0, 0, 0]);

        let mut net = [0xff; 24];
        limit(DeviceType::NET, &mut net, 1 << VIRTIO_NET_F_MQ, 5);
        assert_eq!(net[8..10], [2, 0]);
        assert_eq!(net[10], 0xff);
    }

    #[test]
    fn a_config_that_is_too_short_is_left_alone() {
        let mut blk = [0xff; 24];
        let count = profile(DeviceType::BLK).queue_count.unwrap();
        count.limit(&mut blk, u64::MAX, 1);
        assert_eq!(blk, [0xff; 24]);
    }
}
