//! A backend without a device: it serves any frontend, notes what that does, and does what is
//! wrong where a [`Script`] says so.
//!
//! It judges nothing. [`History`] has what a frontend did, each message with the [`State`] of its
//! connection before it, for whoever wants to know.

mod channel;
mod damage;
mod device;
mod history;
mod inflight;
mod memory;
mod offer;
mod player;
mod queues;
mod ring;
mod script;
mod source;
mod state;

pub use channel::Question;
pub use damage::Damage;
pub use history::{Answer, Attached, History, Milestone, Seen, Trouble};
pub use offer::Offer;
pub use player::Limits;
pub use queues::lengths;
pub use ring::RingFault;
pub use script::{Act, Script};
pub use source::{FrontendSource, Observation, SourceError};
pub use state::{Region, RingState, State};
