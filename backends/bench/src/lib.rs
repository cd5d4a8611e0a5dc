//! The workbench for authors of virtio backends: what plays a frontend and a driver against any
//! vhost-user backend, without a guest and without KVM.
//!
//! Nothing here shares code with the backend kit: a judge of rings has rings of its own.

pub mod trace;
