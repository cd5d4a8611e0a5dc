//! Messages as bytes: what a frontend may send, and what none should.

pub mod files;
pub mod malformed;
mod steps;
pub mod stream;
pub mod tables;

pub use steps::all_writers_gone;
