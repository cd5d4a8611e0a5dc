//! The device: one queue, and each request is answered with its own bytes.

use backends::prelude::*;

/// Bytes that are copied at once.
const PIECE: u64 = 4096;

/// The device's own options.
#[derive(clap::Args)]
pub struct Options {}

pub struct Device {}

impl Device {
    pub fn open(_options: &Options) -> anyhow::Result<Self> {
        Ok(Self {})
    }
}

impl VirtioDevice for Device {
    /// A request may be served twice, so it survives a kill of this process.
    fn resumable(&self) -> bool {
        true
    }

    fn process(&self, _queue: u16, memory: &GuestRam, request: &mut Request) -> Outcome {
        match echo(memory, &request.chain) {
            Ok(len) => Outcome::Done(len),
            // A buffer is not in guest memory.
            Err(_) => Outcome::Done(0),
        }
    }
}

/// Copies what the driver has written to where it reads, as far as there is room.
fn echo(memory: &GuestRam, chain: &Chain) -> Result<u32, BufferError> {
    let len = chain.readable.len().min(chain.writable.len());
    let mut piece = [0; PIECE as usize];
    for offset in (0..len).step_by(PIECE as usize) {
        let bytes = &mut piece[..PIECE.min(len - offset) as usize];
        chain.readable.read(memory, offset, bytes)?;
        chain.writable.write(memory, offset, bytes)?;
    }
    Ok(len as u32)
}
