//! The file that `outboard record` writes and `outboard replay` reads.
//!
//! * [`Item`] is what it consists of.
//! * [`Writer`] and [`Reader`] know how it looks in a file: docs/replay.md has the format.

mod bytes;
mod file;
mod item;

pub use file::{ReadError, Reader, WriteError, Writer};
pub use item::{Config, Element, Header, Item, Start, Submit, Used};
