//! Faults on purpose (`--faults`): what a proxy does wrong, when, and so that it can be repeated.
//!
//! * [`rule`] is a fault of a file: where, when, what.
//! * [`file`] reads rules.
//! * [`Plan`] decides, from the seed and from what has passed so far, and nothing else.
//! * [`Faults`] has the plan of all connections, and signals the backend's process.
//! * [`ToldMemory`] is what a backend has been told of guest memory, and tells it of less.
//! * [`load`](load()) makes them of a file.

mod file;
mod inject;
mod load;
mod memory;
mod plan;
mod rule;

pub use file::{FaultFile, FileError};
pub use inject::{Faults, Injector};
pub use load::{LoadError, load};
pub use memory::ToldMemory;
pub use plan::{Occurrence, Plan};
pub use rule::Action;
