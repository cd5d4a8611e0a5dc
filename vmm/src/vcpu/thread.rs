//! The life of a vCPU thread: Running, Paused, Finished.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::Instant;

use devices::hypervisor::Hypervisor;
use devices::virtio::GuestMemory;
use gdb::target::{Event, StopReason, VcpuId};
use vm_memory::GuestAddress;

use super::dispatch::{Buses, Crash, Entry, dispatch};
use super::exit::{self, Exit, Reason};
use super::kick::ImmediateExit;
use super::recent::{Note, Recent};
use super::traps::Traps;
use super::watched::{WatchedRam, Written};
use super::x86_64::{DebugControl, Vcpu};
use crate::events::Notifier;
use crate::kvm::{self, Vm};
use crate::power::PowerSwitch;

/// int3, the byte that a debugger plants.
const INT3: u8 = 0xcc;

/// Why a vCPU cannot continue.
#[derive(Debug)]
pub enum Failure {
    Guest(Crash),
    /// KVM_RUN or an ioctl failed.
    Host(std::io::Error),
}

/// All that a vCPU thread needs of the machine around it, and where it reports.
#[derive(Clone)]
pub struct VcpuContext {
    /// Stops that the debugger asked for.
    pub debug: Notifier<Event>,
    /// vCPU index and its failure.
    pub failures: Notifier<(usize, Failure)>,
    pub power: Arc<PowerSwitch>,
    pub buses: Arc<Buses>,
    pub traps: Arc<Traps>,
    pub watched: Arc<WatchedRam>,
    pub vm: Arc<Vm>,
    pub memory: Arc<GuestMemory>,
}

/// Work for a vCPU thread.
pub enum Message {
    /// Stop and say so.
    Pause(Sender<()>),
    /// Resume, with these debug facilities armed.
    Resume(DebugControl),
    /// Run a closure on the vCPU, in whichever state.
    Request(Box<dyn FnOnce(&mut Vcpu) + Send>),
    Finish,
}

/// Exits by reason, the last ones, and when the guest was first entered.
#[derive(Default)]
pub struct Counters {
    exits: [AtomicU64; Reason::NAMES.len()],
    recent: Recent,
    first_entry: std::sync::OnceLock<Instant>,
}

impl Counters {
    fn count(&self, reason: Reason) {
        // One writer: no need for a locked add.
        let counter = &self.exits[reason as usize];
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Exits so far, by [`Reason::NAMES`].
    pub fn exits(&self) -> [u64; Reason::NAMES.len()] {
        std::array::from_fn(|n| self.exits[n].load(Ordering::Relaxed))
    }

    /// The last exits.
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// When the vCPU entered the guest for the first time.
    pub fn first_entry(&self) -> Option<Instant> {
        self.first_entry.get().copied()
    }
}

/// Everything a vCPU thread owns.
pub struct Thread {
    pub index: usize,
    pub vcpu: Vcpu,
    pub context: VcpuContext,
    pub messages: Receiver<Message>,
    pub immediate_exit: Arc<ImmediateExit>,
    pub counters: Arc<Counters>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Paused,
    Finished,
}

impl Thread {
    /// The thread's body. Starts paused.
    pub fn run(mut self) {
        let mut state = State::Paused;
        while state != State::Finished {
            state = match state {
                State::Running => self.running(),
                State::Paused => self.paused(),
                State::Finished => State::Finished,
            };
        }
    }

    fn running(&mut self) -> State {
        self.counters.first_entry.get_or_init(Instant::now);
        loop {
            match self.step() {
                Ok(Entry::Enter | Entry::Msr(_)) if self.context.power.is_off() => {
                    return self.finish_exit();
                }
                // A register's access has been answered with the exit.
                Ok(Entry::Enter | Entry::Msr(_)) if self.vcpu.debug().can_lose_step() => {
                    let state = self.finish_step();
                    if state != State::Running {
                        return state;
                    }
                }
                Ok(Entry::Enter | Entry::Msr(_)) => {}
                Ok(Entry::CheckRequests) => {
                    let state = self.check_requests();
                    if state != State::Running {
                        return state;
                    }
                }
                Ok(Entry::Trapped(reason)) => {
                    self.finish_exit();
                    return self.debug_stop(reason);
                }
                Ok(Entry::Changed(change)) => {
                    self.finish_exit();
                    return self.debug_stop(StopReason::Changed(change));
                }
                Ok(Entry::Debug(debug)) => {
                    let reason = self.vcpu.on_debug_exit(&debug, &self.context.memory);
                    let state = self.stop_for(reason);
                    if state != State::Running {
                        return state;
                    }
                }
                Ok(Entry::Crash(crash)) => return self.crash(crash),
                Err(error) => return self.failed_run(error),
            }
        }
    }

    /// Enters the guest once and answers the exit.
    fn step(&mut self) -> std::io::Result<Entry> {
        let exit = self.vcpu.run()?;
        let note = Note::of(&exit);
        let trap = self.context.traps.stop(&exit);
        let entry = answer(exit, &self.context);
        self.counters.count(note.reason);
        self.counters.recent.record(note, self.vcpu.rip_at_exit());
        if let Entry::Msr(access) = entry {
            self.vcpu.access_msr(access);
        }
        Ok(match (trap, entry) {
            (Some(reason), Entry::Enter | Entry::Msr(_)) => Entry::Trapped(reason),
            (_, entry) => entry,
        })
    }

