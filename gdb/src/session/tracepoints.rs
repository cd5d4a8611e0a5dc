//! Tracepoints, as gdbstub asks for them.
//!
//! A tracepoint is planted like a breakpoint, from `tstart` to the end of the
//! trace, stops included. It collects when a vCPU *leaves* it, that is just
//! before the instruction there is executed by itself: however the vCPU came
//! there, by a hit, a step or gdb's `jump`, each execution counts once.
//!
//! `while_stepping` collects in the steps behind it.
//!
//! gdbstub 0.7 ends the connection at a condition, at `collect` of a static
//! variable (a memory range) and at `while-stepping`. The server hands the packets
//! that define tracepoints to [`Session::define_tracepoint`] before gdbstub sees
//! them (`server::ahead`), and gdbstub then asks for the outcome. Of some packets it
//! sees nothing: `trace_requests`.

use gdbstub::target::ext::tracepoints::{
    BufferShape, ExperimentExplanation, ExperimentStatus, FrameDescription, FrameRequest,
    NewTracepoint, TraceBufferConfig, Tracepoint, TracepointAction, TracepointEnumerateState,
    TracepointEnumerateStep, TracepointStatus, Tracepoints,
};
use gdbstub::target::{TargetError, TargetResult};
use host_io::errors::chain;

use super::Session;
use super::base::errno;
use super::refusal::InsertError;
use crate::address::{VcpuId, VirtAddr};
use crate::agent::VariableError;
use crate::breakpoints::Owner;
use crate::trace::{DEFAULT_SIZE, Definition, DefinitionError, Frame, MAX_SIZE, Status, Trace};

