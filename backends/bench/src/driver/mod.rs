//! A frontend and a driver without a guest.
//!
//! A [`Frontend`] sends messages and keeps a log of them. [`Setup`] makes a [`Session`] of it:
//! features, guest memory and queues, as QEMU sets them up, unless a step is left out or altered.
//!
//! ```no_run
//! use workbench::driver::{Buffers, Frontend, Setup};
//! use workbench::target::Target;
//!
//! // A process that is ended with the test; a `UnixStream` to any other backend will do as well.
//! let mut backend = Target::command("outboard-blk --path disk.img --fd {fd}")?.start()?;
//! let stream = backend.connect()?.ok_or("there is no connection")?;
//! let mut session = Setup::default().start(Frontend::new(stream))?;
//! // Which sector is read: a block device's request header, then 512 bytes and a status.
//! let buffers = Buffers::place(session.memory(), &[0; 16], 513)?;
//! let used = session.queue_mut(0).run(buffers.chain())?;
//! assert_eq!(used.len, Some(513));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod buffers;
mod chain;
mod error;
mod event;
mod frontend;
mod log;
mod memory;
mod packed;
mod patience;
pub(crate) mod position;
mod queue;
mod ring;
mod session;
mod setup;
mod split;
mod wait;

pub use buffers::Buffers;
pub use chain::{Chain, Element, Table};
pub use error::DriverError;
pub use event::Event;
pub use frontend::{Answer, Frontend};
pub use log::{Entry, MessageLog};
pub use memory::{Layout, Memory, PAGE, Stray, USER_BASE};
pub use packed::PackedRing;
pub use patience::{Awaited, Patience};
pub use queue::{Queue, QueueFeatures};
pub use ring::{Descriptor, Format, Places, Ring, Used, VIRTQ_INDIRECT, VIRTQ_NEXT, VIRTQ_WRITE};
pub use session::{Negotiated, Session};
pub use setup::{Setup, Step};
pub use split::SplitRing;
pub use wait::{DEADLINE, QUIET, wait_readable};
