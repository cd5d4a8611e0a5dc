//! `monitor lx …`: the state of a Linux guest, from its memory.

use std::fmt;

use super::args::{Output, Words, no_argument, plain_number};
use super::error::MonitorError;
use crate::linux::{LookError, MODULES_NAME, dmesg as log, modules as module, tasks};
use crate::session::Session;

/// Records of the log that are shown if no number is given, and at most.
const RECORDS: u64 = 10_000;
const MAX_RECORDS: u64 = 100_000;

/// Most bytes that a command prints. The packets to gdb are twice as long, and
/// must not exceed the bytes that the server keeps of a client's answers.
const MAX_TEXT: usize = 2 << 20;

/// Cuts output that is too long, and says so.
struct Limited<'a> {
    out: Output<'a>,
    left: usize,
}

impl<'a> Limited<'a> {
    fn new(out: Output<'a>) -> Self {
        let left = MAX_TEXT;
        Self { out, left }
    }

    fn line(&mut self, line: &str) {
        let len = line.len() + 1;
        if self.left == 0 {
            return;
        }
        let written: fmt::Result = if let Some(left) = self.left.checked_sub(len) {
            self.left = left;
            writeln!(self.out, "{line}")
        } else {
            self.left = 0;
            writeln!(self.out, "… cut after {MAX_TEXT} bytes")
        };
        // gdb's console takes everything.
        let _ = written;
    }
}

pub(super) fn version(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    no_argument("lx version", arguments)?;
    let kernel = session
        .guest
        .linux
        .kernel(&session.guest.machine)
        .map_err(LookError::from)?;
    match &kernel.banner {
        Some(banner) => writeln!(out, "{banner}")?,
        None => writeln!(out, "a Linux kernel without linux_banner")?,
    }
    write!(out, "image at {:#x}", kernel.base)?;
    if let Some(slide) = kernel.slide() {
        write!(out, ", moved by {slide:#x}")?;
    }
    let source = match kernel.from_guest {
        true => "the guest's own symbol table (kallsyms)",
        false => "the symbol file, whose banner is in the guest's memory",
    };
    writeln!(out, "; {} symbols from {source}", kernel.symbols.len())?;
    Ok(())
}

/// Stops the guest where the kernel has found its place.
pub(super) fn wait(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    no_argument("lx wait", arguments)?;
    if session.await_kernel()? {
        writeln!(
            out,
            "the guest stops where Linux has found its place: continue"
        )?;
    } else {
        writeln!(
            out,
            "Linux has its place already (monitor lx version); it gets another with monitor reset"
        )?;
    }
    Ok(())
}

pub(super) fn dmesg(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let mut words = Words::new(arguments);
    let records = words.optional().map(plain_number).transpose()?;
    words.end()?;
    let records = records.unwrap_or(RECORDS).min(MAX_RECORDS);
    let kernel = session
        .guest
        .linux
        .kernel(&session.guest.machine)
        .map_err(LookError::from)?;
    let mut out = Limited::new(out);
    let memory = kernel.memory(&session.guest.machine);
    Ok(log::last(&kernel, &memory, records, |line| out.line(line))?)
}

pub(super) fn ps(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    no_argument("lx ps", arguments)?;
    let kernel = session
        .guest
        .linux
        .kernel(&session.guest.machine)
        .map_err(LookError::from)?;
    let memory = kernel.memory(&session.guest.machine);
    let mut out = Limited::new(out);
    out.line("  PID   TID S TASK               COMM");
    Ok(tasks::all(&kernel, &memory, |task| {
        out.line(&format!(
            "{:5} {:5} {} {:#018x} {}",
            task.tgid, task.pid, task.state, task.addr, task.comm
        ));
    })?)
}

pub(super) fn modules(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    no_argument("lx modules", arguments)?;
    let kernel = session
        .guest
        .linux
        .kernel(&session.guest.machine)
        .map_err(LookError::from)?;
    let modules = module::all(&kernel, &kernel.memory(&session.guest.machine))?;
    let mut out = Limited::new(out);
    if modules.is_empty() {
        out.line("no module is loaded");
        return Ok(());
    }
    out.line("ADDRESS                 SIZE NAME");
    for module in &modules {
        let state = if module.is_coming() { " (coming)" } else { "" };
        out.line(&format!(
            "{:#018x} {:9} {}{state}",
            module.base(),
            module.size(),
            module.name
        ));
    }
    out.line("gdb takes their symbols by:");
    for module in &modules {
        out.line(&module.add_symbol_file());
    }
    out.line("or, names alone, without these files:");
    out.line(&format!("add-symbol-file target:{MODULES_NAME}"));
    Ok(())
}
