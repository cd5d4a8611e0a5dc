//! A message that has come.

use std::fs::File;

use crate::error::PayloadError;
use crate::header::Header;
use crate::payload::Payload;

/// Bytes and files as they came, be they a message or not.
#[derive(Debug, Default)]
pub struct Raw {
    pub bytes: Vec<u8>,
    /// In the order in which they came.
    pub files: Vec<File>,
}

impl Raw {
    /// The header that the bytes begin with, if they are enough for one.
    pub fn header(&self) -> Option<Header> {
        self.bytes.first_chunk().copied().map(Header::from_bytes)
    }
}

/// Files that are not taken are closed with it.
#[derive(Debug)]
pub struct Message {
    pub header: Header,
    /// As long as the header says.
    pub payload: Vec<u8>,
    /// In the order in which they came.
    pub files: Vec<File>,
}

impl Message {
    /// The payload as a `T`. What follows a `T` is not looked at: user-mode-linux sends
    /// SET_MEM_TABLE at its full size, however many regions it has.
    pub fn body<T: Payload>(&self) -> Result<T, PayloadError> {
        T::decode(&self.payload)
    }

    /// The attached files, if there are `want` of them.
    pub fn take_files(&mut self, want: usize) -> Result<Vec<File>, PayloadError> {
        let files = std::mem::take(&mut self.files);
        match files.len() {
            got if got == want => Ok(files),
            got => Err(PayloadError::Fds { got, want }),
        }
    }

    /// The only attached file.
    pub fn take_file(&mut self) -> Result<File, PayloadError> {
        let mut files = self.take_files(1)?;
        files.pop().ok_or(PayloadError::Fds { got: 0, want: 1 })
    }
}
