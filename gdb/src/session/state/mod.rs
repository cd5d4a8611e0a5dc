//! The parts of a session's state: each keeps what belongs together, and its rules.
//!
//! None of them knows the session. Those that have to do something to the guest are
//! handed the machine.

mod action;
mod console;
mod described;
mod devices;
mod place;
mod run;
mod selection;
mod steps;
mod trace_dialog;
mod vcpus;

pub(super) use action::{Action, Request};
pub(super) use console::Console;
pub(super) use described::Described;
pub(crate) use devices::DeviceControl;
pub(super) use place::Place;
pub(super) use run::{Alone, Run};
pub(crate) use selection::Selection;
pub(super) use trace_dialog::TraceDialog;
pub(super) use vcpus::{ForeignInt3, Int3Kind, Vcpus};
