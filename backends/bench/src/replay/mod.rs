//! `outboard replay`: gives a backend what a recording has, without a guest, and compares its
//! answers.
//!
//! * [`survey`] reads a recording once, to refuse one that makes no sense before anything is sent.
//! * [`traffic`] is the rings of one backend, and the requests in them; [`lane`] all of its driver.
//! * [`rules`] knows what may differ, by device type.
//! * [`compare`] finds the first difference between two answers.
//! * [`player`] drives one lane, or two, through a recording.
//! * [`report`] says what came of it.

mod arena;
pub mod cli;
mod compare;
mod error;
mod lane;
mod outcome;
mod player;
mod report;
mod requests;
mod rules;
mod survey;
mod traffic;
