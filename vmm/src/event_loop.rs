//! The main thread: waits for the guest's requests, the console, backends and
//! signals, and decides when the machine ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gdb::target::{Attachment, Event, StopReason, VcpuId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::config::{OnPanic, OnReboot, PanicAction};
use crate::console::{Console, Input};
use crate::crash;
use crate::events::{Inbox, Notifier, borrow};
use crate::machine::{self, Machine};
use crate::machine_events::{MachineEvent, MachineEvents};
use crate::panicked::{self, Dumping};
use crate::panics::Panicked;
use crate::power::PowerRequest;
use crate::reset::{Progress, Reset};
use crate::say;
use crate::signals::Signals;
use crate::status;
use crate::vcpu::Failure;
use crate::vcpu::dispatch::Crash;

const BUSY_RETRY: Duration = Duration::from_millis(20);

/// Most console input read at once, in bytes.
const INPUT_CHUNK: usize = 256;

/// How the machine ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    PoweredOff,
    /// The guest rebooted under `--on-reboot exit`.
    Rebooted,
    /// `Ctrl-A x`, a signal, or gdb's `kill` under `--gdb-kill`.
    UserQuit,
    /// The report was printed. Or it panicked, under `--on-panic exit`.
    Crashed,
}

impl Ended {
    /// The process's exit status.
    pub fn status(&self) -> u8 {
        match self {
            Ended::PoweredOff | Ended::Rebooted | Ended::UserQuit => 0,
            Ended::Crashed => 3,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot wait for events")]
    Poll(#[source] io::Error),
    #[error("vCPU {vcpu} failed")]
    Vcpu {
        vcpu: usize,
        #[source]
        source: io::Error,
    },
    #[error("cannot reset the machine")]
    Reset(#[source] machine::Error),
    #[error("cannot reset the machine")]
    ResetThread(#[source] io::Error),
    #[error("cannot dump the guest after its panic or crash")]
    DumpThread(#[source] io::Error),
    #[error("the guest cannot be stopped after its panic or crash")]
    Stop(#[source] machine::Error),
    #[error("thread {0} panicked, which is a bug of outboard: nothing can be said of the guest")]
    Panicked(String),
    #[error("the gdb server ended")]
    Gdb(#[from] gdb::server::ServeError),
}

/// The objects that the loop waits for and acts on.
pub struct EventLoop<'a> {
    pub machine: &'a Arc<Machine>,
    pub console: &'a mut Console,
    pub power: Inbox<PowerRequest>,
    pub failures: Inbox<(usize, Failure)>,
    pub panics: Inbox<Panicked>,
    /// Where it is told what happens.
    pub events: Arc<MachineEvents>,
    pub debug: Option<Debug>,
    pub on_reboot: OnReboot,
    pub on_panic: Option<OnPanic>,
    pub signals: Signals,
    /// A reset that is under way.
    pub reset: Option<Reset>,
    /// Another reset that was requested meanwhile, and whether by the user.
    pub next_reset: Option<bool>,
    /// A dump that is under way, and what stopped the guest.
    pub dump: Option<(Dumping, Halt)>,
    /// Console input that the serial port has yet to take.
    pub typed: Vec<u8>,
    /// The serial port takes no input, and does not say when it does.
    pub is_looped_back: bool,
}

/// The debugger, while one may attach.
pub struct Debug {
    pub events: Notifier<Event>,
    /// Told when a reset is done that gdb asked for.
    pub resets: Notifier<()>,
    /// Where the gdb thread says that a gdb comes or goes.
    pub attachments: Inbox<Attachment>,
    pub attached: bool,
    /// A crashed guest is kept for a gdb that has yet to attach.
    pub wait: bool,
}

/// What stopped the guest.
pub struct Halt {
    vcpu: VcpuId,
    reason: StopReason,
}

impl Halt {
    fn is_crash(&self) -> bool {
        matches!(self.reason, StopReason::Crashed(_))
    }
}

/// The source that a descriptor belongs to.
#[derive(Clone, Copy, Debug)]
enum Source {
    Panic,
    Attachment,
    Power,
    Failure,
    Quit,
    Status,
    ConsoleInput,
    ConsoleOutput,
    ConsoleRoom,
    ConsoleClient,
    SerialRoom,
    Reset,
    Dump,
}

impl EventLoop<'_> {
    /// Runs until the machine ends.
    pub fn run(&mut self) -> Result<Ended, Error> {
        let ended = self.serve();
        // A dump waits for it.
        self.reset = None;
        // Half a file would look like a dump.
        if let Some((dump, _)) = self.dump.take() {
            dump.finish();
        }
        ended
    }

    fn serve(&mut self) -> Result<Ended, Error> {
        loop {
            self.transmit();
            self.deliver();
            for source in self.wait()? {
                if let Some(ended) = self.handle(source)? {
                    return Ok(ended);
                }
            }
        }
    }

    /// The sources that are ready. The list is built again each time, so that
    /// it always follows from the state; events are rare enough for that.
    fn wait(&mut self) -> Result<Vec<Source>, Error> {
        let mut sources = vec![(Source::Panic, self.panics.as_fd())];
        // A dump waits for it.
        if let Some(reset) = &self.reset {
            sources.push((Source::Reset, reset.as_fd()));
        }
        match &self.dump {
            // What comes next depends on what gdb and the guest have said by then.
            Some((dump, _)) => sources.push((Source::Dump, dump.as_fd())),
            None => self.add_requests(&mut sources),
        }
        sources.extend([
            (Source::Quit, self.signals.quit()),
            (Source::Status, self.signals.status()),
            (Source::SerialRoom, borrow(self.machine.serial_room())),
            (Source::ConsoleOutput, self.console.output()),
        ]);
        // While the guest has yet to take the input that was read, the rest is not read.
        if self.typed.is_empty() {
            sources.extend(self.console.input().map(|fd| (Source::ConsoleInput, fd)));
        }
        sources.extend(
            self.console
                .listener()
                .map(|fd| (Source::ConsoleClient, fd)),
        );
        let mut fds: Vec<_> = sources
            .iter()
            .map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
            .collect();
        if let Some(fd) = self.console.blocked() {
            sources.push((Source::ConsoleRoom, fd));
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::OUT));
        }
        // A looped-back port does not say when it has room.
        let retry = self.is_looped_back.then_some(BUSY_RETRY);
        let timeout = earlier(retry, self.console.deadline());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(Error::Poll(error.into())),
        }
        let ready = sources
            .iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|((source, _), _)| *source).collect())
    }

    /// What decides on the guest, which waits while it is being dumped.
    fn add_requests<'a>(&'a self, sources: &mut Vec<(Source, BorrowedFd<'a>)>) {
        // Before the failures: whether a gdb is attached decides what they mean.
        if let Some(debug) = &self.debug {
            sources.push((Source::Attachment, debug.attachments.as_fd()));
        }
        sources.push((Source::Power, self.power.as_fd()));
        // vCPU failures are ignored while the machine is being reset.
        if self.reset.is_none() {
            sources.push((Source::Failure, self.failures.as_fd()));
        }
    }

    fn handle(&mut self, source: Source) -> Result<Option<Ended>, Error> {
        match source {
            // It was ready beside what has begun the dump, and is so after it.
            Source::Attachment | Source::Power | Source::Failure if self.dump.is_some() => {}
            Source::Panic => {
                if let Some(Panicked(thread)) = self.panics.take() {
                    return Err(Error::Panicked(thread));
                }
            }
            Source::Attachment => return Ok(self.attachment()),
            Source::Power => return self.power(),
            Source::Failure => return self.failure(),
            Source::Quit => return Ok(Some(Ended::UserQuit)),
            Source::Status => {
                self.signals.acknowledge_status();
                say!("{}", status::report(self.machine).trim_end());
            }
            Source::ConsoleInput => return Ok(self.console_input()),
            Source::ConsoleOutput => self.console.gather(),
            // Nothing to do: each turn begins with writing output.
            Source::ConsoleRoom => {}
            Source::ConsoleClient => self.console.accept(),
            Source::SerialRoom => drop(self.machine.serial_room().read()),
            Source::Reset => self.on_reset()?,
            Source::Dump => return self.on_dump(),
        }
        Ok(None)
    }

    fn console_input(&mut self) -> Option<Ended> {
        match self.console.read(INPUT_CHUNK) {
            Input::Quit => return Some(Ended::UserQuit),
            Input::Bytes(bytes) => self.typed = bytes,
            Input::Nothing => {}
        }
        None
    }

    /// Writes the guest's output.
    fn transmit(&mut self) {
        if self.console.write() {
            self.machine.serial().line_changed();
        }
    }

    /// Gives the serial port as much input as it has room for. The port says when it has
    /// more room.
    fn deliver(&mut self) {
        self.is_looped_back = false;
        if !self.typed.is_empty() {
            let mut port = self.machine.serial();
            let taken = port.input(&self.typed);
            self.typed.drain(..taken);
            self.is_looped_back = !self.typed.is_empty() && port.has_room();
        }
    }

    fn power(&mut self) -> Result<Option<Ended>, Error> {
        match self.power.take() {
            None => Ok(None),
            Some(PowerRequest::Off) => Ok(Some(Ended::PoweredOff)),
            Some(PowerRequest::Reset) if self.on_reboot == OnReboot::Exit => {
                Ok(Some(Ended::Rebooted))
            }
            Some(PowerRequest::Reset) => self.start_reset(false).map(|()| None),
            Some(PowerRequest::UserReset) => self.start_reset(true).map(|()| None),
            Some(PowerRequest::Panic) => self.panicked(),
        }
    }

    fn start_reset(&mut self, by_user: bool) -> Result<(), Error> {
        if self.reset.is_some() {
            self.next_reset = Some(by_user);
            return Ok(());
        }
        tracing::info!("the guest reboots");
        self.reset = Some(Reset::start(self.machine, by_user).map_err(Error::ResetThread)?);
        Ok(())
    }

    fn on_reset(&mut self) -> Result<(), Error> {
        match self.reset.as_ref().and_then(Reset::progress) {
            None => Ok(()),
            Some(Progress::Ready) => {
                self.release();
                Ok(())
            }
            Some(Progress::Over(result)) => self.end_reset(result),
        }
    }

    /// The machine is as at power-on.
    fn release(&mut self) {
        // A vCPU that died of the reset before it was stopped lives again.
        while self.failures.take().is_some() {}
        // A gdb stops the guest here, or has stopped it already. While the reset is not
        // over, none of its next actions comes before this event.
        if let Some(debug) = &self.debug {
            debug.events.send(Event::Reset);
        }
        self.events.tell(MachineEvent::Reset);
        if let Some(reset) = &self.reset {
            reset.release(self.debug.is_none());
        }
    }

    fn end_reset(&mut self, result: Result<(), machine::Error>) -> Result<(), Error> {
        let by_user = self.reset.take().is_some_and(|reset| reset.by_user);
        match result {
            Err(error @ machine::Error::NotPaused(_)) if by_user => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "the machine is not reset, and still runs");
            }
            result => result.map_err(Error::Reset)?,
        }
        if let Some(debug) = self.debug.as_ref().filter(|_| by_user) {
            debug.resets.send(());
        }
        match self.next_reset.take() {
            Some(by_user) => self.start_reset(by_user),
            None => Ok(()),
        }
    }

    /// A crashed guest that was kept for gdb goes when gdb has left it as it was.
    fn attachment(&mut self) -> Option<Ended> {
        let debug = self.debug.as_mut()?;
        // All of them: the last one decides what a failure behind them means.
        while let Some(attachment) = debug.attachments.take() {
            let was_attached = debug.attached;
            debug.attached = attachment == Attachment::Attached;
            if debug.attached != was_attached {
                self.events.tell(attached(attachment));
            }
            match attachment {
                Attachment::Left { crashed: true } => return Some(Ended::Crashed),
                Attachment::Killed => return Some(Ended::UserQuit),
                Attachment::Attached
                | Attachment::Tracing
                | Attachment::Left { crashed: false } => {}
            }
        }
        None
    }

    fn failure(&mut self) -> Result<Option<Ended>, Error> {
        match self.failures.take() {
            None => Ok(None),
            Some((vcpu, Failure::Host(source))) => Err(Error::Vcpu { vcpu, source }),
            Some((vcpu, Failure::Guest(crash))) => self.crash(vcpu, &crash),
        }
    }

    /// Reports the crash.
    fn crash(&mut self, vcpu: usize, crash: &Crash) -> Result<Option<Ended>, Error> {
        let registers = self.machine.vcpus().handles()[vcpu].request(|vcpu| vcpu.registers());
        // The guest's last output comes before the report.
        self.console.flush();
        match registers {
            Ok(Ok(registers)) => {
                say!("outboard: the guest crashed");
                say!(
                    "{}",
                    crash::report(vcpu, crash, &registers, self.machine.memory())
                );
            }
            _ => say!("outboard: the guest crashed: vCPU {vcpu}: {crash}"),
        }
        let reason = crash.to_string();
        self.events
            .tell(MachineEvent::GuestCrashed { vcpu, reason });
        let reason = StopReason::Crashed(crash.to_string());
        let vcpu = VcpuId(vcpu);
        self.halt(Halt { vcpu, reason })
    }

    /// The guest's kernel panics. The vCPU that says so has stopped behind that.
    fn panicked(&mut self) -> Result<Option<Ended>, Error> {
        self.console.flush();
        say!("outboard: the guest's kernel panicked");
        self.events.tell(MachineEvent::GuestPanicked);
        let vcpu = panicked::vcpu(self.machine);
        let reason = StopReason::Trap("the guest's kernel panicked".into());
        self.halt(Halt { vcpu, reason })
    }

    /// Stops the guest and has it dumped where the user wants that, before all else.
    fn halt(&mut self, halt: Halt) -> Result<Option<Ended>, Error> {
        let dump = match &self.on_panic {
            None => return self.halted(halt),
            Some(OnPanic { dump, .. }) => dump,
        };
        let Some(dump) = dump else {
            drop(self.machine.stop().map_err(Error::Stop)?);
            return self.halted(halt);
        };
        let dump = Dumping::start(self.machine, dump).map_err(Error::DumpThread)?;
        self.dump = Some((dump, halt));
        Ok(None)
    }

    fn on_dump(&mut self) -> Result<Option<Ended>, Error> {
        let Some(result) = self.dump.as_ref().and_then(|(dump, _)| dump.result()) else {
            return Ok(None);
        };
        result.map_err(Error::Stop)?;
        match self.dump.take() {
            None => Ok(None),
            Some((_, halt)) => self.halted(halt),
        }
    }

    /// With a gdb attached, or a crash under `--gdb-wait`, the guest stays for gdb to look at.
    fn halted(&mut self, halt: Halt) -> Result<Option<Ended>, Error> {
        let keep = |debug: &&Debug| debug.attached || (debug.wait && halt.is_crash());
        let Some(debug) = self.debug.as_ref().filter(keep) else {
            return self.after_panic();
        };
        if !debug.attached {
            say!("outboard: it is kept for gdb to attach, as --gdb-wait asks");
        }
        debug.events.send(Event::Stopped(halt.vcpu, halt.reason));
        Ok(None)
    }

    /// Without a debugger the user's choice counts, or the end.
    fn after_panic(&mut self) -> Result<Option<Ended>, Error> {
        match self.on_panic.as_ref().map(|on_panic| on_panic.action) {
            None | Some(PanicAction::Exit) => Ok(Some(Ended::Crashed)),
            Some(PanicAction::Reset) => self.start_reset(true).map(|()| None),
            Some(PanicAction::Stop) => {
                say!("outboard: it is stopped, as --on-panic asks");
                Ok(None)
            }
        }
    }
}

fn attached(attachment: Attachment) -> MachineEvent {
    match attachment {
        Attachment::Attached => MachineEvent::GdbAttached,
        Attachment::Tracing => MachineEvent::GdbDetached { tracing: true },
        Attachment::Left { .. } | Attachment::Killed => {
            MachineEvent::GdbDetached { tracing: false }
        }
    }
}

/// The time until the earlier of both, if there is one.
fn earlier(time: Option<Duration>, deadline: Option<Instant>) -> Option<Timespec> {
    let until = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let time = time.into_iter().chain(until).min()?;
    Timespec::try_from(time).ok()
}
