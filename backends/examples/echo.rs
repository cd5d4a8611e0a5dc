//! A console that says everything back: the example of docs/backends.md for a queue that waits for
//! another one. What the driver transmits is what it receives.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock};

use backends::log;
use backends::prelude::*;
use clap::Parser;

/// The queues of a console's first port (virtio 1.4, section 5.3.2).
const RECEIVE: u16 = 0;

/// The driver waits until it has received, where it transmits much more than it receives.
const ROOM: usize = 1 << 16;

#[derive(Default)]
struct Echo {
    bytes: Mutex<VecDeque<u8>>,
    wakers: OnceLock<Wakers>,
}

impl Echo {
    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.bytes.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Another queue can continue.
    fn wake(&self, queue: u16) {
        if let Some(wakers) = self.wakers.get() {
            wakers.wake(queue);
        }
    }

    fn receive(&self, memory: &GuestRam, buffer: &Buffers) -> Outcome {
        let mut bytes = self.lock();
        if bytes.is_empty() {
            return Outcome::Wait;
        }
        let count = bytes.len().min(buffer.len() as usize);
        let some: Vec<u8> = bytes.drain(..count).collect();
        let written = buffer.write(memory, 0, &some);
        Outcome::Done(written.map_or(0, |()| count as u32))
    }

    fn transmit(&self, memory: &GuestRam, buffer: &Buffers) -> Outcome {
        let mut bytes = self.lock();
        if bytes.len() >= ROOM {
            return Outcome::Wait;
        }
        let mut some = vec![0; buffer.len().min(ROOM as u64) as usize];
        if buffer.read(memory, 0, &mut some).is_ok() {
            bytes.extend(some);
        }
        Outcome::Done(0)
    }
}

impl VirtioDevice for Echo {
    fn queues(&self) -> u16 {
        2
    }

    fn attached(&self, wakers: Wakers) {
        self.wakers.get_or_init(|| wakers);
    }

    fn process(&self, queue: u16, memory: &GuestRam, request: &mut Request) -> Outcome {
        let outcome = match queue {
            RECEIVE => self.receive(memory, &request.chain.writable),
            _ => self.transmit(memory, &request.chain.readable),
        };
        // There is something to receive now, or room for more.
        if let Outcome::Done(_) = outcome {
            self.wake(queue ^ 1);
        }
        outcome
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
    Ok(cli.socket.open()?.serve_device(Echo::default(), shutdown)?)
}
