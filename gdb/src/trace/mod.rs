//! Tracepoints: what is to be collected where, and what was.
//!
//! Bookkeeping only, like `breakpoints`: the session plants the tracepoints, lets
//! vCPUs past them, and asks [`Trace::hit`] at each. gdb has no part in a hit.

mod agent;
mod definition;
mod frames;
mod packet;
mod request;
mod variables;

use std::sync::Arc;

use gdbstub::target::ext::tracepoints::TracepointEnumerateState;

pub(crate) use definition::{Action, Content, Definition, DefinitionError};
pub(crate) use frames::{DEFAULT_SIZE, Frame, Frames, MAX_SIZE};
pub(crate) use packet::Malformed;
pub(crate) use request::Request;
pub(crate) use variables::{VariableDefinition, VariableError, Variables};

use agent::{AgentError, Collected};

use crate::arch::{Register, Registers};
use crate::target::VirtAddr;

/// Most tracepoints, and most actions of one.
const MAX_POINTS: usize = 1024;
const MAX_ACTIONS: usize = 1024;

/// Most bytes of all expressions of one tracepoint.
const MAX_CODE: usize = 64 << 10;

/// The vCPU that hit a tracepoint, as expressions see it.
pub(crate) trait Vcpu {
    /// A register by gdb's number.
    fn register(&self, number: usize) -> Option<u64>;

    /// Reads all of `buf`, or says that it cannot.
    fn read(&self, addr: u64, buf: &mut [u8]) -> bool;
}

/// One location of a tracepoint.
#[derive(Debug)]
struct Point {
    number: usize,
    addr: VirtAddr,
    enabled: bool,
    /// The hit that ends the trace; 0 for none.
    pass_count: u64,
    condition: Option<Vec<u8>>,
    /// Always with RIP: a frame without it is of no use.
    registers: Arc<[Register]>,
    actions: Vec<Action>,
    hits: u64,
    /// What its frames take of the buffer.
    bytes: u64,
}

/// A vCPU where it collects.
struct Hit<'a> {
    registers: &'a Registers,
    vcpu: &'a dyn Vcpu,
}

/// How it stands with the trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Status {
    /// There was none yet.
    #[default]
    NotRun,
    Running,
    /// gdb's `tstop`.
    Stopped,
    Full,
    /// This tracepoint was hit as often as was asked for.
    PassCount(usize),
    /// What went wrong, and at which tracepoint; 0 for none.
    Error(String, usize),
}

/// gdb's trace: its tracepoints, and the frames that they have collected.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    points: Vec<Point>,
    pub variables: Variables,
    pub frames: Frames,
    pub status: Status,
    /// The frame whose registers and memory gdb sees in place of the guest's.
    pub selected: Option<usize>,
    /// gdbstub's. There is never anything to enumerate: a trace ends with gdb.
    pub uploads: TracepointEnumerateState<u64>,
}

impl Trace {
    pub fn is_running(&self) -> bool {
        self.status == Status::Running
    }

    /// Forgets tracepoints, variables and frames; what gdb has set of the buffer stays.
    pub fn clear(&mut self) {
        self.points.clear();
        self.variables.clear();
        self.frames.clear();
        self.selected = None;
        self.status = Status::NotRun;
    }

    /// Takes one packet of gdb's.
    ///
    /// # Errors
    /// There is too much, or nothing that the packet could add to.
    pub fn define(&mut self, definition: Definition) -> Result<(), DefinitionError> {
        let Definition { number, addr, .. } = definition;
        let at = |point: &Point| (point.number, point.addr) == (number, addr);
        match definition.content {
            Content::New {
                enabled,
                pass_count,
                condition,
            } => {
                if self.points.len() == MAX_POINTS {
                    return Err(DefinitionError::TooMuch(MAX_POINTS));
                }
                self.points.retain(|point| !at(point));
                self.points.push(Point {
                    number,
                    addr,
                    enabled,
                    pass_count,
                    condition,
                    registers: [Register::PC].into(),
                    actions: Vec::new(),
                    hits: 0,
                    bytes: 0,
                });
                Ok(())
            }
            Content::Actions(actions) => {
                let point = self.points.iter_mut().find(|point| at(point));
                point.ok_or(DefinitionError::Unknown)?.extend(actions)
            }
        }
    }

