//! An entropy device that takes its time: the example of docs/backends.md for requests that are
//! finished later. Every byte takes a millisecond, and a short request overtakes a long one.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use backends::log;
use backends::prelude::*;
use clap::Parser;
use vmm_sys_util::timerfd::TimerFd;

/// A request that nobody may have before its time.
struct Waiting {
    until: Instant,
    request: Request,
}

struct State {
    waiting: Vec<Waiting>,
    /// Expires when the first of them is due.
    timer: TimerFd,
}

struct Late {
    timer: RawFd,
    state: Mutex<State>,
}

impl Late {
    fn new() -> io::Result<Self> {
        let timer = TimerFd::new().map_err(io::Error::from)?;
        Ok(Late {
            timer: timer.as_raw_fd(),
            state: Mutex::new(State {
                waiting: Vec::new(),
                timer,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl VirtioDevice for Late {
    /// The worker listens for kicks and for this.
    fn events(&self, _queue: u16) -> Vec<RawFd> {
        vec![self.timer]
    }

    fn process(&self, _queue: u16, _memory: &GuestRam, request: &mut Request) -> Outcome {
        let length = request.chain.writable.len().min(1000);
        self.lock().waiting.push(Waiting {
            until: Instant::now() + Duration::from_millis(length),
            request: request.keep(),
        });
        Outcome::Pending
    }

    /// Called after each pass over the ring too, so that new requests set the timer.
    fn poll(&self, _queue: u16, finished: &mut Finished) {
        let State { waiting, timer } = &mut *self.lock();
        let now = Instant::now();
        for Waiting { request, .. } in waiting.extract_if(.., |waiting| waiting.until <= now) {
            let buffer = &request.chain.writable;
            let bytes = vec![b'z'; buffer.len().min(1000) as usize];
            let written = buffer.write(request.memory(), 0, &bytes);
            let written = written.map_or(0, |()| bytes.len() as u32);
            finished.push(request, written);
        }
        if let Some(next) = waiting.iter().map(|waiting| waiting.until).min() {
            let wait = (next - now).max(Duration::from_micros(1));
            if let Err(error) = timer.reset(wait, None) {
                tracing::error!(%error, "the timer cannot be set");
            }
        }
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    socket: SocketArgs,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    log::init();
    let shutdown = Shutdown::on_signals()?;
    Ok(cli.socket.open()?.serve_device(Late::new()?, shutdown)?)
}