/// gdb cannot have its tracepoint, or its trace.
#[derive(Debug, thiserror::Error)]
pub(super) enum TraceError {
    #[error("the guest runs: stop it first")]
    Running,
    #[error("tracepoint refused")]
    Definition(#[from] DefinitionError),
    #[error("trace state variable refused")]
    Variable(#[source] VariableError),
    #[error("this end writes no files for gdb: use tsave without -r")]
    Save,
    #[error("tracepoint {number} at {:#x} refused", .addr.0)]
    Insert {
        number: usize,
        addr: VirtAddr,
        #[source]
        source: InsertError,
    },
}

impl Session<'_> {
    /// Takes a packet that defines a tracepoint, from behind `QTDP:`.
    pub(crate) fn define_tracepoint(&mut self, packet: &str) {
        let defined = if self.is_running() {
            Err(TraceError::Running)
        } else {
            let known = self.described.now();
            self.trace_dialog.set_known(known);
            Definition::parse(packet, known)
                .and_then(|definition| self.trace.define(definition))
                .map_err(TraceError::from)
        };
        self.settle_trace(defined);
    }

    /// Plants the tracepoints for gdb's `tstart`.
    pub(crate) fn plant_tracepoints(&mut self) {
        let planted = if self.is_running() {
            Err(TraceError::Running)
        } else {
            self.unplant_tracepoints();
            self.try_plant()
        };
        if planted.is_err() {
            self.unplant_tracepoints();
        }
        self.settle_trace(planted);
    }

    fn try_plant(&mut self) -> Result<(), TraceError> {
        for (number, addr) in self.trace.enabled() {
            let inserted = self.insert_software(addr, Owner::Trace);
            inserted.map_err(|source| TraceError::Insert {
                number,
                addr,
                source,
            })?;
        }
        Ok(())
    }

    fn unplant_tracepoints(&mut self) {
        let software = self.guest.breakpoints.list();
        let traced: Vec<_> = software
            .filter(|(_, software)| software.trace)
            .map(|(addr, _)| addr)
            .collect();
        for addr in traced {
            self.remove_software(addr, Owner::Trace);
        }
    }

    /// Keeps the outcome for gdbstub, and says why where it is a refusal.
    fn settle_trace(&mut self, outcome: Result<(), TraceError>) {
        if let Err(error) = &outcome {
            self.notice(chain(error));
        }
        self.trace_dialog.settle(outcome.is_err());
    }

    fn answer_trace(&mut self) -> TargetResult<(), Self> {
        // gdb takes an error number that begins with 1 or 2 for something else here.
        match self.trace_dialog.take_refusal() {
            true => Err(TargetError::NonFatal),
            false => Ok(()),
        }
    }

    /// Collects for the tracepoints where `vcpu` is, which is about to execute the
    /// instruction there.
    pub(super) fn collect_at(&mut self, vcpu: VcpuId) {
        let Ok(registers) = self.guest.machine.registers(vcpu) else {
            return;
        };
        let addr = registers.linear_rip();
        if !self.trace.is_traced(addr) || self.vcpus[vcpu].has_collected_at(registers.rip) {
            return;
        }
        self.vcpus[vcpu].mark_collected(registers.rip);
        self.collect(vcpu, &registers, Trace::hit);
    }

    /// Ends the trace, if one runs. The guest is paused.
    pub(super) fn end_trace(&mut self, status: Status) {
        if self.trace.status == Status::NotRun {
            return;
        }
        self.unplant_tracepoints();
        if self.trace.is_running() {
            self.trace.status = status;
        }
    }

    fn select(&mut self, request: &FrameRequest<u64>) -> Option<usize> {
        let next = self.trace.selected.map_or(0, |selected| selected + 1);
        let trace = &mut self.trace;
        let within = |frame: &Frame, first, last| (first..=last).contains(&frame.addr.0);
        match *request {
            FrameRequest::Select(number) => {
                // All ones is none (`tfind none`).
                let number = usize::try_from(number).unwrap_or(usize::MAX);
                trace.selected = trace.frames.get(number).map(|_| number);
                return trace.selected;
            }
            FrameRequest::AtPC(addr) => trace.select(next, |frame| frame.addr.0 == addr),
            FrameRequest::Hit(Tracepoint(number)) => {
                trace.select(next, |frame| frame.tracepoint == number)
            }
            FrameRequest::Between(first, last) => {
                trace.select(next, |frame| within(frame, first, last))
            }
            FrameRequest::Outside(first, last) => {
                trace.select(next, |frame| !within(frame, first, last))
            }
        };
        self.trace.selected
    }
}

impl Tracepoints for Session<'_> {
    fn tracepoints_init(&mut self) -> TargetResult<(), Self> {
        self.unplant_tracepoints();
        self.trace.clear();
        Ok(())
    }

    /// Not called: see the module's documentation. Nor is the next one.
    fn tracepoint_create_begin(&mut self, _: NewTracepoint<u64>) -> TargetResult<(), Self> {
        Err(TargetError::NonFatal)
    }

    fn tracepoint_create_continue(
        &mut self,
        _: Tracepoint,
        _: &TracepointAction<'_, u64>,
    ) -> TargetResult<(), Self> {
        Err(TargetError::NonFatal)
    }

    /// How [`Session::define_tracepoint`] came out.
    fn tracepoint_create_complete(&mut self, _: Tracepoint) -> TargetResult<(), Self> {
        self.answer_trace()
    }

    fn tracepoint_status(
        &self,
        point: Tracepoint,
        addr: u64,
    ) -> TargetResult<TracepointStatus, Self> {
        let counts = self.trace.counts(point.0, VirtAddr(addr));
        let (hit_count, bytes_used) = counts.ok_or(TargetError::Errno(errno::EINVAL))?;
        Ok(TracepointStatus {
            hit_count,
            bytes_used,
        })
    }

    fn tracepoint_enumerate_state(&mut self) -> &mut TracepointEnumerateState<u64> {
        &mut self.trace.uploads
    }

