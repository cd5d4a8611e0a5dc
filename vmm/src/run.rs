//! `outboard run`: assemble, start, wait for the end, clean up.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gdb::server::{Detacher, Listener, Options, ServeError, Wait, detacher};
use gdb::symbol_file::{SymbolFile, SymbolFileError};
use gdb::target::Event;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use workbench::trace::{self, Recorder};

use crate::api;
use crate::backends::{Backends, Proxies};
use crate::boot;
use crate::clients;
use crate::config::{Config, GdbWait};
use crate::console::{self, Console};
use crate::control::Control;
use crate::debug::DebugTarget;
use crate::event_loop::{self, Debug, Ended, EventLoop};
use crate::events::{Inbox, Notifier, borrow, channel};
use crate::machine::{self, Machine, Notifiers};
use crate::machine_events::MachineEvents;
use crate::qmp;
use crate::scheduling;
use crate::signals::Signals;
use crate::supervisor::Supervisor;
use crate::transports::Listeners;
use crate::vcpu;
use crate::{log, panics, say};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Boot(#[from] boot::Error),
    #[error(transparent)]
    Machine(#[from] machine::Error),
    #[error(transparent)]
    EventLoop(#[from] event_loop::Error),
    #[error(transparent)]
    Console(#[from] console::Error),
    #[error(transparent)]
    Listen(#[from] gdb::server::ListenError),
    #[error(transparent)]
    Clients(#[from] clients::Error),
    #[error(transparent)]
    Trace(#[from] trace::cli::Error),
    #[error(transparent)]
    Symbols(#[from] SymbolFileError),
    #[error("cannot prepare {what}")]
    Host {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

/// How long clients who follow the machine's events may take to hear of its end.
const FOLLOWERS_PATIENCE: Duration = Duration::from_secs(1);

fn host(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Host { what, source }
}

/// Runs the machine to its end. `started` is when the process began, for the
/// start-up time that is logged.
pub fn run(config: &Config, started: Instant) -> Result<Ended, Error> {
    let Some(faults) = &config.faults else {
        return run_machine(config, started);
    };
    // A machine that is killed has no end to say it at.
    say!(
        "outboard: faults are injected with --seed {}",
        faults.seed()
    );
    let ended = run_machine(config, started);
    // Also of a machine whose faults did not let it start.
    log::say_at_length(&faults.schedule());
    ended
}

fn run_machine(config: &Config, started: Instant) -> Result<Ended, Error> {
    // Before signals are caught and the terminal is taken: the other end of a pipe
    // may take any time.
    let boot = boot::Source::read(machine::boot_config(config), config.memory)?;
    let boot = Arc::new(boot);
    vcpu::init().map_err(host("the vCPU signal"))?;
    let signals = Signals::catch().map_err(host("signal handling"))?;
    let (debug_events, debug_inbox) = channel().map_err(host("an eventfd"))?;
    let (failure_events, failures) = channel().map_err(host("an eventfd"))?;
    let (power_events, power) = channel().map_err(host("an eventfd"))?;
    let (panic_events, panics) = channel().map_err(host("an eventfd"))?;
    panics::report_to(panic_events);
    let events = Arc::<MachineEvents>::default();
    let notifiers = Notifiers {
        debug: debug_events.clone(),
        failures: failure_events,
        power: power_events,
        events: events.clone(),
    };
    let (mut console, output) = Console::open(&config.serial)?;
    let recorder = config.trace.as_deref();
    let recorder = recorder.map(trace::cli::record).transpose()?;
    // Dropped after the machine, on every way out.
    let supervisor = Supervisor::new(config.log.filter.as_deref());
    let backends = Backends::new(supervisor, proxies(config, recorder.as_ref()));
    let machine = Arc::new(Machine::new(config, boot, output, notifiers, &backends)?);
    let debugger = Debugger::start(config, &machine, debug_events, debug_inbox)?;
    let (mut debugger, debug) = debugger.unzip();
    let detacher = debugger
        .as_mut()
        .and_then(|debugger| debugger.detacher.take());
    let control = Arc::new(Control::new(&machine, detacher, events.clone()));
    let api = config.api.as_deref();
    let _api = api.map(|path| api::start(path, &control)).transpose()?;
    let qmp = config.qmp.as_deref();
    let _qmp = qmp.map(|path| qmp::start(path, &control)).transpose()?;
    keep_files(machine.boot().clone()).map_err(host("a thread for a copy of the kernel"))?;
    if config.gdb_wait.is_none() {
        machine.start()?;
    }
    let _listeners =
        Listeners::start(machine.transports()).map_err(host("the devices' threads"))?;
    let ended = EventLoop {
        machine: &machine,
        console: &mut console,
        power,
        failures,
        panics,
        events: events.clone(),
        debug,
        on_reboot: config.on_reboot,
        on_panic: config.on_panic.clone(),
        signals,
        reset: None,
        next_reset: None,
        dump: None,
        typed: Vec::new(),
        is_looped_back: false,
    }
    .run();
    let status = ended.as_ref().map_or(1, Ended::status);
    // Before anything else is waited for.
    console.flush();
    if let Some(debugger) = debugger {
        debugger.stop(status);
    }
    events.end(status, FOLLOWERS_PATIENCE);
    finish_trace(recorder);
    log_start_up(&machine, started);
    tracing::info!("{}", crate::status::report(&machine).trim_end());
    Ok(ended?)
}

/// Who stands between devices and backends, if somebody wants to see or to do something there.
fn proxies(config: &Config, recorder: Option<&Recorder>) -> Option<Proxies> {
    let (faults, rings) = (config.faults.clone(), config.rings);
    let recorder = match recorder {
        None if faults.is_none() => return None,
        None => Recorder::silent(),
        Some(recorder) => recorder.clone(),
    };
    Some(Proxies {
        recorder,
        faults,
        rings,
    })
}

/// Copies the files that a reboot needs, while the guest boots and has the processors
/// first.
fn keep_files(boot: Arc<boot::Source>) -> io::Result<()> {
    let keep = move || {
        scheduling::yield_to_others();
        if let Err(error) = boot.keep() {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "a reboot needs the files as they are now");
        }
    };
    thread::Builder::new().name("keep".into()).spawn(keep)?;
    Ok(())
}

/// The guest has come to its end whether or not it could be traced.
fn finish_trace(recorder: Option<Recorder>) {
    if let Some(Err(error)) = recorder.map(|recorder| recorder.finish()) {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "the trace of the devices is not whole");
    }
}

fn log_start_up(machine: &Machine, started: Instant) {
    if let Some(first) = machine.vcpus().handles()[0].counters().first_entry() {
        let micros = first.saturating_duration_since(started).as_micros();
        tracing::info!("first guest instruction {micros} us after the start of the process");
    }
}

/// The source of gdb's symbols: the user's choice, else the kernel itself if it
/// can have any.
fn symbols(config: &Config) -> Result<Option<SymbolFile>, SymbolFileError> {
    match &config.symbols {
        Some(path) => SymbolFile::open(path).map(Some),
        None => Ok(SymbolFile::open(&config.kernel).ok()),
    }
}

/// The gdb thread.
struct Debugger {
    thread: JoinHandle<Result<gdb::server::Ended, ServeError>>,
    stop: Arc<EventFd>,
    events: Notifier<Event>,
    /// For the control API.
    detacher: Option<Detacher>,
}

impl Debugger {
    /// Listens as `config` says, or not at all.
    fn start(
        config: &Config,
        machine: &Machine,
        events: Notifier<Event>,
        inbox: Inbox<Event>,
    ) -> Result<Option<(Self, Debug)>, Error> {
        let Some(address) = &config.gdb else {
            return Ok(None);
        };
        let symbols = symbols(config)?;
        let listener = Listener::bind(address)?;
        let stop = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(host("an eventfd"))?;
        let stop = Arc::new(stop);
        let (attachment_events, attachments) = channel().map_err(host("an eventfd"))?;
        let (resets, reset_inbox) = channel().map_err(host("an eventfd"))?;
        let (detacher, detach) = detacher().map_err(host("a socket"))?;
        let mut target = DebugTarget::new(
            machine.vcpus().clone(),
            machine.memory().clone(),
            inbox,
            attachment_events,
            symbols,
            reset_inbox,
            machine.handles(),
        );
        let wait = match config.gdb_wait {
            None => Wait::No,
            Some(GdbWait::Start) => Wait::Start,
            Some(GdbWait::Kernel) => Wait::Kernel,
        };
        let (kill, stop_thread) = (config.gdb_kill, stop.clone());
        let thread = thread::Builder::new()
            .name("gdb".into())
            .spawn(move || {
                if let Err(error) = scheduling::prefer_latency() {
                    tracing::debug!("the gdb thread keeps its scheduling: {error}");
                }
                let options = Options {
                    wait,
                    kill,
                    stop: borrow(&stop_thread),
                    detach: &detach,
                };
                gdb::server::serve(&listener, &mut target, &options)
            })
            .map_err(host("the gdb thread"))?;
        let link = Debug {
            events: events.clone(),
            resets,
            attachments,
            attached: false,
            wait: config.gdb_wait.is_some(),
        };
        let debugger = Self {
            thread,
            stop,
            events,
            detacher: Some(detacher),
        };
        Ok(Some((debugger, link)))
    }

    /// Tells an attached gdb that the guest is gone, and ends the thread.
    fn stop(self, status: u8) {
        self.events.send(Event::Exited(status));
        let _ = self.stop.write(1);
        match self.thread.join() {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!("gdb server: {error}"),
            // The panic was printed when it happened.
            Err(_) => {}
        }
    }
}