    /// Completes a pending I/O exit and stops.
    fn finish_exit(&mut self) -> State {
        self.complete_exit();
        State::Paused
    }

    /// Completes a pending I/O exit that may have hidden the end of a step.
    fn finish_step(&mut self) -> State {
        let ended = self.complete_exit();
        let memory = &self.context.memory;
        let reason = match ended {
            Some(debug) => self.vcpu.on_debug_exit(&debug, memory),
            None => self.vcpu.after_exit(memory),
        };
        match self.stop_for(reason) {
            // A request may have come meanwhile.
            State::Running => self.check_requests(),
            state => state,
        }
    }

    /// Completes a pending I/O exit without running guest code: KVM writes a
    /// read's destination register only at the next KVM_RUN, and registers read
    /// before that would be stale. An exit that KVM splits in parts (an access
    /// across a page) is answered part by part. A step may end with it.
    fn complete_exit(&mut self) -> Option<exit::Debug> {
        const MAX_PARTS: usize = 16;
        let mut ended = None;
        for _ in 0..MAX_PARTS {
            self.immediate_exit.set(true);
            match self.vcpu.run() {
                Ok(Exit::Debug(debug)) => ended = Some(debug),
                Ok(Exit::Interrupted) | Err(_) => {}
                Ok(exit) => {
                    answer(exit, &self.context);
                    continue;
                }
            }
            break;
        }
        self.immediate_exit.set(false);
        ended
    }

    /// KVM_RUN fails with EFAULT at an access to a file that a backend has cut
    /// short, or at a write to a protected page (see `guest_mapping`).
    fn failed_run(&mut self, error: std::io::Error) -> State {
        match error.raw_os_error() {
            Some(libc::EFAULT) if self.context.vm.replace_cut_files() => State::Running,
            Some(libc::EFAULT) if self.context.watched.any() => {
                self.debug_stop(StopReason::Protected)
            }
            _ => self.fail(Failure::Host(error)),
        }
    }

    /// A host that cannot intercept int3 fails to emulate a planted one: that is
    /// the hit (docs/hosts.md, PVM).
    fn crash(&mut self, crash: Crash) -> State {
        match &crash {
            Crash::Internal(error)
                if self.vcpu.debug().intercepts_int3()
                    && error.is_emulation()
                    && error.instruction.first() == Some(&INT3) =>
            {
                self.debug_stop(StopReason::Int3)
            }
            // Not every access to a protected page can be emulated. If the page
            // was not the reason, the error comes again when the page is not
            // protected.
            Crash::Internal(_) if self.context.watched.any() => {
                self.debug_stop(StopReason::Protected)
            }
            _ => self.fail(Failure::Guest(crash)),
        }
    }

    /// Stops the vCPU if there is a reason to.
    fn stop_for(&mut self, reason: Result<Option<StopReason>, kvm::Error>) -> State {
        match reason {
            Ok(Some(reason)) => self.debug_stop(reason),
            Ok(None) => State::Running,
            Err(error) => self.fail(Failure::Host(std::io::Error::other(error))),
        }
    }

    fn debug_stop(&mut self, reason: StopReason) -> State {
        self.context
            .debug
            .send(Event::Stopped(VcpuId(self.index), reason));
        State::Paused
    }

    fn fail(&mut self, failure: Failure) -> State {
        self.context.failures.send((self.index, failure));
        State::Paused
    }

    fn paused(&mut self) -> State {
        match self.messages.recv() {
            Ok(message) => self.handle(message, State::Paused),
            // Every handle is gone: so is the machine.
            Err(_) => State::Finished,
        }
    }

    /// KVM_RUN has ended early, and finished any pending exit.
    fn check_requests(&mut self) -> State {
        self.immediate_exit.set(false);
        self.drain()
    }

    /// Handles queued messages.
    fn drain(&mut self) -> State {
        let mut state = State::Running;
        while state != State::Finished {
            state = match self.messages.try_recv() {
                Ok(message) => self.handle(message, state),
                Err(TryRecvError::Empty) => return state,
                Err(TryRecvError::Disconnected) => State::Finished,
            };
        }
        state
    }

    fn handle(&mut self, message: Message, state: State) -> State {
        match message {
            Message::Pause(done) => {
                // The caller may have given up waiting.
                let _ = done.send(());
                State::Paused
            }
            Message::Resume(control) => {
                self.vcpu.note_stop();
                let done = self.vcpu.begin(&control, &self.context.memory);
                self.stop_for(done)
            }
            Message::Request(run) => {
                run(&mut self.vcpu);
                state
            }
            Message::Finish => State::Finished,
        }
    }
}

/// Answers an exit: a write to a protected page is one to RAM, an access to a file that is
/// cut short is noted, and any other exit is for the devices.
fn answer(exit: Exit<'_>, context: &VcpuContext) -> Entry {
    if let Exit::MmioRead { addr, .. } | Exit::MmioWrite { addr, .. } = &exit {
        context.vm.replace_if_cut(GuestAddress(*addr));
    }
    if let Exit::MmioWrite { addr, data } = exit {
        match context.watched.write(addr, data) {
            Written::NotHere => {}
            Written::Done => return Entry::Enter,
            Written::Changed(change) => return Entry::Changed(change),
        }
    }
    dispatch(exit, &context.buses)
}
