//! Looking at a trace that has been written.

mod filter;
mod html;
mod read;
mod summary;

pub use filter::Filter;
pub use html::page;
pub use read::{ReadError, Trace};
pub use summary::Summary;
