//! End-to-end tests on bare-metal guests. They run on every /dev/kvm that opens,
//! whatever its kind; what a host cannot trap is taken from `outboard doctor`.

mod bad_input;
mod boot;
mod clocks;
mod console;
mod control;
mod crash;
mod dump;
mod events;
mod explain;
mod faults;
mod gdb;
mod host;
mod hostile;
mod install;
mod killstorm;
mod logs;
mod metrics;
mod net;
mod new_backend;
mod openapi;
mod pausing;
mod peers;
mod power;
mod qmp;
mod reload;
mod replay;
mod resets;
mod rust_vmm;
mod serial;
mod shared_memory;
mod slow;
mod small;
mod supervise;
mod trace;
mod virtio;
