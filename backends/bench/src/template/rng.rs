//! The device: it fills the driver's buffers (virtio 1.4, section 5.4).

use std::fs::File;
use std::io::Read;

use anyhow::Context;
use backends::prelude::*;

/// Where the bytes come from. Reading it never blocks.
const SOURCE: &str = "/dev/urandom";
/// More bytes than this are left to the driver's next request.
const MAX_BYTES: u64 = 64 << 10;

/// The device's own options.
#[derive(clap::Args)]
pub struct Options {}

pub struct Device {
    source: File,
}

impl Device {
    pub fn open(_options: &Options) -> anyhow::Result<Self> {
        let source = File::open(SOURCE).with_context(|| format!("cannot open {SOURCE}"))?;
        Ok(Self { source })
    }
}

impl VirtioDevice for Device {
    /// A request may be served twice, so it survives a kill of this process.
    fn resumable(&self) -> bool {
        true
    }

    fn process(&self, _queue: u16, memory: &GuestRam, request: &mut Request) -> Outcome {
        let buffer = &request.chain.writable;
        let mut bytes = vec![0; buffer.len().min(MAX_BYTES) as usize];
        if (&self.source).read_exact(&mut bytes).is_err() {
            // The driver must not take zeroes for random bytes.
            return Outcome::Wait;
        }
        match buffer.write(memory, 0, &bytes) {
            Ok(()) => Outcome::Done(bytes.len() as u32),
            // The buffer is not in guest memory.
            Err(_) => Outcome::Done(0),
        }
    }
}
