//! From virtual to physical addresses, by the debugger's own walk.
//!
//! The hypervisor's translation cannot be used: it walks for the vCPU's current
//! privilege level and sets accessed bits. This walk only reads; it reports
//! access rights but does not enforce them (a debugger may read and write
//! anything). Formats: SDM volume 3, chapter 5 ("Paging").

mod bit;
mod entry;
mod mode;
mod ranges;
mod region;
mod space;
mod walk;

pub use entry::{Kind, Step};
pub use mode::Mode;
pub use ranges::{Limits, Ranges, Row, Span};
pub use region::Region;
pub use space::{AddressSpace, Rights, Translation, WalkError};

#[cfg(test)]
#[path = "model_test.rs"]
mod tests;
