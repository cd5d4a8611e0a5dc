//! The names that a device's author needs: `use backends::prelude::*;`.

pub use crate::chain::{BufferError, Buffers, Chain};
pub use crate::cli::{self, SocketArgs};
pub use crate::page_log::GuestRam;
pub use crate::request::{Finished, Outcome, Request};
pub use crate::shutdown::Shutdown;
pub use crate::virtio::{VirtioDevice, Wakers};
