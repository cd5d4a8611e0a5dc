//! `outboard record`: a proxy that keeps what a guest asks of a device, and what it answers.
//!
//! * [`mirror`] has each ring twice, so that nothing passes unseen.
//! * [`wiring`] learns from messages where the rings are.
//! * [`in_flight`] keeps what a ring that loses its backend has under way.
//! * [`vring`] is one ring with its kick and call.
//! * [`rings`] passes kicks and calls on.
//! * [`tape`] writes what they tell to a file.

pub mod cli;
mod in_flight;
mod mirror;
mod rings;
mod tape;
mod vring;
mod wiring;

pub use rings::Tell;
