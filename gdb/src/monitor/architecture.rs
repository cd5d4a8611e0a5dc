//! `monitor architecture`: which target description gdb gets.

use super::args::{Output, Words};
use super::error::MonitorError;
use crate::arch::Architecture;
use crate::session::Session;

/// Sets the description that gdb reads next; shows the one that it has read, and the vCPUs' own.
pub(super) fn architecture(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let mut words = Words::new(arguments);
    let vcpu = words.vcpu(session)?;
    let word = words.optional();
    words.end()?;
    if let Some(word) = word {
        session.want_architecture(parse(word)?);
    }
    let runs = Architecture::of(&session.guest.machine.registers(vcpu)?);
    let known = session.description().architecture;
    writeln!(
        out,
        "{vcpu} runs {} code, gdb has {}",
        runs.name(),
        known.name()
    )?;
    let next = session.wanted_architecture();
    if next.unwrap_or(runs) != known {
        let next = next.map_or("what the vCPU runs", Architecture::name);
        writeln!(out, "\"unset tdesc filename\" has gdb take {next}")?;
    }
    Ok(())
}

fn parse(word: &str) -> Result<Option<Architecture>, MonitorError> {
    match word {
        "auto" => Ok(None),
        // As the rest of the world calls it.
        "x86-64" | "x86_64" => Ok(Some(Architecture::X86_64)),
        _ => Architecture::ALL
            .into_iter()
            .find(|architecture| architecture.name() == word)
            .map(Some)
            .ok_or_else(|| MonitorError::NoArchitecture(word.to_owned())),
    }
}
