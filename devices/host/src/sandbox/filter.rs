//! Seccomp filters: which system calls a thread can make. A forbidden one ends the process, with
//! the line of [`violation`](super::violation).

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::calls::{Argument, Calls, Sysno};
use super::common;

/// A filter cannot be made, or the host refuses it.
#[derive(Debug, thiserror::Error)]
#[error("the host takes no seccomp filter")]
pub struct FilterError(#[from] seccompiler::Error);

/// What a kind of threads may do.
#[derive(Debug)]
pub struct Filter {
    /// The kernel takes the strictest answer of all filters of a thread.
    programs: [BpfProgram; 2],
}

impl Filter {
    /// Allows what every thread needs, and these calls, to the process that calls this.
    pub fn allowing(sets: &[&Calls]) -> Result<Self, FilterError> {
        let mut rules = BTreeMap::new();
        let all = [&common::CALLS, &common::OLDER, &common::RAISE];
        for calls in all.iter().chain(sets) {
            add(&mut rules, calls)?;
        }
        // Signals to itself: abort(3), raise(3).
        let own = Argument::Is(0, std::process::id());
        let tgkill = rules.entry(i64::from(Sysno::tgkill.id())).or_default();
        tgkill.push(SeccompRule::new(vec![condition(&own)?]).map_err(seccompiler::Error::from)?);
        let allowed = program(rules, SeccompAction::Trap, SeccompAction::Allow)?;
        // The C library then takes `clone`, whose arguments a filter can see.
        let clone3 = BTreeMap::from([(i64::from(Sysno::clone3.id()), Vec::new())]);
        let missing = SeccompAction::Errno(libc::ENOSYS as u32);
        let old_clone = program(clone3, SeccompAction::Allow, missing)?;
        Ok(Self {
            programs: [old_clone, allowed],
        })
    }

    /// Takes everything else from the calling thread and from those that it starts.
    pub fn apply(&self) -> Result<(), FilterError> {
        for program in &self.programs {
            seccompiler::apply_filter(program)?;
        }
        Ok(())
    }
}

/// Whether this kernel has filters, and the action that is needed.
pub fn probe() -> io::Result<()> {
    super::violation::is_available()
}

fn add(
    rules: &mut BTreeMap<i64, Vec<SeccompRule>>,
    calls: &Calls,
) -> Result<(), seccompiler::Error> {
    for (call, arguments) in calls.with {
        let conditions = arguments.iter().map(condition);
        let rule = SeccompRule::new(conditions.collect::<Result<_, _>>()?)?;
        let known = rules.entry(i64::from(call.id())).or_default();
        known.push(rule);
    }
    for call in calls.any {
        // No rule stands for every argument.
        rules.insert(i64::from(call.id()), Vec::new());
    }
    Ok(())
}

fn condition(argument: &Argument) -> Result<SeccompCondition, seccompiler::Error> {
    let int = SeccompCmpArgLen::Dword;
    let (number, length, comparison, value) = match *argument {
        Argument::Is(n, value) => (n, int, SeccompCmpOp::Eq, value),
        Argument::IsNot(n, value) => (n, int, SeccompCmpOp::Ne, value),
        Argument::Without(n, bits) => (n, int, SeccompCmpOp::MaskedEq(bits.into()), 0),
        Argument::With(n, bits) => (n, int, SeccompCmpOp::MaskedEq(bits.into()), bits),
        Argument::Null(n) => (n, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0),
    };
    Ok(SeccompCondition::new(
        number,
        length,
        comparison,
        value.into(),
    )?)
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, seccompiler::Error> {
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, otherwise, matching, architecture)?;
    Ok(filter.try_into()?)
}
