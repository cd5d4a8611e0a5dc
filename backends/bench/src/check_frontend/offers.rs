//! Backends that offer less than they could, or more than is used every day.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::features::{VHOST_F_LOG_ALL, VHOST_USER_F_PROTOCOL_FEATURES};
use virtio_bindings::virtio_config::{VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1};

use crate::backend::Offer;

/// What frontends are looked at with besides the usual offer.
pub fn others(full: &Offer) -> Vec<Offer> {
    let mut offers = lesser(full);
    offers.push(greater(full));
    offers
}

/// Packed rings, and what a frontend needs when it moves to another host.
pub fn greater(full: &Offer) -> Offer {
    let protocol = Protocol::GPA_ADDRESSES
        | Protocol::LOG_SHMFD
        | Protocol::DEVICE_STATE
        | Protocol::SHMEM
        | Protocol::BACKEND_SEND_FD;
    let features = 1 << VIRTIO_F_RING_PACKED | 1 << VHOST_F_LOG_ALL;
    full.clone().with(features).with_protocol(protocol.bits())
}

/// No protocol feature; not even the bit that says that there are such; only what a modern driver
/// needs; and no acknowledgements.
fn lesser(full: &Offer) -> Vec<Offer> {
    let bare = 1 << VIRTIO_F_VERSION_1 | 1 << VHOST_USER_F_PROTOCOL_FEATURES;
    let mut least = full.clone().protocol(Protocol::CONFIG.bits());
    least.features = bare;
    vec![
        full.clone().protocol(0),
        full.clone().without(VHOST_USER_F_PROTOCOL_FEATURES),
        least,
        full.clone().without_protocol(Protocol::REPLY_ACK),
    ]
}
