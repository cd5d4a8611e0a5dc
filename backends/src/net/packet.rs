//! One packet between a link and descriptor chains (virtio 1.3, section 5.1.6).
//!
//! A packet stands behind a `struct virtio_net_hdr` in the chain as it does on the link.

use std::io;

use thiserror::Error;
use vm_memory::{GuestMemory, Permissions};

use super::link::Link;
use super::pcap::Capture;
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
#[derive(Debug)]
pub struct Inbox {
    packet: Box<[u8]>,
    length: usize,
    /// Bytes that are in chains.
    given: usize,
    /// Where the header is, of a packet in several chains.
    header: Buffers,
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

impl Default for Inbox {
    fn default() -> Self {
        Inbox {
            packet: vec![0; MAX_PACKET].into(),
            length: 0,
            given: 0,
            header: Buffers::default(),
        }
    }
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
                self.header.clone_from(buffer);
            }
            return Ok(Given::Part(len as u32));
        }
        self.drop_packet();
        if part > 0 {
            let count = u16::try_from(part + 1).unwrap_or(u16::MAX);
            self.header
                .write(memory, NUM_BUFFERS as u64, &count.to_le_bytes())?;
        }
        Ok(Given::Last(len as u32))
    }
}

/// Sends the packet in a chain of the transmit queue, and adds its frame to `capture`, if any.
pub fn transmit<M: GuestMemory>(
    link: &impl Link,
    pair: u16,
    memory: &M,
    chain: &Chain,
    header_size: usize,
    room: &mut IoVecBuf,
    capture: Option<&Capture>,
) -> Result<(), PacketError> {
    let buffer = &chain.readable;
    let header = header_size as u64;
    if buffer.len() < header + MIN_FRAME as u64 {
        return Err(PacketError::TooShort(buffer.len()));
    }
    let len = (buffer.len() - header) as usize;
    let direct = link.packet_fd(pair);
    if (direct.is_none() || capture.is_some()) && len > MAX_PACKET - header_size {
        return Err(PacketError::TooLong(buffer.len()));
    }
    let copy = |bytes: &mut [u8]| buffer.read(memory, header, bytes);
    if let Some(capture) = capture {
        capture.add(len, copy)?;
    }
    let sent = match direct {
        Some(fd) => {
            let iovecs = buffer.iovecs(memory, 0, buffer.len(), Permissions::Read, room)?;
            iovecs.send(fd).map(drop)
        }
        None => link.send(len, copy)?,
    };
    sent.map_err(PacketError::Link)
}
