//! Everything about debugging a guest that needs no KVM.
//!
//! The VMM implements [`target::Target`] over its vCPU threads; this crate turns
//! gdb's packets into calls of that trait. It knows registers, page tables,
//! breakpoints and the GDB remote protocol, and must not know ioctls, files of
//! the VMM or devices.

mod breakpoints;
mod machine;
mod monitor;
pub mod paging;
pub mod server;
mod session;
pub mod target;
#[cfg(test)]
mod testing;
pub mod x86_64;

/// The architecture this build debugs. An aarch64 module with the same names
/// takes its place on that architecture.
pub use x86_64 as arch;
