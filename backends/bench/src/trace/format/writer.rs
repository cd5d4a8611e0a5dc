//! What all forms have in common.

use std::io;

use crate::trace::record::Record;

/// Writes records as they come.
pub trait Writer: Send {
    fn record(&mut self, record: &Record) -> io::Result<()>;

    fn flush(&mut self) -> io::Result<()>;

    /// There are no more records.
    fn finish(self: Box<Self>) -> io::Result<()>;
}
