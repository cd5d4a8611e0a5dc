//! One packet between a link and descriptor chains (virtio 1.3, section 5.1.6).
//!
//! A packet stands behind a `struct virtio_net_hdr` in the chain as it does on the link.

use std::io;

use thiserror::Error;
use vm_memory::{GuestMemory, Permissions};

use super::link::Link;
use crate::chain::{BufferError, Buffers, Chain};
use crate::iovec::IoVecBuf;

/// Size of the header since virtio 1.0.
pub const HEADER_SIZE: usize = 12;

/// Size of the header for an older driver, which has no `num_buffers`.
pub const LEGACY_HEADER_SIZE: usize = 10;

/// Longest packet, header included: 64 KiB with segmentation offloads, and the headers in front.
pub const MAX_PACKET: usize = (1 << 16) + 128;

/// Shortest frame: two addresses and a type.
pub const MIN_FRAME: usize = 14;

/// Offset of `num_buffers` in the header.
const NUM_BUFFERS: usize = 10;

/// Why a packet or a buffer is lost.
#[derive(Debug, Error)]
pub enum PacketError {
    /// The driver's buffer has not even room for the header.
    #[error("a buffer of {0} bytes is too small for a packet header")]
    NoHeader(u64),
    /// Not a whole frame: the peer of a link may end when it gets one.
    #[error("{0} bytes are too few for a packet header and a frame")]
    TooShort(u64),
    /// The driver's buffer is not where it says.
    #[error("the buffer cannot be used")]
    Buffer(#[from] BufferError),
    /// The link refused it.
    #[error("the link does not take the packet")]
    Link(#[source] io::Error),
    /// More than any packet has.
    #[error("{0} bytes are too many for a packet")]
    TooLong(u64),
}

/// A received packet on its way into one or more chains.
#[derive(Debug, Default)]
pub struct Inbox {
    packet: Vec<u8>,
    length: usize,
    /// Bytes that are in chains.
    given: usize,
    /// Where the header is, once it is in a chain.
    header: Option<Buffers>,
}

/// The outcome for one chain.
#[derive(Debug, PartialEq, Eq)]
pub enum Given {
    /// The packet's end is in it: so many bytes.
    Last(u32),
    /// It is full, and there is more.
    Part(u32),
    /// The packet is longer than the chain and may not be spread. It is dropped.
    TooLong,
}

impl Inbox {
    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The packet's frame.
    pub fn frame(&self, header_size: usize) -> &[u8] {
        self.packet.get(header_size..self.length).unwrap_or(&[])
    }

    /// Forgets the packet.
    pub fn drop_packet(&mut self) {
        self.length = 0;
    }

    /// Takes the link's next packet. `false` if there is none.
    pub fn receive(&mut self, link: &impl Link, pair: u16, header_size: usize) -> io::Result<bool> {
        self.packet.resize(MAX_PACKET, 0);
        let length = link.receive(pair, header_size, &mut self.packet)?;
        self.length = length.unwrap_or(0);
        if let Some(count) = self.packet[..self.length].get_mut(NUM_BUFFERS..header_size) {
            // Section 5.1.6.4.1: 1 where buffers are not merged. The kernel leaves it alone.
            count.copy_from_slice(&1u16.to_le_bytes());
        }
        Ok(self.length > 0)
    }

    /// Copies the packet, or its next part, into `buffer`, which is chain number `part` of it.
    /// A packet whose buffer is at fault stays for the next.
    pub fn give<M: GuestMemory>(
        &mut self,
        memory: &M,
        buffer: &Buffers,
        part: usize,
        header_size: usize,
        mergeable: bool,
    ) -> Result<Given, PacketError> {
        if part == 0 {
            self.given = 0;
            self.header = None;
            if buffer.len() < header_size as u64 {
                return Err(PacketError::NoHeader(buffer.len()));
            }
        }
        let rest = &self.packet[self.given..self.length];
        let len = buffer.len().min(rest.len() as u64) as usize;
        if len < rest.len() && !mergeable {
            self.drop_packet();
            return Ok(Given::TooLong);
        }
        buffer.write(memory, 0, &rest[..len])?;
        self.given += len;
        if self.given < self.length {
            if part == 0 {
                self.header = Some(buffer.clone());
            }
            return Ok(Given::Part(len as u32));
        }
        self.drop_packet();
        if let Some(header) = &self.header {
            let count = u16::try_from(part + 1).unwrap_or(u16::MAX);
            header.write(memory, NUM_BUFFERS as u64, &count.to_le_bytes())?;
        }
        Ok(Given::Last(len as u32))
    }
}

/// Sends the packet in a chain of the transmit queue; `frame`, if any, is called with its frame.
pub fn transmit<M: GuestMemory>(
    link: &impl Link,
    pair: u16,
    memory: &M,
    chain: &Chain,
    header_size: usize,
    room: &mut IoVecBuf,
    capture: Option<impl FnOnce(&[u8])>,
) -> Result<(), PacketError> {
    let buffer = &chain.readable;
    let header = header_size as u64;
    if buffer.len() < header + MIN_FRAME as u64 {
        return Err(PacketError::TooShort(buffer.len()));
    }
    let direct = link.packet_fd(pair);
    if direct.is_none() || capture.is_some() {
        if buffer.len() > MAX_PACKET as u64 {
            return Err(PacketError::TooLong(buffer.len()));
        }
        let mut frame = vec![0; (buffer.len() - header) as usize];
        buffer.read(memory, header, &mut frame)?;
        if let Some(capture) = capture {
            capture(&frame);
        }
        if direct.is_none() {
            return link.send(&frame).map_err(PacketError::Link);
        }
    }
    if let Some(fd) = direct {
        let iovecs = buffer.iovecs(memory, 0, buffer.len(), Permissions::Read, room)?;
        iovecs.send(fd).map_err(PacketError::Link)?;
    }
    Ok(())
}
