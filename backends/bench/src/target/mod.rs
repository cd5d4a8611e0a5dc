//! How a backend is reached.

mod error;
mod instance;
mod process;

pub use error::TargetError;
pub use instance::{Instance, Target};
pub use process::{Exit, Process};
