//! What outlives a connection.

use super::device::Device;
use super::history::History;
use super::offer::Offer;
use super::script::Script;
use crate::driver::MessageLog;

/// The backend as a frontend meets it, on one connection after another.
pub struct Scene<'a> {
    pub offer: &'a Offer,
    pub script: Script,
    pub device: Device,
    pub history: History,
    pub log: MessageLog,
}
