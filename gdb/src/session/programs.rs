//! Conditions and commands of gdb's breakpoints, evaluated where a vCPU has hit them.
//!
//! An evaluation by gdb takes a stop, the removal and the insertion of all breakpoints
//! and a step for each hit. Here the vCPU steps past the breakpoint, and gdb hears
//! nothing.

use super::Session;
use super::view::View;
use crate::address::{VcpuId, VirtAddr};
use crate::agent::{AgentError, Effect, Variables, evaluate};
use crate::arch::Registers;
use crate::breakpoints::{Kind, Place, Program, ProgramError};

/// What a hit leads to.
enum Outcome {
    /// gdb is told: the condition holds, or cannot be evaluated here.
    Stop,
    /// The condition does not hold.
    Unmet,
    /// The commands have run, in place of a stop. One of them may have failed.
    Done(Result<(), AgentError>),
}

impl Session<'_> {
    /// Gives the breakpoint that gdb is about to insert its program.
    ///
    /// # Errors
    /// It is too much; gdb's user is told.
    pub(crate) fn set_program(
        &mut self,
        place: Place,
        program: Program,
    ) -> Result<(), ProgramError> {
        if self.is_running() {
            // The breakpoint is refused.
            return Ok(());
        }
        let set = self.guest.breakpoints.programs.set(place, program);
        if let Err(error) = &set {
            self.refuse_point("breakpoint", place.addr.0, &error.to_string());
        }
        set
    }

    pub(super) fn remove_program(&mut self, addr: VirtAddr, kind: Kind) {
        self.guest.breakpoints.programs.remove(Place { addr, kind });
    }

    /// Whether gdb is told that `vcpu` has hit what is planted at its RIP. Commands run
    /// in place of that.
    pub(super) fn is_for_gdb(&mut self, vcpu: VcpuId, registers: &Registers) -> bool {
        let addr = registers.linear_rip();
        let breakpoints = &self.guest.breakpoints;
        let mut places = breakpoints.of_gdb(addr).peekable();
        if places.peek().is_none() {
            return true;
        }
        let view = View {
            guest: &self.guest,
            vcpu,
            registers,
            known: self.described.now(),
        };
        let mut texts = Vec::new();
        let mut stops = false;
        let mut failed = None;
        for place in places {
            let program = breakpoints.programs.get(place);
            match run(program, &view, &mut self.trace.variables, &mut texts) {
                Outcome::Stop => stops = true,
                Outcome::Unmet => {}
                Outcome::Done(result) => failed = failed.or(result.err()),
            }
        }
        for text in texts {
            self.console.print(text);
        }
        if let Some(error) = failed {
            self.notice(format!(
                "the commands of the breakpoint at {:#x}: {error}",
                addr.0
            ));
        }
        stops
    }
}

/// Runs the program of a breakpoint at a hit; a breakpoint without one stops.
fn run(
    program: Option<&Program>,
    view: &View<'_, '_>,
    variables: &mut Variables,
    texts: &mut Vec<String>,
) -> Outcome {
    let Some(program) = program else {
        return Outcome::Stop;
    };
    // gdb evaluates a condition that fails here, and shows why it fails.
    match holds(program, view, variables) {
        Ok(false) => Outcome::Unmet,
        Ok(true) if !program.commands.is_empty() => {
            let mut record = |effect| {
                if let Effect::Printed(text) = effect {
                    texts.push(text);
                }
            };
            let mut commands = program.commands.iter();
            let result = commands
                .try_for_each(|code| evaluate(code, view, variables, &mut record).map(drop));
            Outcome::Done(result)
        }
        Ok(true) | Err(_) => Outcome::Stop,
    }
}

/// Whether one of the conditions holds, or there is none. gdb has one for each of its
/// breakpoints at the address.
fn holds(
    program: &Program,
    view: &View<'_, '_>,
    variables: &mut Variables,
) -> Result<bool, AgentError> {
    for condition in &program.conditions {
        if evaluate(condition, view, variables, &mut |_| {})? != Some(0) {
            return Ok(true);
        }
    }
    Ok(program.conditions.is_empty())
}

#[cfg(test)]
#[path = "programs_test.rs"]
mod tests;
