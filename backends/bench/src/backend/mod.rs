//! A backend without a device: it serves any frontend, notes what that does, and does what is
//! wrong where a [`Script`] says so.
//!
//! It judges nothing. [`History`] has what a frontend did, each message with the [`State`] of its
//! connection before it, for whoever wants to know.

mod channel;
mod damage;
mod device;
mod device_state;
mod error;
mod history;
mod inflight;
mod listen;
mod memory;
mod offer;
mod page_log;
mod player;
mod queues;
mod ring;
mod scene;
mod script;
mod session;
mod source;
mod state;
mod trouble;

pub use channel::Question;
pub use damage::Damage;
pub use device_state::direction_and_phase;
pub use error::SourceError;
pub use history::{Answer, Attached, History, Milestone, Seen};
pub use listen::Listen;
pub use offer::Offer;
pub use page_log::PAGE as LOG_PAGE;
pub use player::Limits;
pub use ring::{RingFault, lengths};
pub use script::{Act, Script};
pub use source::{FrontendSource, Observation};
pub use state::{Region, RingState, State};
pub use trouble::Trouble;
