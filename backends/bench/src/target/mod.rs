//! How a backend is reached.

mod error;
mod exit;
mod instance;
mod process;

pub use error::{START, TargetError};
pub use exit::Exit;
pub use instance::{Instance, Target};
pub use process::{GRACE, Process};
