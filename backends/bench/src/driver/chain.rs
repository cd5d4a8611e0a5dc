//! Buffers of a request, as a driver describes them to a device.

use std::fmt;

/// A part of guest memory that the device may read, or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// Guest-physical.
    pub addr: u64,
    /// In bytes.
    pub len: u32,
    pub writable: bool,
}

impl Element {
    pub fn readable(addr: u64, len: u32) -> Self {
        let writable = false;
        Self {
            addr,
            len,
            writable,
        }
    }

    pub fn writable(addr: u64, len: u32) -> Self {
        let writable = true;
        Self {
            addr,
            len,
            writable,
        }
    }
}

/// Who may do what, how many bytes, and where.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.writable { 'w' } else { 'r' };
        write!(f, "{access}{}@{:#x}", self.len, self.addr)
    }
}

/// Where a driver puts a table of indirect descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Guest-physical, room for 16 bytes an element.
    pub addr: u64,
    /// Elements that are ordinary descriptors before the one of the table (split rings only).
    pub direct: usize,
    /// The entries stand in the table in the reverse of their order, linked by `next` (split
    /// rings only; the first stands first).
    pub reversed: bool,
    /// VIRTQ_DESC_F_WRITE is set in the descriptor of the table, which a device ignores.
    pub marked_writable: bool,
}

impl Table {
    pub fn at(addr: u64) -> Self {
        Self {
            addr,
            direct: 0,
            reversed: false,
            marked_writable: false,
        }
    }
}

/// A request for a device: its elements, readable ones first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    pub elements: Vec<Element>,
    /// The elements, or the last of them, are in a table of indirect descriptors.
    pub table: Option<Table>,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elements: Vec<_> = self.elements.iter().map(ToString::to_string).collect();
        f.write_str(&elements.join(" "))?;
        match self.table {
            Some(table) => write!(f, " (indirect table at {:#x})", table.addr),
            None => Ok(()),
        }
    }
}

impl Chain {
    pub fn new(elements: impl Into<Vec<Element>>) -> Self {
        Self {
            elements: elements.into(),
            table: None,
        }
    }

    pub fn indirect(mut self, table: Table) -> Self {
        self.table = Some(table);
        self
    }

    /// Bytes that the device may write.
    pub fn writable_len(&self) -> u64 {
        let writable = self.elements.iter().filter(|element| element.writable);
        writable.map(|element| u64::from(element.len)).sum()
    }

    /// Descriptors of the ring that it takes.
    pub fn descriptors(&self) -> usize {
        match self.table {
            Some(table) => table.direct + 1,
            None => self.elements.len(),
        }
    }
}
