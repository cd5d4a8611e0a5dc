//! The first process of a guest of `outboard up`, and what it has in common with the program that
//! starts the guest: its [`job`].

pub mod job;
