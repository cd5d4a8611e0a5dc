//! Device types: their queues, a request that each completes by itself, and what requests ask.

mod queues;
mod request;
mod sample;

pub use queues::{features_on_demand, least_queues};
pub use request::{LOOKED_AT, Outline, describe, result};
pub use sample::{Sample, sample};
pub use vhost_user_wire::DeviceType;
