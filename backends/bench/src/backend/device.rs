//! As much of a device as a driver needs to get on.

use vhost_user_wire::DeviceType;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::offer::DISK;
use super::ring::{Chain, RingError};
use super::trouble::Trouble;

/// It keeps what is written to a disk, and takes what is sent to a network. It holds buffers that
/// wait for something, and all of a type that it does not know.
#[derive(Debug)]
pub struct Device {
    device_type: DeviceType,
    disk: Vec<u8>,
}

const SECTOR: u64 = 512;
/// Requests of a block device (virtio 1.4, section 5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPPORTED: u8 = 2;
const ID: [u8; 20] = *b"outboard-check\0\0\0\0\0\0";
/// What is written to an entropy device's buffers.
const RANDOM: u8 = 0x5a;
/// More than any request that fits in the ring's memory is of no use here.
const MOST: usize = 64 << 20;

impl Device {
    pub fn new(device_type: DeviceType) -> Self {
        let is_disk = device_type == DeviceType::BLK;
        Self {
            device_type,
            disk: vec![0; if is_disk { DISK } else { 0 }],
        }
    }

    /// Does what a chain asks for. Returns how much was written; `None` to hold it.
    pub fn complete(
        &mut self,
        queue: u32,
        memory: &GuestMemoryMmap,
        chain: &Chain,
    ) -> Result<Option<u32>, RingError> {
        match self.device_type {
            DeviceType::BLK => self.block(memory, chain).map(Some),
            DeviceType::RNG => {
                let bytes = vec![RANDOM; total(&chain.writable)];
                scatter(memory, &chain.writable, &bytes)?;
                Ok(Some(bytes.len() as u32))
            }
            // The first queue of each pair receives (sections 5.1.2 and 5.3.2).
            DeviceType::NET | DeviceType::CONSOLE => Ok((queue % 2 == 1).then_some(0)),
            _ => Ok(None),
        }
    }

    fn block(&mut self, memory: &GuestMemoryMmap, chain: &Chain) -> Result<u32, RingError> {
        let request = gather(memory, &chain.readable)?;
        let room = total(&chain.writable);
        let (Some(header), Some(data)) = (request.first_chunk::<16>(), room.checked_sub(1)) else {
            let (got, id) = (request.len(), chain.id);
            let text = format!(
                "buffer {id} has {got} readable and {room} writable bytes: a request has a header \
                 of 16, and a status"
            );
            return Err((Trouble::Request, text));
        };
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = *header;
        let at = u64::from_le_bytes(sector).wrapping_mul(SECTOR);
        let answer = self.answer(
            u32::from_le_bytes([t0, t1, t2, t3]),
            at,
            data,
            &request[16..],
        );
        let mut bytes = answer.0;
        bytes.resize(data, 0);
        bytes.push(answer.1);
        scatter(memory, &chain.writable, &bytes)?;
        Ok(bytes.len() as u32)
    }

    /// What is read, and the status.
    fn answer(&mut self, kind: u32, at: u64, len: usize, data: &[u8]) -> (Vec<u8>, u8) {
        let range = |len: usize| {
            let begin = usize::try_from(at).ok()?;
            Some(begin..begin.checked_add(len)?)
        };
        let disk = &mut self.disk;
        match kind {
            IN => match range(len).and_then(|range| disk.get(range)) {
                Some(bytes) => (bytes.to_vec(), OK),
                None => (Vec::new(), IOERR),
            },
            OUT => match range(data.len()).and_then(|range| disk.get_mut(range)) {
                Some(place) => {
                    place.copy_from_slice(data);
                    (Vec::new(), OK)
                }
                None => (Vec::new(), IOERR),
            },
            FLUSH => (Vec::new(), OK),
            GET_ID => (ID.to_vec(), OK),
            _ => (Vec::new(), UNSUPPORTED),
        }
    }
}

fn total(parts: &[(GuestAddress, u32)]) -> usize {
    let sum: usize = parts.iter().map(|(_, len)| *len as usize).sum();
    sum.min(MOST)
}

fn gather(memory: &GuestMemoryMmap, parts: &[(GuestAddress, u32)]) -> Result<Vec<u8>, RingError> {
    let mut bytes = Vec::new();
    for (addr, len) in parts {
        let begin = bytes.len();
        bytes.resize(begin + (*len as usize).min(MOST - begin), 0);
        let read = memory.read_slice(&mut bytes[begin..], *addr);
        read.map_err(|_| lost(*addr))?;
    }
    Ok(bytes)
}

fn scatter(
    memory: &GuestMemoryMmap,
    parts: &[(GuestAddress, u32)],
    mut bytes: &[u8],
) -> Result<(), RingError> {
    for (addr, len) in parts {
        let (now, rest) = bytes.split_at(bytes.len().min(*len as usize));
        memory.write_slice(now, *addr).map_err(|_| lost(*addr))?;
        bytes = rest;
    }
    Ok(())
}

fn lost(addr: GuestAddress) -> RingError {
    (Trouble::Buffer, format!("guest address {:#x}", addr.0))
}
