//! The first process of a guest of `outboard up`, and what it has in common with the programs
//! that start the guest and reach it: its [`job`], and the [`frame`]s of further shells.

pub mod frame;
pub mod job;
