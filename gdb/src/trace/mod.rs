//! Tracepoints: their definitions, and the data that they have collected.
//!
//! Bookkeeping only, like `breakpoints`: the session plants the tracepoints, lets
//! vCPUs past them, and asks [`Trace::hit`] at each. gdb has no part in a hit.

mod collection;
mod definition;
mod file;
mod frames;
mod hit;
mod limits;
mod point;
mod request;
mod source;
mod walks;

use gdbstub::target::ext::tracepoints::TracepointEnumerateState;

pub(crate) use definition::{Content, Definition, DefinitionError};
pub(crate) use file::Copy as FileCopy;
pub(crate) use frames::{DEFAULT_SIZE, Frame, Frames, MAX_SIZE};
pub(crate) use hit::{Hit, Status};
pub(crate) use request::Request;
pub(crate) use source::Source;

use collection::Collection;
use limits::{MAX_POINTS, MAX_TEXT};
use point::Point;
use walks::Walks;

use crate::address::{VcpuId, VirtAddr};
use crate::agent::Variables;

/// gdb's trace: its tracepoints, and the frames that they have collected.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    points: Vec<Point>,
    walks: Walks,
    /// The size of the points' lines.
    text: usize,
    pub variables: Variables,
    pub frames: Frames,
    pub status: Status,
    /// It outlives its gdb.
    pub disconnected: bool,
    /// The frame whose registers and memory gdb sees in place of the guest's.
    pub selected: Option<usize>,
    /// gdbstub's, which does not get to enumerate anything.
    pub uploads: TracepointEnumerateState<u64>,
}

impl Trace {
    pub fn is_running(&self) -> bool {
        self.status == Status::Running
    }

    /// Forgets tracepoints, variables and frames; gdb's settings of the buffer stay.
    pub fn clear(&mut self) {
        self.points.clear();
        self.text = 0;
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
                self.remove(number, addr);
                let mut others = self.points.iter_mut().filter(|it| it.number == number);
                let is_one_of_several = others.next().map(|other| other.is_one_of_several = true);
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
                    lines: Vec::new(),
                    is_one_of_several: is_one_of_several.is_some(),
                    hits: 0,
                    bytes: 0,
                });
                Ok(())
            }
            Content::Actions { actions, stepping } => {
                self.change(number, addr, |point| point.extend(actions, stepping))
            }
        }
    }

    /// Takes a piece of a tracepoint's source, for a gdb that asks for it.
    ///
    /// # Errors
    /// There is too much, or no such tracepoint.
    pub fn add_source(&mut self, source: &Source) -> Result<(), DefinitionError> {
        self.change(source.number, source.addr, |point| {
            point.lines.push(source.line());
            Ok(())
        })
    }

    /// Tracepoints, actions and sources, as gdb reads them back.
    pub fn described(&self) -> impl Iterator<Item = String> {
        let lines = |point: &Point| [vec![point.described()], point.lines.clone()].concat();
        self.points.iter().flat_map(lines)
    }

    fn remove(&mut self, number: usize, addr: VirtAddr) {
        let at = |point: &mut Point| (point.number, point.addr) == (number, addr);
        let removed = self.points.extract_if(.., at);
        self.text -= removed.map(|point| point.text_size()).sum::<usize>();
    }

    /// Has more belong to a tracepoint, as long as there is room.
    fn change(
        &mut self,
        number: usize,
        addr: VirtAddr,
        change: impl FnOnce(&mut Point) -> Result<(), DefinitionError>,
    ) -> Result<(), DefinitionError> {
        if self.text > MAX_TEXT {
            return Err(DefinitionError::TooMuch(MAX_TEXT));
        }
        let at = |point: &&mut Point| (point.number, point.addr) == (number, addr);
        let point = self.points.iter_mut().find(at);
        let point = point.ok_or(DefinitionError::Unknown)?;
        let before = point.text_size();
        let changed = change(point);
        self.text += point.text_size() - before;
        changed
    }

    /// Begins again, without frames.
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

    /// Hits of a tracepoint's location, and their share of the buffer.
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
