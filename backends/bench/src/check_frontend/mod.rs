//! The checks of `outboard-check --frontend`.
//!
//! A check either looks at what a frontend does while nothing is wrong, or starts one and does
//! something to it; [`FrontendCheck`] names the rule and where it is written. Each file has the
//! checks of one theme, [`all`] has all of them.

mod judge;
mod offers;
mod runner;
mod stage;
mod table;
mod types;

mod channel;
mod device_state;
mod features;
mod gates;
mod hang_up;
mod header;
mod hostile;
mod inflight;
mod log;
mod memory;
mod offer;
mod order;
mod place;
mod reconnect;
mod reply;
mod ring;
mod shared_memory;
mod status;
mod vring;

pub use runner::FrontendRunner;
pub use stage::Stage;
pub use table::all;
pub use types::{FrontendCheck, Method};
