//! Chains of buffers, as the driver has written them: what is read may be nonsense.

use crate::interpose::Memory;
use crate::recording::Element;

const DESCRIPTOR: usize = 16;
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// Descriptors of a chain, with those of its table. No ring has more.
const LONGEST: usize = 1 << 15;
/// Bytes of a request's readable part, or of an answer, that are recorded.
pub const MOST: usize = 32 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    pub address: u64,
    pub len: u32,
    pub is_writable: bool,
}

/// One descriptor, of either format of ring.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    pub address: u64,
    pub len: u32,
    pub flags: u16,
    /// The next one's number in a split ring, the buffer ID in a packed one.
    pub number: u16,
}

impl Descriptor {
    /// Virtio 1.4, section 2.7.5.
    pub fn split(bytes: [u8; DESCRIPTOR]) -> Self {
        let [flags, number] = tail(&bytes);
        Self::new(&bytes, flags, number)
    }

    /// Section 2.8.13.
    pub fn packed(bytes: [u8; DESCRIPTOR]) -> Self {
        let [number, flags] = tail(&bytes);
        Self::new(&bytes, flags, number)
    }

    fn new(bytes: &[u8; DESCRIPTOR], flags: u16, number: u16) -> Self {
        let address = bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        let len = bytes[8..]
            .first_chunk()
            .map_or(0, |b| u32::from_le_bytes(*b));
        Self {
            address,
            len,
            flags,
            number,
        }
    }

    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

fn tail(bytes: &[u8; DESCRIPTOR]) -> [u16; 2] {
    let [.., a, b, c, d] = *bytes;
    [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
}

/// What the driver has made available.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// Under which it comes back.
    pub id: u16,
    /// Descriptors of the ring that it takes.
    pub descriptors: u16,
    pub buffers: Vec<Buffer>,
    /// Buffers before those of an indirect table.
    pub table_after: Option<u16>,
    /// Why it cannot be recorded as it is.
    pub trouble: Option<String>,
}

impl Chain {
    pub fn push(&mut self, descriptor: &Descriptor) {
        self.buffers.push(Buffer {
            address: descriptor.address,
            len: descriptor.len,
            is_writable: descriptor.has(WRITE),
        });
    }

    pub fn elements(&self) -> Vec<Element> {
        let element = |buffer: &Buffer| Element {
            len: buffer.len,
            is_writable: buffer.is_writable,
        };
        self.buffers.iter().map(element).collect()
    }

    /// Follows a split ring's chain through a table from its first descriptor on. Returns an
    /// indirect table, if it ends with one.
    pub fn follow(
        &mut self,
        read: impl Fn(u16) -> Option<[u8; DESCRIPTOR]>,
        head: u16,
    ) -> Option<Descriptor> {
        let mut index = head;
        for _ in 0..LONGEST {
            let Some(descriptor) = read(index).map(Descriptor::split) else {
                self.trouble = Some(format!("descriptor {index} is in no table"));
                return None;
            };
            if descriptor.has(INDIRECT) {
                return Some(descriptor);
            }
            self.push(&descriptor);
            if !descriptor.has(NEXT) {
                return None;
            }
            index = descriptor.number;
        }
        self.trouble = Some("its descriptors are a loop".into());
        None
    }

    /// A ring's own descriptors are as many as it has at most.
    pub fn limit(&mut self, size: u16) {
        let direct = self.table_after.map_or(self.buffers.len(), usize::from);
        if direct > usize::from(size) && self.trouble.is_none() {
            self.trouble = Some("it is longer than the ring".into());
        }
    }

    /// Reads an indirect table, whose entries are linked in a split ring, and follow one another
    /// in a packed one.
    pub fn read_table(&mut self, memory: &Memory, table: &Descriptor, is_linked: bool) {
        self.table_after = Some(self.buffers.len() as u16);
        let len = (table.len as usize).min(LONGEST * DESCRIPTOR);
        let mut bytes = vec![0; len];
        if !memory.copy_guest(table.address, &mut bytes) {
            self.trouble = Some(format!("its table at {:#x} is not memory", table.address));
            return;
        }
        let (entries, _) = bytes.as_chunks::<DESCRIPTOR>();
        if is_linked {
            if self
                .follow(|index| entries.get(usize::from(index)).copied(), 0)
                .is_some()
            {
                self.trouble = Some("its table has a table".into());
            }
            return;
        }
        for entry in entries {
            self.push(&Descriptor::packed(*entry));
        }
    }

    /// The content of all readable buffers, as it is now.
    pub fn readable(&mut self, memory: &Memory) -> Vec<u8> {
        let (bytes, is_whole) = read(memory, &self.buffers, false, MOST);
        if !is_whole && self.trouble.is_none() {
            self.trouble = Some("a readable buffer is not memory, or there is too much".into());
        }
        bytes
    }
}

/// The first bytes of all readable or all writable buffers, and whether they are all of them.
pub fn read(
    memory: &Memory,
    buffers: &[Buffer],
    is_writable: bool,
    most: usize,
) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    for buffer in buffers.iter().filter(|b| b.is_writable == is_writable) {
        let old = bytes.len();
        let len = (buffer.len as usize).min(most - old);
        bytes.resize(old + len, 0);
        if !memory.copy_guest(buffer.address, &mut bytes[old..]) {
            bytes.truncate(old);
            return (bytes, false);
        }
        if len < buffer.len as usize {
            return (bytes, false);
        }
    }
    (bytes, true)
}

/// The last byte that the device may write.
pub fn last(memory: &Memory, buffers: &[Buffer]) -> Option<u8> {
    let buffer = buffers.iter().rfind(|b| b.is_writable && b.len > 0)?;
    let address = buffer.address.checked_add(u64::from(buffer.len) - 1)?;
    memory.guest(address).map(|[byte]| byte)
}
