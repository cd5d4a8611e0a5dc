//! The workbench for authors of virtio backends: what plays a frontend and a driver against any
//! vhost-user backend, without a guest and without KVM.
//!
//! * [`driver`] sets up a connection, guest memory and virtqueues, with every step open to change.
//! * [`device`] knows the device types: their numbers, their queues, and a request that each one
//!   completes by itself.
//! * [`target`] reaches a backend: on a socket, or in a process that it starts.
//! * [`backend`] plays a backend against any frontend, and notes what that does.
//! * [`check`] has the checks of `outboard-check`, each with the sentence that it enforces.
//! * [`check_frontend`] has those of `outboard-check --frontend`, [`check_args`] its command line.
//! * [`report`] shows what they found.
//! * [`trace`] shows what a frontend and a backend say to each other.
//! * [`record`] keeps what a device is asked under a guest, and what it answers.
//! * [`recording`] is the file in which that is.
//! * [`replay`] gives that to a backend without a guest.
//! * [`new_backend`] writes a crate that is a backend, with tests that use all of these.
//!
//! Nothing here shares code with the backend kit: a judge of rings has rings of its own.

pub mod backend;
pub mod check;
pub mod check_args;
pub mod check_frontend;
pub mod device;
pub mod driver;
mod follow;
mod interpose;
pub mod new_backend;
pub mod record;
pub mod recording;
pub mod replay;
pub mod report;
pub mod target;
pub mod trace;
