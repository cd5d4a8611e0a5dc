//! The states of a ring: started, stopped, enabled, disabled, and where it begins.

pub mod files;
pub mod start;
mod steps;
pub mod stop;
