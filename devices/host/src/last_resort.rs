//! The terminal is put back also when a signal ends the process: SIGQUIT, a crash.
#![allow(unsafe_code)]

use std::io;
use std::ptr;
use std::sync::OnceLock;

use libc::{c_int, c_void, sigaction, siginfo_t};
use rustix::termios::{OptionalActions, Termios, tcsetattr};

/// Signals that end a process by default (signal(7)), except SIGKILL and those that
/// are handled elsewhere.
const ENDING: [c_int; 16] = [
    libc::SIGQUIT,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSYS,
];

struct Before {
    modes: Termios,
    /// The previous action of each of [`ENDING`], which the handler takes too.
    actions: Vec<sigaction>,
}

/// Set before the first handler is installed, and never changed.
static BEFORE: OnceLock<Before> = OnceLock::new();

/// Puts the terminal on standard input back into these modes when a signal ends the
/// process. Only the first call counts.
pub fn restore_at_ending_signals(modes: &Termios) -> io::Result<()> {
    let mut actions = Vec::new();
    for signal in ENDING {
        actions.push(change(signal, None)?);
    }
    let before = Before {
        modes: modes.clone(),
        actions,
    };
    if BEFORE.set(before).is_err() {
        return Ok(());
    }
    let Some(before) = BEFORE.get() else {
        return Ok(());
    };
    for (signal, action) in ENDING.into_iter().zip(&before.actions) {
        if action.sa_sigaction != libc::SIG_IGN {
            change(signal, Some(&handled()))?;
        }
    }
    Ok(())
}

fn handled() -> sigaction {
    // SAFETY: an all-zero structure is a valid one, with an empty mask.
    let mut action: sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = restore;
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    action
}

/// Sets the action for `signal`, if one is given, and returns the one before.
fn change(signal: c_int, new: Option<&sigaction>) -> io::Result<sigaction> {
    // SAFETY: an all-zero structure is a valid one.
    let mut old: sigaction = unsafe { std::mem::zeroed() };
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `new` is null or a valid action, whose handler is safe to run at any time
    // (see `restore`), or one that was installed before; `old` is valid.
    if unsafe { libc::sigaction(signal, new, &raw mut old) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(old)
}

/// Makes only system calls that a signal handler may make (signal-safety(7)), and reads
/// only data that does not change.
extern "C" fn restore(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    let Some(before) = BEFORE.get() else {
        return;
    };
    let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &before.modes);
    let action = ENDING.iter().position(|ending| *ending == signal);
    let action = action.and_then(|n| before.actions.get(n));
    // SAFETY: the kernel hands SA_SIGINFO handlers a valid structure.
    let is_fault = unsafe { (*info).si_code } > 0;
    if is_fault {
        // The instruction that caused it runs again, and then the previous handler:
        // Rust's, which reports a stack overflow.
        let _ = change(signal, action);
        return;
    }
    // SAFETY: an all-zero structure is a valid action, the default.
    let default: sigaction = unsafe { std::mem::zeroed() };
    let _ = change(signal, Some(&default));
    // SAFETY: takes no pointer. The signal comes when this returns.
    unsafe { libc::raise(signal) };
}
