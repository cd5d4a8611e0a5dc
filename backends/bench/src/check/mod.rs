//! The checks of `outboard-check`.
//!
//! A check is a function that plays a frontend and a driver in one way, and says whether the
//! backend keeps one rule; [`Check`] names the rule and where it is written. Each file has the
//! checks of one theme, [`all`] has all of them.

mod bench;
mod finding;
mod processes;
mod runner;
mod table;
mod types;

mod ack;
mod blk;
mod config;
mod console;
mod exchange;
mod fs;
mod gpio;
mod hostile;
mod i2c;
mod inflight;
mod input;
mod log;
mod memory;
mod message;
mod negotiation;
mod net;
mod net_control;
mod net_receive;
mod queues;
mod reconnect;
mod ring;
mod ring_reset;
mod rng;
mod scsi;
mod sound;
mod state;
mod status;
mod vring;
mod vsock;

pub use bench::{Bench, Profile};
pub use finding::{Failure, Finding, Outcome, Subject};
pub use runner::{Runner, RunnerError};
pub use table::all;
#[cfg(test)]
pub use table::assert_sound;
pub use types::{Check, Fault, Heading, Level, Need, Source, Verdict, demand};
