//! Getting a vCPU thread out of KVM_RUN.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::thread::JoinHandleExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// `kvm_run.immediate_exit`, mapped once more so that other threads can set it.
///
/// Setting it before the signal closes the race with a thread that is about to
/// enter the guest: the signal alone would be lost between its last check and
/// KVM_RUN (KVM API documentation, `immediate_exit`).
pub struct ImmediateExit {
    page: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is owned, lives until drop, and is only accessed through
// one atomic byte.
unsafe impl Send for ImmediateExit {}
// SAFETY: as above.
unsafe impl Sync for ImmediateExit {}

impl ImmediateExit {
    pub fn new(vcpu: &VcpuFd) -> io::Result<Self> {
        let len = size_of::<kvm_run>();
        // SAFETY: a new shared mapping of the vCPU's run page at an address of
        // the kernel's choice.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                vcpu.as_raw_fd(),
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let page = NonNull::new(page.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { page, len })
    }

    /// Whether the next KVM_RUN returns at once.
    pub fn set(&self, on: bool) {
        let offset = std::mem::offset_of!(kvm_run, immediate_exit);
        // SAFETY: the byte lies inside the mapping and is only accessed atomically
        // from user space.
        let flag = unsafe { AtomicU8::from_ptr(self.page.as_ptr().add(offset)) };
        flag.store(on.into(), Ordering::SeqCst);
    }
}

impl Drop for ImmediateExit {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, unmapped nowhere else.
        unsafe { libc::munmap(self.page.as_ptr().cast(), self.len) };
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
