//! vCPUs: a thread each, and the handle by which others drive it.

pub mod dispatch;
pub mod exit;
pub(crate) mod kick;
mod recent;
mod thread;
pub mod traps;
pub mod watched;
pub mod x86_64;

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use thread::{Counters, Failure, VcpuContext};
pub use x86_64::{DebugControl, Vcpu, cpuid, debug_events};

use kick::ImmediateExit;
use thread::{Message, Thread};
use x86_64::tsc::Tsc;

/// How long a vCPU thread may take to answer, beyond the time of a backend for
/// which it waits in a device access.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// How long a vCPU thread may take to end.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// A vCPU thread does not carry out a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("vCPU {0}: its thread has ended")]
    Ended(usize),
    #[error(
        "vCPU {vcpu}: no answer within {} s; it may wait for a device's backend",
        .deadline.as_secs()
    )]
    NoAnswer { vcpu: usize, deadline: Duration },
    #[error("vCPU {vcpu}: cannot start its thread")]
    Spawn {
        vcpu: usize,
        #[source]
        source: std::io::Error,
    },
}

/// A vCPU thread, from outside.
pub struct Handle {
    index: usize,
    messages: Sender<Message>,
    immediate_exit: Arc<ImmediateExit>,
    thread: Option<JoinHandle<()>>,
    /// Disconnected when the thread has ended.
    ended: Mutex<mpsc::Receiver<()>>,
    /// How long it may take to answer.
    patience: Duration,
    counters: Arc<Counters>,
    tsc: Tsc,
}

/// Process-wide setup for [`Handle`]s. Call once, before the first.
pub fn init() -> std::io::Result<()> {
    kick::install_handler()
}

impl Handle {
    /// Starts the thread of vCPU `index`, paused. It may take `patience` to answer.
    pub fn spawn(
        index: usize,
        vcpu: Vcpu,
        context: VcpuContext,
        patience: Duration,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Spawn {
            vcpu: index,
            source,
        };
        let immediate_exit = Arc::new(ImmediateExit::new(vcpu.fd()).map_err(failed)?);
        let tsc = Tsc::of(vcpu.fd()).map_err(failed)?;
        recent::start_clock();
        let counters = Arc::new(Counters::default());
        let (messages, inbox) = mpsc::channel();
        let (alive, ended) = mpsc::channel();
        let thread = Thread {
            index,
            vcpu,
            context,
            messages: inbox,
            immediate_exit: immediate_exit.clone(),
            counters: counters.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("vcpu{index}"))
            .spawn(move || {
                let _alive: Sender<()> = alive;
                thread.run();
            })
            .map_err(failed)?;
        Ok(Self {
            index,
            messages,
            immediate_exit,
            thread: Some(thread),
            ended: Mutex::new(ended),
            patience,
            counters,
            tsc,
        })
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub fn tsc(&self) -> &Tsc {
        &self.tsc
    }

    /// Runs `f` on the vCPU's thread, between two guest entries, and returns its
    /// result. The vCPU's state is not changed otherwise.
    pub fn request<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Vcpu) -> R + Send + 'static,
    ) -> Result<R, Error> {
        let (reply, answer) = mpsc::channel();
        let run = move |vcpu: &mut Vcpu| {
            // The caller may have given up waiting.
            let _ = reply.send(f(vcpu));
        };
        self.send(Message::Request(Box::new(run)))?;
        self.wait(&answer, Instant::now(), self.patience)
    }

    /// Lets the vCPU run with `control` armed. The thread is paused, or about to be,
    /// and then reads its messages: no kick is needed.
    pub fn resume(&self, control: DebugControl) -> Result<(), Error> {
        self.post(Message::Resume(control))
    }

    fn post(&self, message: Message) -> Result<(), Error> {
        self.messages
            .send(message)
            .map_err(|_| Error::Ended(self.index))
    }

    fn send(&self, message: Message) -> Result<(), Error> {
        self.post(message)?;
        self.immediate_exit.set(true);
        if let Some(thread) = &self.thread {
            kick::signal(thread);
        }
        Ok(())
    }

    fn wait<R>(
        &self,
        answer: &mpsc::Receiver<R>,
        begun: Instant,
        deadline: Duration,
    ) -> Result<R, Error> {
        let left = deadline.saturating_sub(begun.elapsed());
        answer.recv_timeout(left).map_err(|error| match error {
            RecvTimeoutError::Timeout => Error::NoAnswer {
                vcpu: self.index,
                deadline,
            },
            RecvTimeoutError::Disconnected => Error::Ended(self.index),
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _ = self.send(Message::Finish);
        // A thread can be waiting for a backend in an access to a device; the end
        // of the process ends it too.
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(END_DEADLINE) {
            tracing::warn!("vCPU {} does not end; it is left behind", self.index);
        } else if let Some(thread) = self.thread.take() {
            // A panic on the thread was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// Stops all of `handles`: all are kicked first, then all are waited for. An error is that
/// of one of them; the others stop all the same. They have `more` time than to answer.
pub fn pause_all(handles: &[Handle], more: Duration) -> Result<(), Error> {
    let begun = Instant::now();
    let kick = |handle: &Handle| {
        let (done, answer) = mpsc::channel();
        handle.send(Message::Pause(done)).map(|()| answer)
    };
    let answers: Vec<_> = handles.iter().map(kick).collect();
    let stopped = handles.iter().zip(answers).map(|(handle, answer)| {
        // The time counts for all at once: while one is late, it passes for the others too.
        handle.wait(&answer?, begun, handle.patience + more)
    });
    // Not at the first error: every vCPU has to be waited for.
    stopped.fold(Ok(()), Result::and)
}
