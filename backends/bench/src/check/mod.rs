//! The checks of `outboard-check`.
//!
//! A check is a function that plays a frontend and a driver in one way, and says whether the
//! backend keeps one rule; [`Check`] names the rule and where it is written. Each file has the
//! checks of one theme, [`all`] has all of them.

mod bench;
mod runner;
mod table;
mod types;

mod ack;
mod blk;
mod config;
mod hostile;
mod inflight;
mod log;
mod memory;
mod message;
mod negotiation;
mod queues;
mod reconnect;
mod ring;
mod rng;
mod state;
mod status;
mod vring;

pub use bench::{Bench, Profile};
pub use runner::{Failure, Finding, Outcome, Runner, RunnerError};
pub use table::all;
pub use types::{Check, Fault, Level, Need, Source, Verdict};
