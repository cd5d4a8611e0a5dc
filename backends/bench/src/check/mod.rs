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
mod message;
mod negotiation;
mod ring;
mod vring;

pub use bench::{Bench, Profile};
pub use runner::{Failure, Finding, Outcome, Runner, RunnerError};
pub use table::all;
pub use types::{Check, Fault, Level, Need, Source, Verdict};
