//! One location of a tracepoint.

use super::agent::{self, AgentError};
use super::collection::Collection;
use super::definition::{Action, DefinitionError};
use super::frames::{Frame, Frames};
use super::variables::Variables;
use super::{Hit, Status};
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
    pub hits: u64,
    /// What its frames take of the buffer.
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
        actions: Vec<Action>,
        stepping: Option<Vec<Action>>,
    ) -> Result<(), DefinitionError> {
        match self.defines_steps {
            true => self.at_step.extend(actions)?,
            false => self.at_hit.extend(actions)?,
        }
        if let Some(stepping) = stepping {
            self.defines_steps = true;
            self.at_step.extend(stepping)?;
        }
        Ok(())
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
        self.bytes += self.collect(&self.at_hit, hit, variables, frames)?;
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
        self.bytes += self.collect(&self.at_step, hit, variables, frames)?;
        Ok(())
    }

    /// Makes a frame, and returns what it takes of the buffer.
    fn collect(
        &self,
        what: &Collection,
        hit: &Hit<'_>,
        variables: &mut Variables,
        frames: &mut Frames,
    ) -> Result<u64, End> {
        let addr = hit.registers.linear_rip();
        let mut frame = Frame::new(self.number, addr, &what.registers, hit.registers);
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
