//! A panic on any thread is a fault of this program, and ends it. If a vCPU or
//! the debugger ended silently, the machine would only seem to run.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::thread;

use crate::events::Notifier;
use crate::say;

/// The name of the thread that panicked.
#[derive(Debug, PartialEq, Eq)]
pub struct Panicked(pub String);

/// From now on prints each panic, as the standard library does, and sends it to `panics`.
pub fn report_to(panics: Notifier<Panicked>) {
    std::panic::set_hook(Box::new(move |info| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("without a name").to_owned();
        say_panic(&name, info);
        panics.send(Panicked(name));
    }));
}

fn say_panic(thread: &str, info: &PanicHookInfo<'_>) {
    say!("outboard: thread {thread} {info}");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        say!("{backtrace}");
    } else {
        say!("outboard: this is a bug of outboard; RUST_BACKTRACE=1 shows where it comes from");
    }
}
