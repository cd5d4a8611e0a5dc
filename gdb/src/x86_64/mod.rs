//! What is specific to x86-64 in debugging.

mod registers;

pub use registers::{Fpu, Registers, Segment};