    /// Not called: `trace_requests` answers. Nor is the next one.
    fn tracepoint_enumerate_start(
        &mut self,
        _: Option<Tracepoint>,
        _: &mut dyn FnMut(&NewTracepoint<u64>),
    ) -> TargetResult<TracepointEnumerateStep<u64>, Self> {
        Ok(TracepointEnumerateStep::Done)
    }

    fn tracepoint_enumerate_action(
        &mut self,
        _: Tracepoint,
        _: u64,
        _: &mut dyn FnMut(&TracepointAction<'_, u64>),
    ) -> TargetResult<TracepointEnumerateStep<u64>, Self> {
        Ok(TracepointEnumerateStep::Done)
    }

    fn trace_buffer_configure(&mut self, config: TraceBufferConfig) -> TargetResult<(), Self> {
        let frames = &mut self.trace.frames;
        match config {
            TraceBufferConfig::Shape(shape) => {
                frames.circular = matches!(shape, BufferShape::Circular);
            }
            TraceBufferConfig::Size(None) => frames.size = DEFAULT_SIZE,
            TraceBufferConfig::Size(Some(size)) => {
                let size = usize::try_from(size).ok().filter(|size| *size <= MAX_SIZE);
                frames.size = size.ok_or(TargetError::Errno(errno::EINVAL))?;
            }
        }
        Ok(())
    }

    /// Not called: `trace_requests` answers.
    fn trace_buffer_request(
        &mut self,
        _: u64,
        _: usize,
        _: &mut dyn FnMut(&mut [u8]),
    ) -> TargetResult<(), Self> {
        Err(TargetError::NonFatal)
    }

    fn trace_experiment_status(
        &self,
        report: &mut dyn FnMut(ExperimentStatus<'_>),
    ) -> TargetResult<(), Self> {
        report(match &self.trace.status {
            Status::NotRun => ExperimentStatus::NotRun,
            Status::Running => ExperimentStatus::Running,
            // Without a text gdb 13 crashes in tsave.
            Status::Stopped => ExperimentStatus::Stop(Some(b"")),
            Status::Full => ExperimentStatus::Full,
            Status::PassCount(number) => ExperimentStatus::PassCount(Tracepoint(*number)),
            Status::Error(text, number) => {
                ExperimentStatus::Error(text.as_bytes(), Tracepoint(*number))
            }
        });
        Ok(())
    }

    fn trace_experiment_info(
        &self,
        report: &mut dyn FnMut(ExperimentExplanation<'_>),
    ) -> TargetResult<(), Self> {
        let Trace { frames, .. } = &self.trace;
        report(ExperimentExplanation::Frames(frames.len()));
        report(ExperimentExplanation::Created(frames.created));
        report(ExperimentExplanation::Size(frames.size));
        report(ExperimentExplanation::Free(frames.free()));
        report(ExperimentExplanation::Circular(frames.circular));
        let outlives = self.trace.disconnected;
        report(ExperimentExplanation::DisconnectedTracing(outlives));
        Ok(())
    }

    /// [`Session::plant_tracepoints`] has come before.
    fn trace_experiment_start(&mut self) -> TargetResult<(), Self> {
        self.answer_trace()?;
        self.trace.start();
        self.vcpus.forget_collected();
        Ok(())
    }

    fn trace_experiment_stop(&mut self) -> TargetResult<(), Self> {
        if self.is_running() {
            return Err(TargetError::Errno(errno::EBUSY));
        }
        self.end_trace(Status::Stopped);
        Ok(())
    }

    fn select_frame(
        &mut self,
        request: FrameRequest<u64>,
        report: &mut dyn FnMut(FrameDescription),
    ) -> TargetResult<(), Self> {
        if self.is_running() {
            return Err(TargetError::Errno(errno::EBUSY));
        }
        if let Some(number) = self.select(&request)
            && let Some(frame) = self.trace.frame()
        {
            report(FrameDescription::FrameNumber(number as u64));
            report(FrameDescription::Hit(Tracepoint(frame.tracepoint)));
        }
        Ok(())
    }
}
