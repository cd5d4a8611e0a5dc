//! How Linux shares its processors among the VMM's threads.
#![allow(unsafe_code)]

use std::io;

/// The shortest slice that Linux takes (sched(7), `sched_attr.sched_runtime`).
const SHORTEST_NS: u64 = 100_000;

/// Gives the calling thread only the processor time that others leave (sched(7), SCHED_IDLE).
pub fn yield_to_others() {
    // SAFETY: an all-zero structure is a valid one, and the priority that SCHED_IDLE takes.
    let param: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: `param` outlives the call; 0 is the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const param) } < 0 {
        tracing::debug!("SCHED_IDLE: {}", io::Error::last_os_error());
    }
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
    fn a_thread_that_yields_is_idle_and_no_other() {
        // SAFETY: takes no pointer; 0 is the calling thread.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let before = policy();
        let yielding = std::thread::spawn(move || {
            yield_to_others();
            policy()
        });
        assert_eq!(yielding.join().unwrap(), libc::SCHED_IDLE);
        assert_eq!(policy(), before);
    }

    #[test]
    fn every_thread_may_ask_for_short_slices() {
        std::thread::spawn(|| prefer_latency().unwrap())
            .join()
            .unwrap();
    }
}
