//! Everything about debugging a guest that needs no KVM.
//!
//! The VMM implements [`target::Target`] over its vCPU threads and gives
//! [`server::serve`] a thread; this crate turns gdb's packets into calls of that
//! trait. It knows registers, page tables, breakpoints and the GDB remote
//! protocol, and must not know ioctls, files of the VMM or devices.
//!
//! From the socket inwards:
//!
//! | module | what it does |
//! |---|---|
//! | [`server`] | listens, keeps one client, moves bytes between it and gdbstub |
//! | `session` | gdbstub's target: registers, memory, breakpoints, run control |
//! | `monitor` | the `monitor` commands, over the session |
//! | `breakpoints` | what is planted: int3 bytes and hardware slots |
//! | `agent` | the bytecode in which gdb sends conditions, items to collect and texts to print |
//! | `trace` | tracepoints and what they have collected |
//! | `machine` | the target with a register cache and virtual addresses |
//! | [`paging`] | the page walk |
//! | [`hmp`] | what QEMU's human monitor prints |
//! | `qemu` | packets of QEMU's stub, which front ends ask for |
//! | `inquiry` | packets of gdb's and LLDB's that gdbstub does not know |
//! | `linux` | what the debugger knows of a Linux guest |
//! | [`symbol_file`] | the ELF file that gdb gets its symbols from |
//! | [`arch`] | register layout, target description |
//! | `virtqueue` | what a virtqueue in guest memory holds |
//! | [`ring_look`] | the same as the rules of `diagnosis` see it |
//! | [`target`], [`inspect`] | the seam to the VMM |
//! | `address`, `error`, `limits` | what all of these name places and failures by, and the size of a packet |

mod address;
mod agent;
mod breakpoints;
mod error;
pub mod hmp;
mod inquiry;
pub mod inspect;
mod limits;
mod linux;
mod machine;
mod monitor;
mod packed;
mod packet;
pub mod paging;
mod qemu;
pub mod ring_look;
pub mod server;
mod session;
pub mod symbol_file;
pub mod target;
#[cfg(test)]
mod testing;
mod trace;
mod virtqueue;
pub mod x86_64;

/// The architecture this build debugs. An aarch64 module with the same names
/// takes its place on that architecture.
pub use x86_64 as arch;
