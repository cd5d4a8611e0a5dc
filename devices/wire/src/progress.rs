//! How far a message has come, for errors.

use std::fmt;

/// How much of a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// "header" or "payload".
    pub part: &'static str,
    /// Bytes of that part that have come.
    pub received: usize,
    /// Bytes that it has.
    pub expected: usize,
}

impl Progress {
    /// Whether any byte of the message has come.
    pub fn has_begun(&self) -> bool {
        self.received > 0 || self.part != HEADER
    }
}

pub(crate) const HEADER: &str = "header";
pub(crate) const PAYLOAD: &str = "payload";

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            part,
            received,
            expected,
        } = self;
        write!(f, "{received} of the {expected} bytes of a {part} came")
    }
}
