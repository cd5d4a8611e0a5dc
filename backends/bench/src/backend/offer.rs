//! What the backend offers, and the configuration space of its device.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::DeviceType;
use vhost_user_wire::features::VHOST_USER_F_PROTOCOL_FEATURES;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_SEG_MAX,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_STATUS};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::device::least_queues;

/// Bytes of a block device.
pub const DISK: usize = 4 << 20;

/// What a frontend is told when it asks.
#[derive(Clone, Debug)]
pub struct Offer {
    pub device_type: DeviceType,
    pub features: u64,
    pub protocol: u64,
    /// For GET_QUEUE_NUM.
    pub queues: u64,
    /// For GET_MAX_MEM_SLOTS.
    pub slots: u64,
    /// The configuration space from its begin; the rest of it is zeros.
    pub config: Vec<u8>,
}

/// Features of all devices.
const COMMON: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VHOST_USER_F_PROTOCOL_FEATURES
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// What shows most of a frontend.
const PROTOCOL: Protocol = Protocol::MQ
    .union(Protocol::REPLY_ACK)
    .union(Protocol::BACKEND_REQ)
    .union(Protocol::CONFIG)
    .union(Protocol::INFLIGHT_SHMFD)
    .union(Protocol::RESET_DEVICE)
    .union(Protocol::CONFIGURE_MEM_SLOTS)
    .union(Protocol::STATUS);

/// Of every device, times as many as there may be.
const MULTIPLE: u64 = 8;
const SLOTS: u64 = 32;

impl Offer {
    /// All that the backend can do for this type.
    pub fn of(device_type: DeviceType) -> Self {
        Self {
            device_type,
            features: COMMON | own_features(device_type),
            protocol: PROTOCOL.bits(),
            queues: MULTIPLE * least_queues(device_type) as u64,
            slots: SLOTS,
            config: config(device_type),
        }
    }

    pub fn without(mut self, feature: u32) -> Self {
        self.features &= !(1 << feature);
        self
    }

    pub fn with(mut self, features: u64) -> Self {
        self.features |= features;
        self
    }

    pub fn protocol(mut self, protocol: u64) -> Self {
        self.protocol = protocol;
        self
    }

    pub fn without_protocol(mut self, protocol: Protocol) -> Self {
        self.protocol &= !protocol.bits();
        self
    }

    pub fn with_protocol(mut self, protocol: u64) -> Self {
        self.protocol |= protocol;
        self
    }

    pub fn slots(mut self, slots: u64) -> Self {
        self.slots = slots;
        self
    }

    pub fn queues(mut self, queues: u64) -> Self {
        self.queues = queues;
        self
    }
}

fn own_features(device_type: DeviceType) -> u64 {
    match device_type {
        DeviceType::BLK => {
            1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE | 1 << VIRTIO_BLK_F_FLUSH
        }
        DeviceType::NET => {
            1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_STATUS | 1 << VIRTIO_NET_F_MRG_RXBUF
        }
        _ => 0,
    }
}

/// Bytes of a request's buffers are limited by memory alone, so that this only has to be small.
const SEGMENTS: u32 = 30;
const BLOCK: u32 = 512;

fn config(device_type: DeviceType) -> Vec<u8> {
    match device_type {
        // Capacity in sectors, size_max, seg_max, geometry, blk_size (virtio 1.4, section 5.2.4).
        DeviceType::BLK => [
            &(DISK as u64 / 512).to_le_bytes()[..],
            &[0; 4],
            &SEGMENTS.to_le_bytes(),
            &[0; 4],
            &BLOCK.to_le_bytes(),
        ]
        .concat(),
        // A local MAC address, the link is up, one pair of queues (section 5.1.4).
        DeviceType::NET => vec![2, 0, 0, 0, 0, 1, 1, 0, 1, 0],
        _ => Vec::new(),
    }
}
