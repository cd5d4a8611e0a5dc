//! Device types: their queues, and a request that each completes by itself.

mod queues;
mod sample;

pub use queues::{features_on_demand, least_queues};
pub use sample::{Sample, sample};
pub use vhost_user_wire::DeviceType;
