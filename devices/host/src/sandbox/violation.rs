//! A thread has made a call that its filter forbids: the process says so, and ends by SIGSYS.

#![allow(unsafe_code)]

use std::fmt::{self, Write};
use std::io;
use std::ptr;
use std::sync::OnceLock;

use libc::{c_int, c_void, sigaction, siginfo_t};
use syscalls::Sysno;

/// `SYS_SECCOMP` of asm-generic/siginfo.h: a filter has caused the signal.
const SYS_SECCOMP: c_int = 1;

/// Who says so, and what was done about the signal before. Set before the handler is installed.
static REPORT: OnceLock<Report> = OnceLock::new();

struct Report {
    program: &'static str,
    before: sigaction,
}

/// `siginfo_t` of SIGSYS (sigaction(2)), whose last fields the libc crate does not name.
#[repr(C)]
struct Details {
    signal: c_int,
    error: c_int,
    code: c_int,
    padding: c_int,
    address: *mut c_void,
    call: c_int,
    architecture: u32,
}

/// Has a line printed on standard error, as of `program`, when a thread makes a forbidden call. To
/// be called once, before any filter is applied.
pub fn report_as(program: &'static str) -> io::Result<()> {
    let before = change(None)?;
    if REPORT.set(Report { program, before }).is_err() {
        return Ok(());
    }
    // SAFETY: an all-zero structure is a valid one, with an empty mask.
    let mut action: sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = report;
    action.sa_sigaction = handler as *const () as usize;
    // The default action follows, also upon a signal in the handler.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND | libc::SA_NODEFER;
    change(Some(&action)).map(drop)
}

/// Whether a filter can have this signal sent.
pub(super) fn is_available() -> io::Result<()> {
    let action: u32 = libc::SECCOMP_RET_TRAP;
    let operation = libc::SECCOMP_GET_ACTION_AVAIL;
    // SAFETY: the operation reads an `u32` (seccomp(2)), which outlives the call.
    match unsafe { libc::syscall(libc::SYS_seccomp, operation, 0, &raw const action) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn change(new: Option<&sigaction>) -> io::Result<sigaction> {
    // SAFETY: an all-zero structure is a valid one.
    let mut old: sigaction = unsafe { std::mem::zeroed() };
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `new` is null or a valid action, whose handler is safe to run at any time (see
    // `report`); `old` is valid.
    if unsafe { libc::sigaction(libc::SIGSYS, new, &raw mut old) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(old)
}

/// Makes only system calls that a signal handler may make (signal-safety(7)) and that every filter
/// allows. It allocates nothing.
extern "C" fn report(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(report) = REPORT.get() else {
        return;
    };
    // SAFETY: the kernel hands SA_SIGINFO handlers a valid structure, which for this signal has
    // these fields.
    let details = unsafe { &*info.cast::<Details>() };
    if details.code == SYS_SECCOMP {
        say(report.program, details.call);
    }
    let flags = report.before.sa_flags;
    let handler = report.before.sa_sigaction;
    if flags & libc::SA_SIGINFO != 0 && handler != libc::SIG_DFL && handler != libc::SIG_IGN {
        // SAFETY: a handler that was installed with SA_SIGINFO has this type.
        let before: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
            unsafe { std::mem::transmute(handler) };
        before(signal, info, context);
    }
    // SAFETY: takes no pointer. The action is the default by now, which ends the process.
    unsafe { libc::raise(signal) };
}

fn say(program: &str, call: c_int) {
    let mut line = Line {
        bytes: [0; 512],
        length: 0,
    };
    let name = usize::try_from(call).ok().and_then(Sysno::new);
    let name = name.map_or("unknown", |call| call.name());
    let mut comm = [0; 16];
    // SAFETY: PR_GET_NAME writes up to 16 bytes, which `comm` has.
    unsafe { libc::prctl(libc::PR_GET_NAME, comm.as_mut_ptr()) };
    let length = comm.iter().position(|byte| *byte == 0);
    let comm = &comm[..length.unwrap_or(comm.len())];
    let thread = std::str::from_utf8(comm).unwrap_or("?");
    // What does not fit is cut off.
    let _ = writeln!(
        line,
        "{program}: its thread {thread} made system call {call} ({name}), which its sandbox \
         forbids, or forbids with such arguments. Either the guest or a client has taken the \
         program over, or this is a mistake in its sandbox: please report it. With --sandbox off \
         it runs without",
    );
    // SAFETY: the bytes outlive the call.
    unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.length) };
}

/// Text in memory that is there already.
struct Line {
    bytes: [u8; 512],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.length..];
        let length = text.len().min(room.len());
        room[..length].copy_from_slice(&text.as_bytes()[..length]);
        self.length += length;
        if length < text.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}
