//! Debug information of the kernel that runs, out of its memory, made on a thread of its
//! own.
//!
//! It is made once for each kernel and kept as long as that runs, not on disk: a build ID
//! is what the guest says it is, and one guest could give another its types.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Instant;

use super::btf::Btf;
use super::dwarf::{self, Code, DebugSection};
use super::locate::{self, Kernel};
use super::memory::Memory;
use super::not_found::Version;
use super::orc::{self, Row};
use super::shared::{Canceller, SharedGuest};
use super::symbols::Symbols;
use crate::linux::memory::Guest;

/// The thread's nice value.
const NICE: i32 = 19;

/// ENDBR64, and the two forms of the call to `__fentry__`: a NOP of 5 bytes, and the
/// call. None of them touches an argument.
const ENDBR: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
const FENTRY_NOP: &[u8] = &[0x0f, 0x1f, 0x44, 0x00, 0x00];
const CALL: u8 = 0xe8;

/// What there is of it.
pub(super) struct Description(RefCell<State>);

enum State {
    /// The thread ends early when the canceller is dropped.
    Making {
        made: Receiver<Vec<DebugSection>>,
        _canceller: Canceller,
    },
    Made(Rc<[DebugSection]>),
}

impl Description {
    /// Begins to make that of a kernel.
    pub fn start(guest: &dyn Guest, kernel: &Kernel) -> Self {
        let (shared, canceller) = SharedGuest::of(guest);
        let space = kernel.space(guest);
        let symbols = kernel.symbols.clone();
        let version = kernel.version_or_newest();
        let (sender, made) = mpsc::channel();
        let make = move || {
            // gdb's other questions come first. A failure costs time alone.
            let _ = rustix::process::setpriority_process(None, NICE);
            let memory = Memory {
                guest: &shared,
                space,
            };
            // The caller may have lost interest.
            let _ = sender.send(make(&symbols, &memory, version));
        };
        let builder = thread::Builder::new().name("gdb types".into());
        if let Err(error) = builder.spawn(make) {
            tracing::warn!("gdb: the guest's types are not read: {error}");
        }
        Self(RefCell::new(State::Making {
            made,
            _canceller: canceller,
        }))
    }

    /// The sections, if they are there by `deadline`.
    pub fn wait(&self, deadline: Instant) -> Option<Rc<[DebugSection]>> {
        let mut state = self.0.borrow_mut();
        let made = match &*state {
            State::Made(made) => return Some(made.clone()),
            State::Making { made, .. } => {
                made.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            }
        };
        let made: Rc<[DebugSection]> = match made {
            Ok(made) => made.into(),
            Err(RecvTimeoutError::Timeout) => return None,
            // There is no thread.
            Err(RecvTimeoutError::Disconnected) => Rc::new([]),
        };
        *state = State::Made(made.clone());
        Some(made)
    }
}

fn make(symbols: &Arc<Symbols>, memory: &Memory<'_>, version: Version) -> Vec<DebugSection> {
    let started = Instant::now();
    let btf = locate::types(symbols, memory);
    let table = orc::Table::of_kernel(symbols);
    let rows = table.and_then(|table| orc::rows(table, memory, btf.as_ref(), version));
    let known = Known {
        name: "vmlinux",
        symbols,
        btf: btf.as_ref(),
        rows: &rows.unwrap_or_default(),
        code: None,
    };
    let sections = sections(&known, memory);
    let bytes: usize = sections.iter().map(|section| section.data.len()).sum();
    let took = started.elapsed();
    tracing::info!(bytes, ?took, "gdb: the guest's own types and unwind tables");
    sections
}

/// What is known of a kernel or of a module.
pub(super) struct Known<'a> {
    pub name: &'a str,
    pub symbols: &'a Symbols,
    pub btf: Option<&'a Btf>,
    pub rows: &'a [Row],
    /// Where its code is, if not in one piece.
    pub code: Option<&'a [Range<u64>]>,
}

/// The same as debug information.
pub(super) fn sections(known: &Known<'_>, memory: &Memory<'_>) -> Vec<DebugSection> {
    let code = Code {
        name: known.name,
        symbols: known.symbols,
        arguments_end: &|function| arguments_end(memory, function),
        switches: &orc::stack_switches(known.rows),
        memory: known.code,
    };
    let info = known.btf.map(|btf| dwarf::info(btf, &code));
    let frames = !known.rows.is_empty();
    let frames = frames.then(|| dwarf::frames(known.rows).map(|frames| vec![frames]));
    let mut sections = Vec::new();
    for part in [info, frames].into_iter().flatten() {
        match part {
            Ok(part) => sections.extend(part),
            Err(error) => tracing::warn!("gdb: {} cannot be described: {error}", known.name),
        }
    }
    sections
}

/// Where the arguments of the function at `function` may no longer be in their registers:
/// its first instruction has been run, beside those for tracers.
fn arguments_end(memory: &Memory<'_>, function: u64) -> u64 {
    let code = memory.bytes(function, ENDBR.len() + FENTRY_NOP.len());
    let code = code.unwrap_or_default();
    let rest = code.strip_prefix(ENDBR).unwrap_or(&code);
    let skipped = code.len() - rest.len();
    let traced = rest.starts_with(FENTRY_NOP) || rest.first() == Some(&CALL);
    let own = skipped + if traced { FENTRY_NOP.len() } else { 0 };
    function.saturating_add(own as u64 + 1)
}

#[cfg(test)]
#[path = "describe_test.rs"]
mod tests;
