//! One block request: from a descriptor chain to a [`Command`] for the image, and from its result
//! to a status byte (virtio 1.3, section 5.2.6).
//!
//! The device-readable bytes are a 16-byte header and the data to write; the device-writable
//! bytes are the data read and, last of all, the status. Their division into descriptors means
//! nothing.

use std::io;

use thiserror::Error;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use vm_memory::{GuestMemory, Permissions};

use super::cache::WriteCache;
use super::image::Image;
use super::{MAX_DISCARD_SECTORS, MAX_RANGES, MAX_WRITE_ZEROES_SECTORS, SECTOR_SIZE};
use crate::chain::{BufferError, Chain};
use crate::iovec::IoVecBuf;
use crate::request::Request;

/// Size of `struct virtio_blk_outhdr`: type, reserved (or priority), sector.
pub const HEADER_SIZE: u64 = 16;

/// Size of `struct virtio_blk_discard_write_zeroes`: sector, number of sectors, flags.
const RANGE_SIZE: u64 = 16;

/// Length of the identification string, in bytes.
pub const ID_SIZE: usize = VIRTIO_BLK_ID_BYTES as usize;

/// Why a request got another status than OK.
#[derive(Debug, Error)]
pub enum RequestError {
    /// No byte for the status in it, so that nobody is told.
    #[error("no device-writable byte for the status")]
    NoStatus,
    /// No header in it.
    #[error("{0} device-readable bytes; the request header alone has {HEADER_SIZE}")]
    NoHeader(u64),
    /// Not a whole number of sectors.
    #[error("{0} bytes of data are not a multiple of {SECTOR_SIZE}")]
    Length(u64),
    /// Data in the direction that the type does not use.
    #[error("{0} bytes of data in the wrong direction")]
    Direction(u64),
    /// Beyond the end.
    #[error("sectors {sector}+{count} of a disk of {capacity}")]
    OutOfRange {
        /// First sector.
        sector: u64,
        /// Number of sectors.
        count: u64,
        /// Sectors of the disk.
        capacity: u64,
    },
    /// A write to a read-only disk.
    #[error("the disk is read-only")]
    ReadOnly,
    /// DISCARD or WRITE_ZEROES with no range, half a range, or too many.
    #[error("{0} bytes of ranges; 1 to {MAX_RANGES} ranges of {RANGE_SIZE} bytes are accepted")]
    Ranges(u64),
    /// DISCARD or WRITE_ZEROES of more sectors than offered.
    #[error("a range of {count} sectors; at most {max} are accepted")]
    RangeSize {
        /// Sectors asked for.
        count: u32,
        /// Sectors offered.
        max: u32,
    },
    /// DISCARD or WRITE_ZEROES with flags that mean nothing there.
    #[error("flags {0:#x} are unknown for this request")]
    RangeFlags(u32),
    /// A type this device does not know.
    #[error("request type {0} is not supported")]
    Type(u32),
    /// A buffer that is not where the driver says.
    #[error("a buffer cannot be used")]
    Buffer(#[from] BufferError),
    /// The host failed.
    #[error("the image cannot be accessed")]
    Io(#[from] io::Error),
}

impl RequestError {
    /// The status byte that tells the driver.
    pub fn status(&self) -> u8 {
        let status = match self {
            RequestError::Type(_) | RequestError::RangeFlags(_) => VIRTIO_BLK_S_UNSUPP,
            RequestError::Io(e) if e.kind() == io::ErrorKind::Unsupported => VIRTIO_BLK_S_UNSUPP,
            _ => VIRTIO_BLK_S_IOERR,
        };
        status as u8
    }
}

/// A chain in which not even a status can be left: it goes back to the driver with length 0.
#[derive(Debug, Error)]
#[error("the request has no usable status byte")]
pub struct NoStatus(#[source] pub Option<BufferError>);

/// The result of a request that could be answered.
#[derive(Debug)]
pub struct Answered {
    /// Bytes written into the device-writable part, status included.
    pub used: u32,
    /// Why the status is not OK, if it is not.
    pub error: Option<RequestError>,
}

/// A disk: an image, a name, a write cache, and the rules.
#[derive(Debug)]
pub struct Disk {
    image: Image,
    id: [u8; ID_SIZE],
    cache: WriteCache,
}

impl Disk {
    /// A disk that answers GET_ID with `id`, cut or padded with zeroes to 20 bytes.
    pub fn new(image: Image, id: &str) -> Self {
        let mut bytes = [0; ID_SIZE];
        for (to, from) in bytes.iter_mut().zip(id.bytes()) {
            *to = from;
        }
        Disk {
            image,
            id: bytes,
            cache: WriteCache::default(),
        }
    }

    /// The image behind it.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Its write cache.
    pub fn cache(&self) -> &WriteCache {
        &self.cache
    }

    /// The command of the request in `chain`, with the feature bits `features` negotiated.
    pub fn parse<M: GuestMemory>(
        &self,
        memory: &M,
        chain: &Chain,
        features: u64,
    ) -> Result<Command, RequestError> {
        let data_len = chain.writable.len().checked_sub(1);
        let parser = Parser {
            disk: self,
            memory,
            chain,
            data_len: data_len.ok_or(RequestError::NoStatus)?,
            durable: self.cache.is_writethrough(features),
        };
        parser.parse()
    }

    /// Executes `command`, which is that of `chain`, and waits for its end.
    pub fn execute<M: GuestMemory>(
        &self,
        command: &Command,
        memory: &M,
        chain: &Chain,
        room: &mut IoVecBuf,
    ) -> Result<(), RequestError> {
        let (readable, writable) = (&chain.readable, &chain.writable);
        match command {
            Command::Nothing => (),
            Command::Read { offset, len } => {
                let buffers = writable.iovecs(memory, 0, *len, Permissions::Write, room)?;
                self.image.read(buffers, *offset)?;
            }
            Command::Write {
                offset,
                len,
                durable,
            } => {
                let access = Permissions::Read;
                let buffers = readable.iovecs(memory, HEADER_SIZE, *len, access, room)?;
                self.image.write(buffers, *offset, *durable)?;
            }
            Command::Flush => self.image.flush()?,
            Command::Ranges(ranges) => ranges.execute(&self.image)?,
        }
        Ok(())
    }

    /// Writes the result of its command into `chain`.
    pub fn answer<M: GuestMemory>(
        &self,
        memory: &M,
        chain: &Chain,
        result: Result<(), RequestError>,
    ) -> Result<Answered, NoStatus> {
        let writable = &chain.writable;
        let data_len = writable.len().checked_sub(1).ok_or(NoStatus(None))?;
        let error = result.err();
        let status = error.as_ref().map_or(VIRTIO_BLK_S_OK as u8, |e| e.status());
        if error.is_some() {
            // The used length promises that everything before it was written, and the status
            // comes last. Zeroes keep that promise; a buffer that does not exist needs none.
            let _ = writable.zero(memory, 0, data_len);
        } else {
            let _ = writable.written_by_kernel(memory, 0, data_len);
        }
        writable
            .write(memory, data_len, &[status])
            .map_err(|e| NoStatus(Some(e)))?;
        Ok(Answered {
            used: u32::try_from(writable.len()).unwrap_or(u32::MAX),
            error,
        })
    }
}

/// An operation on the image. It has been checked, and may be executed again.
#[derive(Debug)]
pub enum Command {
    /// Nothing is left to do.
    Nothing,
    /// Fill the device-writable data.
    Read {
        /// Where in the image, in bytes.
        offset: u64,
        /// How much, in bytes.
        len: u64,
    },
    /// Write the device-readable data.
    Write {
        /// Where in the image, in bytes.
        offset: u64,
        /// How much, in bytes.
        len: u64,
        /// To stable storage.
        durable: bool,
    },
    /// Bring all earlier writes to stable storage.
    Flush,
    /// Discard or zero ranges.
    Ranges(Ranges),
}

impl Command {
    /// Has the request's room describe the data of a transfer.
    pub fn describe(&self, request: &mut Request) -> Result<(), RequestError> {
        match self {
            Command::Read { len, .. } => request.describe_writable(0, *len)?,
            Command::Write { len, .. } => request.describe_readable(HEADER_SIZE, *len)?,
            _ => (),
        }
        Ok(())
    }
}

/// Ranges of a DISCARD or WRITE_ZEROES.
#[derive(Debug)]
pub struct Ranges {
    change: Change,
    list: Vec<Range>,
    /// To stable storage.
    durable: bool,
}

impl Ranges {
    /// Changes all of them, and waits for that.
    pub fn execute(&self, image: &Image) -> io::Result<()> {
        for range in &self.list {
            match self.change {
                Change::Discard => image.discard(range.offset, range.len)?,
                Change::Zero => image.write_zeroes(range.offset, range.len, range.unmap)?,
            }
        }
        if self.durable {
            image.flush()?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Discard,
    Zero,
}

/// One request that is being looked at.
struct Parser<'a, M> {
    disk: &'a Disk,
    memory: &'a M,
    chain: &'a Chain,
    /// Device-writable bytes before the status.
    data_len: u64,
    durable: bool,
}

impl<M: GuestMemory> Parser<'_, M> {
    fn parse(&self) -> Result<Command, RequestError> {
        let readable = &self.chain.readable;
        let payload_len = readable
            .len()
            .checked_sub(HEADER_SIZE)
            .ok_or(RequestError::NoHeader(readable.len()))?;
        let mut header = [0; HEADER_SIZE as usize];
        readable.read(self.memory, 0, &mut header)?;
        let kind = le32(&header, 0);
        let sector = le64(&header, 8);
        match kind {
            VIRTIO_BLK_T_IN => {
                no_data(payload_len)?;
                Ok(Command::Read {
                    offset: self.position(sector, self.data_len)?,
                    len: self.data_len,
                })
            }
            VIRTIO_BLK_T_OUT => {
                self.check_writable()?;
                no_data(self.data_len)?;
                Ok(Command::Write {
                    offset: self.position(sector, payload_len)?,
                    len: payload_len,
                    durable: self.durable,
                })
            }
            VIRTIO_BLK_T_FLUSH if self.disk.image.is_read_only() => Ok(Command::Nothing),
            VIRTIO_BLK_T_FLUSH => Ok(Command::Flush),
            VIRTIO_BLK_T_GET_ID => self.get_id().map(|()| Command::Nothing),
            VIRTIO_BLK_T_DISCARD => self.ranges(Change::Discard, payload_len),
            VIRTIO_BLK_T_WRITE_ZEROES => self.ranges(Change::Zero, payload_len),
            other => Err(RequestError::Type(other)),
        }
    }

    /// The byte offset of `len` bytes at `sector`, if the disk has them.
    fn position(&self, sector: u64, len: u64) -> Result<u64, RequestError> {
        if !len.is_multiple_of(SECTOR_SIZE) {
            return Err(RequestError::Length(len));
        }
        self.check_range(sector, len / SECTOR_SIZE)
    }

    fn check_range(&self, sector: u64, count: u64) -> Result<u64, RequestError> {
        let capacity = self.disk.image.sectors();
        match sector.checked_add(count) {
            Some(end) if end <= capacity => Ok(sector * SECTOR_SIZE),
            _ => Err(RequestError::OutOfRange {
                sector,
                count,
                capacity,
            }),
        }
    }

    fn check_writable(&self) -> Result<(), RequestError> {
        if self.disk.image.is_read_only() {
            return Err(RequestError::ReadOnly);
        }
        Ok(())
    }

    /// GET_ID: 20 bytes, or as many as there is room for.
    fn get_id(&self) -> Result<(), RequestError> {
        let writable = &self.chain.writable;
        let len = self.data_len.min(ID_SIZE as u64);
        writable.write(self.memory, 0, &self.disk.id[..len as usize])?;
        writable.zero(self.memory, len, self.data_len - len)?;
        Ok(())
    }

    /// DISCARD and WRITE_ZEROES. Every range is checked before the first is touched.
    fn ranges(&self, change: Change, payload_len: u64) -> Result<Command, RequestError> {
        self.check_writable()?;
        no_data(self.data_len)?;
        let count = payload_len / RANGE_SIZE;
        if !payload_len.is_multiple_of(RANGE_SIZE) || count == 0 || count > u64::from(MAX_RANGES) {
            return Err(RequestError::Ranges(payload_len));
        }
        let places = (0..count).map(|i| HEADER_SIZE + RANGE_SIZE * i);
        let list: Result<_, _> = places.map(|at| self.range(change, at)).collect();
        Ok(Command::Ranges(Ranges {
            change,
            list: list?,
            durable: self.durable,
        }))
    }

    fn range(&self, change: Change, at: u64) -> Result<Range, RequestError> {
        let mut bytes = [0; RANGE_SIZE as usize];
        self.chain.readable.read(self.memory, at, &mut bytes)?;
        let (sector, count, flags) = (le64(&bytes, 0), le32(&bytes, 8), le32(&bytes, 12));
        let (known, max) = match change {
            Change::Discard => (0, MAX_DISCARD_SECTORS),
            Change::Zero => (VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, MAX_WRITE_ZEROES_SECTORS),
        };
        if flags & !known != 0 {
            return Err(RequestError::RangeFlags(flags));
        }
        if count > max {
            return Err(RequestError::RangeSize { count, max });
        }
        Ok(Range {
            offset: self.check_range(sector, u64::from(count))?,
            len: u64::from(count) * SECTOR_SIZE,
            unmap: flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0,
        })
    }
}

/// One checked range of DISCARD or WRITE_ZEROES, in bytes.
#[derive(Debug, Clone, Copy)]
struct Range {
    offset: u64,
    len: u64,
    unmap: bool,
}

fn no_data(len: u64) -> Result<(), RequestError> {
    if len == 0 {
        Ok(())
    } else {
        Err(RequestError::Direction(len))
    }
}

fn le32(bytes: &[u8; 16], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn le64(bytes: &[u8; 16], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

#[cfg(test)]
#[path = "request_test.rs"]
mod tests;
