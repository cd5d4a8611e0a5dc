//! Traces of vhost-user connections that a person can read.
//!
//! * [`proxy`] stands between any frontend and any backend and sees each message.
//! * [`rings`] looks into virtqueues on the way of their kicks and calls.
//! * [`Recorder`] makes [`Record`]s of what it is shown, and a thread writes them to a file.
//! * [`faults`] plans what the proxy does wrong on purpose.
//! * [`format`] has the forms of that file, two of which can be read back.
//! * [`decode`] names what stands in a message.
//! * [`explain`] says in words why something hangs.
//! * [`show`] filters and sums up a trace that has been written.

pub mod cli;
pub mod decode;
mod descriptors;
mod escape;
pub mod explain;
pub mod faults;
pub mod format;
mod interposer;
mod pending;
pub mod proxy;
pub mod record;
mod recorder;
pub mod rings;
mod shapes;
pub mod show;
mod sink;
mod value;

pub use interposer::Interposer;
pub use record::Record;
pub use recorder::{ConnectionRecorder, Recorder};
pub use sink::{Sink, SinkError};
