//! Tracepoints: what is to be collected where, and what was.
//!
//! Bookkeeping only, like `breakpoints`: the session plants the tracepoints, lets
//! vCPUs past them, and asks [`Trace::hit`] at each. gdb has no part in a hit.

mod agent;
mod collection;
mod definition;
mod frames;
mod packet;
mod point;
mod request;
mod variables;
mod walks;

use gdbstub::target::ext::tracepoints::TracepointEnumerateState;

pub(crate) use definition::{Content, Definition, DefinitionError};
pub(crate) use frames::{DEFAULT_SIZE, Frame, Frames, MAX_SIZE};
pub(crate) use packet::Malformed;
pub(crate) use request::Request;
pub(crate) use variables::{VariableDefinition, VariableError, Variables};

use collection::Collection;
use point::Point;
use walks::Walks;

use crate::arch::Registers;
use crate::target::{VcpuId, VirtAddr};

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

/// A vCPU where it collects.
pub(crate) struct Hit<'a> {
    pub vcpu: VcpuId,
    pub registers: &'a Registers,
    pub view: &'a dyn Vcpu,
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
    walks: Walks,
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
        self.walks.clear();
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
                steps,
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
                    steps,
                    pass_count,
                    condition,
                    at_hit: Collection::default(),
                    at_step: Collection::default(),
                    defines_steps: false,
                    hits: 0,
                    bytes: 0,
                });
                Ok(())
            }
            Content::Actions { actions, stepping } => {
                let point = self.points.iter_mut().find(|point| at(point));
                let point = point.ok_or(DefinitionError::Unknown)?;
                point.extend(actions, stepping)
            }
        }
    }

    /// Begins anew, without frames.
    pub fn start(&mut self) {
        self.variables.start();
        self.walks.clear();
        self.frames.clear();
        self.selected = None;
        self.points.iter_mut().for_each(Point::start);
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

    /// A vCPU is about to execute the instruction where it is: collects for every
    /// tracepoint there. It may be the end of the trace.
    pub fn hit(&mut self, hit: &Hit<'_>) {
        let addr = hit.registers.linear_rip();
        let here = |point: &&mut Point| point.enabled && point.addr == addr;
        for point in self.points.iter_mut().filter(here) {
            if self.status != Status::Running {
                return;
            }
            match point.hit(hit, &mut self.variables, &mut self.frames) {
                Ok(true) => self.walks.begin(hit.vcpu, point.number, addr, point.steps),
                Ok(false) => {}
                Err(end) => self.status = end,
            }
        }
    }

    /// Whether a vCPU is to be stepped.
    pub fn is_stepping(&self, vcpu: VcpuId) -> bool {
        self.is_running() && self.walks.has(vcpu)
    }

    /// A vCPU has executed an instruction: collects for the tracepoints that it is
    /// stepped for. It may be the end of the trace.
    pub fn stepped(&mut self, hit: &Hit<'_>) {
        for walk in self.walks.step(hit.vcpu) {
            if self.status != Status::Running {
                return;
            }
            let at = |point: &&mut Point| (point.number, point.addr) == (walk.number, walk.addr);
            if let Some(point) = self.points.iter_mut().find(at)
                && let Err(end) = point.step(hit, &mut self.variables, &mut self.frames)
            {
                self.status = end;
            }
        }
    }

    /// A vCPU cannot be stepped any further.
    pub fn give_up_steps(&mut self, vcpu: VcpuId) {
        self.walks.end(vcpu);
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

#[cfg(test)]
#[path = "trace_test.rs"]
mod tests;
