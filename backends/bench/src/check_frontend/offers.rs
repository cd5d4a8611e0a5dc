//! Backends that offer less than they could.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::features::VHOST_USER_F_PROTOCOL_FEATURES;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use crate::backend::Offer;

/// No protocol feature; not even the bit that says that there are such; only what a modern driver
/// needs; and no acknowledgements.
pub fn lesser(full: &Offer) -> Vec<Offer> {
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
