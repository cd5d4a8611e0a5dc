//! One location of a tracepoint.

use super::collection::Collection;
use super::definition::{Actions, DefinitionError};
use super::frames::{Frame, Frames};
use super::hit::{Hit, Status};
use crate::agent::{self, AgentError, Variables};
use crate::target::VirtAddr;

#[derive(Debug)]
pub(super) struct Point {
    pub number: usize,
    pub addr: VirtAddr,
    pub enabled: bool,
    /// Instructions to step behind each hit.
    pub steps: u64,
    /// The hit that ends the trace; 0 for none.
    pub pass_count: u64,
    pub condition: Option<Vec<u8>>,
    pub at_hit: Collection,
    pub at_step: Collection,
    /// The actions that gdb sends next are for steps.
    pub defines_steps: bool,
    /// Its actions and its source, as gdb reads them back.
    pub lines: Vec<String>,
    /// The tracepoint has other locations too.
    pub is_one_of_several: bool,
    pub hits: u64,
    /// Its frames' share of the buffer.
    pub bytes: u64,
}

/// Why the trace ends.
pub(super) type End = Status;

impl Point {
    /// Adds actions, as they come in one packet.
    ///
    /// # Errors
    /// There are too many.
    pub fn extend(
        &mut self,
        actions: Actions,
        stepping: Option<Actions>,
    ) -> Result<(), DefinitionError> {
        self.add(actions)?;
        if let Some(stepping) = stepping {
            self.defines_steps = true;
            self.add(stepping)?;
        }
        Ok(())
    }

    fn add(&mut self, actions: Actions) -> Result<(), DefinitionError> {
        let (collection, kind) = match self.defines_steps {
            true => (&mut self.at_step, 'S'),
            false => (&mut self.at_hit, 'A'),
        };
        collection.extend(actions.list)?;
        if !actions.text.is_empty() {
            let (number, addr, text) = (self.number, self.addr.0, actions.text);
            self.lines.push(format!("{kind}{number:x}:{addr:x}:{text}"));
        }
        Ok(())
    }

    /// The size of its lines.
    pub fn text_size(&self) -> usize {
        self.lines
            .iter()
            .map(|line| size_of::<String>() + line.len())
            .sum()
    }

    /// Forgets its hits.
    pub fn start(&mut self) {
        (self.hits, self.bytes) = (0, 0);
    }

    /// One hit; whether it counts, by the condition.
    ///
    /// # Errors
    /// It is the end of the trace.
    pub fn hit(
        &mut self,
        hit: &Hit<'_>,
        variables: &mut Variables,
        frames: &mut Frames,
    ) -> Result<bool, End> {
        if let Some(condition) = &self.condition {
            let value = agent::evaluate(condition, hit.view, variables, &mut |_| {});
            if value.map_err(|error| self.failed(&error))? == Some(0) {
                return Ok(false);
            }
        }
        let frame = self.frame(&self.at_hit, hit);
        self.bytes += self.collect(frame, &self.at_hit, hit, (variables, frames))?;
        self.hits += 1;
        match self.hits == self.pass_count {
            true => Err(Status::PassCount(self.number)),
            false => Ok(true),
        }
    }

    /// One step behind a hit.
    ///
    /// # Errors
    /// It is the end of the trace.
    pub fn step(
        &mut self,
        hit: &Hit<'_>,
        variables: &mut Variables,
        frames: &mut Frames,
    ) -> Result<(), End> {
        let frame = self.frame(&self.at_step, hit);
        self.bytes += self.collect(frame, &self.at_step, hit, (variables, frames))?;
        Ok(())
    }

    fn frame(&self, what: &Collection, hit: &Hit<'_>) -> Frame {
        let addr = hit.registers.linear_rip();
        let mut frame = Frame::new(self.number, addr, &what.registers, hit.registers);
        if self.steps > 0 || self.is_one_of_several {
            frame.require_registers();
        }
        frame
    }

    /// Fills and keeps a frame, and returns its share of the buffer.
    fn collect(
        &self,
        mut frame: Frame,
        what: &Collection,
        hit: &Hit<'_>,
        (variables, frames): (&mut Variables, &mut Frames),
    ) -> Result<u64, End> {
        let collected = what.collect(hit.view, variables, &mut frame, frames.room());
        let size = frame.size() as u64;
        match collected.map_err(|error| self.failed(&error))? && frames.push(frame) {
            true => Ok(size),
            false => Err(Status::Full),
        }
    }

    fn failed(&self, error: &AgentError) -> End {
        Status::Error(error.to_string(), self.number)
    }
}
