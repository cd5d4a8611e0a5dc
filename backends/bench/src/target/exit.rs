//! How a process has ended.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(ExitStatus);

impl Exit {
    pub(super) fn new(status: ExitStatus) -> Self {
        Self(status)
    }

    /// The status of a Rust program that panicked.
    const PANIC: i32 = 101;

    /// Whether the program is broken: whatever a frontend sends, no program ends so by intention.
    pub fn is_crash(self) -> bool {
        let by_fault = [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGABRT,
        ];
        let signal = self.0.signal();
        signal.is_some_and(|signal| by_fault.contains(&signal))
            || self.0.code() == Some(Self::PANIC)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
