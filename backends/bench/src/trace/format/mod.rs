//! The forms of a trace's file.

mod chrome;
mod json;
mod kind;
mod packet;
mod pcapng;
mod text;
mod writer;

pub use json::read as read_json;
pub use kind::Kind;
pub use pcapng::read as read_pcapng;
pub use text::line;
pub use writer::Writer;

#[cfg(test)]
#[path = "format_test.rs"]
mod tests;
