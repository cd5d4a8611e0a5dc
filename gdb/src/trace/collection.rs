//! The items that are collected each time.

use std::sync::Arc;

use super::definition::{Action, DefinitionError};
use super::frames::Frame;
use super::limits::{MAX_ACTIONS, MAX_CODE};
use crate::agent::{self, AgentError, Effect, Variables, Vcpu};
use crate::arch::Register;
use crate::target::VirtAddr;

/// The actions of a tracepoint, or those of the steps behind it.
#[derive(Debug)]
pub(super) struct Collection {
    /// Always with RIP: a frame without it is of no use.
    pub registers: Arc<[Register]>,
    /// All others.
    pub actions: Vec<Action>,
}

impl Default for Collection {
    fn default() -> Self {
        Self {
            registers: [Register::PC].into(),
            actions: Vec::new(),
        }
    }
}

impl Collection {
    /// Adds an item to collect.
    ///
    /// # Errors
    /// That would be too much.
    pub fn extend(&mut self, actions: Vec<Action>) -> Result<(), DefinitionError> {
        let code = |actions: &[Action]| -> usize { actions.iter().map(Action::code_len).sum() };
        if self.actions.len() + actions.len() > MAX_ACTIONS {
            return Err(DefinitionError::TooMuch(MAX_ACTIONS));
        }
        if code(&self.actions) + code(&actions) > MAX_CODE {
            return Err(DefinitionError::TooMuch(MAX_CODE));
        }
        for action in actions {
            match action {
                Action::Registers(more) => self.add_registers(&more),
                other => self.actions.push(other),
            }
        }
        Ok(())
    }

    fn add_registers(&mut self, more: &[Register]) {
        let mut registers = self.registers.to_vec();
        for register in more {
            if !registers.contains(register) {
                registers.push(*register);
            }
        }
        self.registers = registers.into();
    }

    /// Collects memory and variables; `false` if that is more than there is room
    /// for. Memory that cannot be read is left out: a pointer may be null at
    /// some hits.
    pub fn collect(
        &self,
        vcpu: &dyn Vcpu,
        variables: &mut Variables,
        frame: &mut Frame,
        room: usize,
    ) -> Result<bool, AgentError> {
        let mut ranges = Vec::new();
        for action in &self.actions {
            match action {
                Action::Registers(_) => {}
                Action::Memory { base, offset, len } => {
                    let base = base.map_or(Some(0), |number| vcpu.register(number));
                    if let Some(base) = base {
                        ranges.push((base.wrapping_add(*offset), *len));
                    }
                }
                Action::Expression(code) => {
                    let mut record = |effect| match effect {
                        Effect::Memory(addr, len) => ranges.push((addr, len)),
                        Effect::Variable(number, value) => frame.set_variable(number, value),
                        // gdb has no such action.
                        Effect::Printed(_) => {}
                    };
                    match agent::evaluate(code, vcpu, variables, &mut record) {
                        Ok(_) | Err(AgentError::Memory(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        for (n, &(addr, len)) in ranges.iter().enumerate() {
            if ranges[..n].contains(&(addr, len)) {
                continue;
            }
            let left = room.saturating_sub(frame.size());
            let Some(len) = usize::try_from(len).ok().filter(|len| *len <= left) else {
                return Ok(false);
            };
            let mut bytes = vec![0; len];
            if vcpu.read(addr, &mut bytes) {
                frame.add_memory(VirtAddr(addr), bytes.into());
            }
        }
        Ok(true)
    }
}

impl Action {
    pub(super) fn code_len(&self) -> usize {
        match self {
            Action::Expression(code) => code.len(),
            Action::Registers(_) | Action::Memory { .. } => 0,
        }
    }
}
