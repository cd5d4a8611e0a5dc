//! How Linux shares its processors among the VMM's threads.
#![allow(unsafe_code)]

use std::io;

/// The shortest slice that Linux takes (sched(7), `sched_attr.sched_runtime`).
const SHORTEST_NS: u64 = 100_000;

/// Gives the calling thread only the processor time that others leave.
pub fn yield_to_others() {
    const NICEST: i32 = 19;
    // Linux applies it to the calling thread alone (setpriority(2), "C library/kernel
    // differences").
    let _ = rustix::process::setpriority_process(None, NICEST);
}

/// Gives the calling thread short slices of processor time. It then runs as soon as
/// it wakes, where one with the usual slices waits until a vCPU thread has used up
/// its own, for milliseconds. That is fair for a thread that mostly waits. Linux
/// before 6.12 takes no notice.
pub fn prefer_latency() -> io::Result<()> {
    // SAFETY: an all-zero structure is a valid one.
    let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: `attr` has the given size; 0 is the calling thread.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) };
    if read < 0 {
        return Err(io::Error::last_os_error());
    }
    attr.sched_runtime = SHORTEST_NS;
    // SAFETY: `attr` is what the system call has filled in, but for one field.
    let written = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if written < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_may_ask_for_short_slices() {
        std::thread::spawn(|| prefer_latency().unwrap())
            .join()
            .unwrap();
    }
}
