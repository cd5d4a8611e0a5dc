//! A recording in a file: a magic number and a version, then records, each with its length and a
//! checksum.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use host_io::files::create_private;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::item::{Header, Item};

pub const MAGIC: [u8; 16] = *b"outboard record\n";
/// Of the format.
pub const VERSION: u32 = 1;
/// The longest record in bytes: what claims to be longer is no record.
pub const MOST: usize = 80 << 20;

#[derive(Debug, thiserror::Error)]
#[error("cannot write the recording {}", .path.display())]
pub struct WriteError {
    path: PathBuf,
    source: io::Error,
}

pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Writer {
    /// Begins a recording; a file that is there is replaced. It has a guest's data.
    pub fn create(path: &Path, header: &Header) -> Result<Self, WriteError> {
        let failed = |source| WriteError {
            path: path.to_owned(),
            source,
        };
        let file = BufWriter::new(create_private(path).map_err(failed)?);
        let path = path.to_owned();
        let mut writer = Self { path, file };
        writer.begin(header).map_err(failed)?;
        Ok(writer)
    }

    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.file.write_all(&MAGIC)?;
        self.file.write_all(&VERSION.to_le_bytes())?;
        self.put(header)?;
        self.file.flush()
    }

    pub fn write(&mut self, item: &Item) -> Result<(), WriteError> {
        self.put(item).map_err(|source| self.failed(source))
    }

    /// Has what was written in the file, should this process be killed.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.file.flush().map_err(|source| self.failed(source))
    }

    fn put(&mut self, record: &impl Serialize) -> io::Result<()> {
        let bytes = postcard::to_stdvec(record).map_err(io::Error::other)?;
        if bytes.len() > MOST {
            return Err(io::Error::other("a record is too long"));
        }
        self.file.write_all(&(bytes.len() as u32).to_le_bytes())?;
        self.file
            .write_all(&crc32fast::hash(&bytes).to_le_bytes())?;
        self.file.write_all(&bytes)
    }

    fn failed(&self, source: io::Error) -> WriteError {
        WriteError {
            path: self.path.clone(),
            source,
        }
    }
}

/// Each text completes a sentence that begins with the file's name.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot be read")]
    Read(#[from] io::Error),
    #[error("is not a recording of `outboard record`")]
    Foreign,
    #[error("has version {0} of the format, and this program knows version {VERSION}")]
    Version(u32),
    #[error("is damaged: record {record}, at byte {at}, {what}")]
    Damaged {
        record: u64,
        at: u64,
        what: &'static str,
    },
}

/// Reads a recording, which is somebody else's input.
pub struct Reader<R = BufReader<File>> {
    input: R,
    header: Header,
    /// The next record, from 0 for the header, and where it begins.
    record: u64,
    at: u64,
    is_cut_short: bool,
}

impl Reader {
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(ReadError::Foreign);
        }
        Self::new(BufReader::new(file))
    }
}

impl<R: Read> Reader<R> {
    pub fn new(mut input: R) -> Result<Self, ReadError> {
        let mut begin = [0; MAGIC.len() + 4];
        match input.read_exact(&mut begin) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(ReadError::Foreign);
            }
            read => read?,
        }
        let (magic, version) = begin.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(ReadError::Foreign);
        }
        let version = version.first_chunk().map_or(0, |v| u32::from_le_bytes(*v));
        if version != VERSION {
            return Err(ReadError::Version(version));
        }
        let nothing = Header {
            device: String::new(),
            device_type: None,
            began: 0,
        };
        let mut reader = Self {
            input,
            header: nothing,
            record: 0,
            at: begin.len() as u64,
            is_cut_short: false,
        };
        let header = reader.record()?;
        reader.header = header.ok_or(ReadError::Foreign)?;
        Ok(reader)
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next item; `None` at the end.
    pub fn next_item(&mut self) -> Result<Option<Item>, ReadError> {
        self.record()
    }

    /// Whether the last record is there in part only, as when the recorder was killed.
    pub fn is_cut_short(&self) -> bool {
        self.is_cut_short
    }

    fn record<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ReadError> {
        let Some(head) = self.take(8)? else {
            return Ok(None);
        };
        let word = |at: usize| {
            let bytes = head[at..].first_chunk();
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let (len, sum) = (word(0) as usize, word(4));
        if len > MOST {
            return Err(self.damaged("is longer than any record"));
        }
        let Some(bytes) = self.take(len)? else {
            self.is_cut_short = true;
            return Ok(None);
        };
        if crc32fast::hash(&bytes) != sum {
            return Err(self.damaged("is not what its checksum says"));
        }
        let item = postcard::from_bytes(&bytes);
        let item = item.map_err(|_| self.damaged("cannot be decoded"))?;
        self.record += 1;
        self.at += 8 + len as u64;
        Ok(Some(item))
    }

    /// So many bytes; nothing if the file ends before. Memory is taken for what is there only.
    fn take(&mut self, len: usize) -> Result<Option<Vec<u8>>, ReadError> {
        let mut bytes = Vec::new();
        let limited = &mut (&mut self.input).take(len as u64);
        limited.read_to_end(&mut bytes)?;
        if bytes.len() == len {
            return Ok(Some(bytes));
        }
        self.is_cut_short |= !bytes.is_empty();
        Ok(None)
    }

    fn damaged(&self, what: &'static str) -> ReadError {
        ReadError::Damaged {
            record: self.record,
            at: self.at,
            what,
        }
    }
}

#[cfg(test)]
#[path = "file_test.rs"]
mod tests;
