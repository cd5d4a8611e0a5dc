//! What packets come from and go to.

use std::io;
use std::os::fd::AsFd;

/// A descriptor that carries one packet per `readv` and `writev`, each behind a
/// `struct virtio_net_hdr`, and does not block.
pub trait Link: AsFd + Send + Sync {
    /// Sets the size of that header: 12 bytes, or 10 for a driver before virtio 1.0.
    fn set_header_size(&self, bytes: usize) -> io::Result<()>;
}
