//! An entropy device that throws dice: the worked example of docs/backends.md.

use std::sync::Mutex;

use backends::log;
use backends::prelude::*;
use clap::Parser;

/// The state that the device keeps from one request to the next.
struct Dice {
    state: Mutex<u64>,
}

impl Dice {
    /// One throw, 1 to 6 (a linear congruential generator: Knuth's MMIX).
    fn throw(&self) -> u8 {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as u8 % 6 + 1
    }
}

impl VirtioDevice for Dice {
    /// One queue, no features, no configuration space: that is an entropy device
    /// (virtio 1.3, section 5.4). A request is a buffer to fill.
    fn process(&self, _queue: u16, memory: &GuestRam, request: &mut Request) -> Outcome {
        let buffer = &request.chain.writable;
        let throws: Vec<u8> = (0..buffer.len().min(4096)).map(|_| self.throw()).collect();
        match buffer.write(memory, 0, &throws) {
            Ok(()) => Outcome::Done(throws.len() as u32),
            Err(_) => Outcome::Done(0), // the driver's buffer is not in its memory
        }
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    socket: SocketArgs,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    log::init();
    let shutdown = Shutdown::on_signals()?;
    let state = Mutex::new(cli.seed);
    Ok(cli.socket.open()?.serve_device(Dice { state }, shutdown)?)
}
