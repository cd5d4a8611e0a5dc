//! Walls around a process: what it may do when somebody has taken it over.
//!
//! [`privileges`] are given up for good, [`files`] says which paths can still be opened (Landlock),
//! and [`filter`] which system calls a thread can make (seccomp). All of it needs no privilege, and
//! holds for threads that are started afterwards.

pub mod calls;
pub mod common;
pub mod files;
pub mod filter;
pub mod privileges;
pub mod violation;
