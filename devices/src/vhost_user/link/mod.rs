//! How a backend is reached, and when it is tried again.

pub mod connect;
pub mod connector;
pub mod listen;
pub mod reconnect;
