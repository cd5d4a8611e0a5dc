//! Getting a vCPU thread out of KVM_RUN.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use host_io::mapping::Mapping;
use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// `kvm_run.immediate_exit`, mapped once more so that other threads can set it.
///
/// Setting it before the signal closes the race with a thread that is about to
/// enter the guest: the signal alone would be lost between its last check and
/// KVM_RUN (KVM API documentation, `immediate_exit`).
pub struct ImmediateExit {
    run: Mapping,
}

impl ImmediateExit {
    pub fn new(vcpu: &VcpuFd) -> io::Result<Self> {
        // SAFETY: the descriptor is open as long as the vCPU that is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
        let run = Mapping::of_file(fd, 0, size_of::<kvm_run>() as u64, true)?;
        Ok(Self { run })
    }

    /// Whether the next KVM_RUN returns at once.
    pub fn set(&self, on: bool) {
        let offset = std::mem::offset_of!(kvm_run, immediate_exit);
        // SAFETY: the byte lies inside the mapping and is only accessed atomically
        // from user space.
        let flag = unsafe { AtomicU8::from_ptr(self.run.base().as_ptr().add(offset)) };
        flag.store(on.into(), Ordering::SeqCst);
    }
}

extern "C" fn interrupt(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Installs the handler whose only effect is that KVM_RUN returns EINTR.
pub fn install_handler() -> io::Result<()> {
    register_signal_handler(SIGRTMIN(), interrupt).map_err(io::Error::from)
}

/// Sends the signal to a thread that has not been joined.
pub fn signal<T>(thread: &JoinHandle<T>) {
    // SAFETY: the handle is not joined, so its pthread_t is valid. A thread that
    // has ended answers ESRCH, which is as good as kicked.
    unsafe { libc::pthread_kill(thread.as_pthread_t(), SIGRTMIN()) };
}
