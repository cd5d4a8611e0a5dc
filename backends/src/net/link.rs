//! The host's end of the network: packets come from it and go to it.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use super::speed::Speed;

/// Carries Ethernet frames, each behind a `struct virtio_net_hdr`, and does not block.
pub trait Link: Send + Sync + 'static {
    /// Queue pairs that it can have.
    fn pairs(&self) -> u16 {
        1
    }

    /// Feature bits for the work that it takes off the driver or leaves to it (virtio 1.3,
    /// section 5.1.3): checksums and segmentation.
    fn offloads(&self) -> u64 {
        0
    }

    /// Sets the size of the header from now on, 12 bytes, or 10 for a driver before virtio
    /// 1.0; and the feature bits of the work that the driver does on received packets.
    fn configure(&self, header_size: usize, guest_offloads: u64) -> io::Result<()>;

    /// Spreads received packets over that many of the pairs.
    fn set_pairs(&self, _active: u16) -> io::Result<()> {
        Ok(())
    }

    /// Becomes readable when [`Link::receive`] has a packet for `pair`.
    fn ready_fd(&self, pair: u16) -> RawFd;

    /// Takes a packet with a header of `header_size` bytes: its length, or `None` if there is
    /// none. The part that does not fit into `packet` is lost.
    fn receive(
        &self,
        pair: u16,
        header_size: usize,
        packet: &mut [u8],
    ) -> io::Result<Option<usize>>;

    /// A descriptor that takes a whole packet at a `writev`, header included, if there is one.
    fn packet_fd(&self, _pair: u16) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Sends a frame of `len` bytes without a header, which `fill` writes, where there is no such
    /// descriptor. It may wait for [`Link::flush`]. The outer error is that of `fill`.
    fn send<E>(
        &self,
        _len: usize,
        _fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<io::Result<()>, E> {
        Ok(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Has the frames leave that wait for others.
    fn flush(&self) {}

    /// Whether packets can pass.
    fn is_up(&self) -> bool {
        true
    }

    /// How fast it is now, if it can tell.
    fn speed(&self) -> Option<Speed> {
        None
    }

    /// Readable when [`Link::is_up`] may have changed.
    fn change_fd(&self) -> Option<RawFd> {
        None
    }

    /// Clears that event.
    fn changed(&self) {}
}
