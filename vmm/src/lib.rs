//! The `outboard` virtual machine monitor.
//!
//! The binary parses a command line ([`cli`]) into a checked [`config`],
//! assembles a [`machine`] and hands it to the [`event_loop`]; each vCPU has a
//! thread ([`vcpu`]) that routes its exits to the devices' buses.

pub mod api;
mod backends;
pub mod boot;
pub mod cli;
mod clients;
pub mod config;
pub mod console;
mod control;
pub mod crash;
pub mod debug;
pub mod dump;
pub mod event_loop;
pub mod events;
mod explain;
pub mod guest_mapping;
mod guest_virtual;
pub mod hints;
pub mod host;
pub mod kvm;
pub mod kvm_device;
pub mod layout;
mod locks;
pub mod log;
pub mod machine;
mod machine_events;
pub mod memory;
mod panicked;
pub mod panics;
pub mod power;
pub mod qmp;
mod reset;
pub mod run;
pub mod scheduling;
pub mod shm_address_space;
pub mod signals;
pub mod status;
pub mod supervisor;
pub mod transports;
pub mod up;
pub mod vcpu;
pub mod vcpus;
mod windows;
