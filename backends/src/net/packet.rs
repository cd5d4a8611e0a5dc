//! One packet between a link and a descriptor chain (virtio 1.3, section 5.1.6).
//!
//! A packet stands behind a `struct virtio_net_hdr` in the chain as it does on the link, so both
//! pass through untouched and uncopied.

use std::io;

use thiserror::Error;
use vm_memory::{GuestMemory, Permissions};

use super::link::Link;
use crate::chain::{BufferError, Chain};
use crate::iovec::IoVecBuf;

/// Size of the header since virtio 1.0.
pub const HEADER_SIZE: usize = 12;

/// Size of the header for an older driver, which has no `num_buffers`.
pub const LEGACY_HEADER_SIZE: usize = 10;

/// Offset of `num_buffers` in the header.
const NUM_BUFFERS: u64 = 10;

/// Why a packet is lost.
#[derive(Debug, Error)]
pub enum PacketError {
    /// The driver's buffer has not even room for the header.
    #[error("a buffer of {0} bytes is too small for a packet header")]
    NoHeader(u64),
    /// The driver's buffer is not where it says.
    #[error("the buffer cannot be used")]
    Buffer(#[from] BufferError),
    /// The link refused it.
    #[error("the link does not take the packet")]
    Link(#[source] io::Error),
}

/// What came of looking for a packet.
#[derive(Debug)]
pub enum Received {
    /// A packet of so many bytes, header included, is in the chain.
    Packet(u32),
    /// A packet was longer than the chain and is lost; the chain is as it was.
    TooLong,
    /// There is no packet.
    Nothing,
}

/// Fills a chain of the receive queue with the link's next packet.
pub fn receive<M: GuestMemory>(
    link: &impl Link,
    memory: &M,
    chain: &Chain,
    header_size: usize,
    room: &mut IoVecBuf,
) -> Result<Received, PacketError> {
    let buffer = &chain.writable;
    if buffer.len() < header_size as u64 {
        return Err(PacketError::NoHeader(buffer.len()));
    }
    let iovecs = buffer.iovecs(memory, 0, buffer.len(), Permissions::Write, room)?;
    let len = match iovecs.receive(link.as_fd()) {
        Ok(Some(len)) => len,
        Ok(None) => return Ok(Received::TooLong),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Nothing),
        Err(e) => return Err(PacketError::Link(e)),
    };
    if header_size == HEADER_SIZE {
        // Section 5.1.6.4.1: 1 where buffers are not merged. The kernel leaves it alone.
        buffer.write(memory, NUM_BUFFERS, &1u16.to_le_bytes())?;
    }
    Ok(Received::Packet(u32::try_from(len).unwrap_or(u32::MAX)))
}

/// Sends the packet in a chain of the transmit queue.
pub fn transmit<M: GuestMemory>(
    link: &impl Link,
    memory: &M,
    chain: &Chain,
    header_size: usize,
    room: &mut IoVecBuf,
) -> Result<(), PacketError> {
    let buffer = &chain.readable;
    if buffer.len() < header_size as u64 {
        return Err(PacketError::NoHeader(buffer.len()));
    }
    let iovecs = buffer.iovecs(memory, 0, buffer.len(), Permissions::Read, room)?;
    iovecs.send(link.as_fd()).map_err(PacketError::Link)?;
    Ok(())
}