    /// Begins anew, without frames.
    pub fn start(&mut self) {
        self.variables.start();
        self.frames.clear();
        self.selected = None;
        for point in &mut self.points {
            (point.hits, point.bytes) = (0, 0);
        }
        self.status = Status::Running;
    }

    /// Number and address of each tracepoint that is to be planted.
    pub fn enabled(&self) -> Vec<(usize, VirtAddr)> {
        let enabled = self.points.iter().filter(|point| point.enabled);
        enabled.map(|point| (point.number, point.addr)).collect()
    }

    pub fn is_traced(&self, addr: VirtAddr) -> bool {
        let here = |point: &Point| point.enabled && point.addr == addr;
        self.is_running() && self.points.iter().any(here)
    }

    /// Hits of a tracepoint's location, and what they take of the buffer.
    pub fn counts(&self, number: usize, addr: VirtAddr) -> Option<(u64, u64)> {
        let at = |point: &&Point| (point.number, point.addr) == (number, addr);
        let point = self.points.iter().find(at)?;
        Some((point.hits, point.bytes))
    }

    /// A vCPU is about to execute what is at `addr`: collects for every tracepoint
    /// there. It may be the end of the trace.
    pub fn hit(&mut self, addr: VirtAddr, registers: &Registers, vcpu: &dyn Vcpu) {
        for point in &mut self.points {
            if self.status != Status::Running {
                return;
            }
            if point.enabled && point.addr == addr {
                let hit = Hit { registers, vcpu };
                self.status = point.hit(&hit, &mut self.variables, &mut self.frames);
            }
        }
    }

    /// The frame that gdb has selected.
    pub fn frame(&self) -> Option<&Frame> {
        self.frames.get(self.selected?)
    }

    /// Selects the first frame from `start` on that fits; none if there is none.
    pub fn select(&mut self, start: usize, fits: impl Fn(&Frame) -> bool) -> Option<&Frame> {
        self.selected = self.frames.find(start, fits);
        self.frame()
    }
}

impl Point {
    fn extend(&mut self, actions: Vec<Action>) -> Result<(), DefinitionError> {
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

    /// One hit; returns how it then stands with the trace.
    fn hit(&mut self, hit: &Hit<'_>, variables: &mut Variables, frames: &mut Frames) -> Status {
        let failed = |error: AgentError, number| Status::Error(error.to_string(), number);
        if let Some(condition) = &self.condition {
            match agent::evaluate(condition, hit.vcpu, variables, &mut |_| {}) {
                Ok(Some(0)) => return Status::Running,
                Ok(_) => {}
                Err(error) => return failed(error, self.number),
            }
        }
        let mut frame = Frame::new(self.number, self.addr, &self.registers, hit.registers);
        match self.collect(hit.vcpu, variables, &mut frame, frames.room()) {
            Ok(true) => {}
            Ok(false) => return Status::Full,
            Err(error) => return failed(error, self.number),
        }
        let size = frame.size() as u64;
        if !frames.push(frame) {
            return Status::Full;
        }
        self.hits += 1;
        self.bytes += size;
        if self.hits == self.pass_count {
            Status::PassCount(self.number)
        } else {
            Status::Running
        }
    }

    /// Collects memory and variables; `false` if that is more than there is room
    /// for. What cannot be read is left out: a pointer may be null at some hits.
    fn collect(
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
                    let mut record = |collected| match collected {
                        Collected::Memory(addr, len) => ranges.push((addr, len)),
                        Collected::Variable(number, value) => frame.set_variable(number, value),
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
    fn code_len(&self) -> usize {
        match self {
            Action::Expression(code) => code.len(),
            Action::Registers(_) | Action::Memory { .. } => 0,
        }
    }
}

#[cfg(test)]
#[path = "trace_test.rs"]
mod tests;
