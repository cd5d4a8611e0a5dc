//! The console device (virtio 1.3, section 5.3): one port, usable as the guest's `hvc0`.
//!
//! * [`terminal`] is the host's end of the console;
//! * [`host_io::escape`] is the key that ends the program;
//! * [`args`] is the program's command line.
//!
//! A driver may spin until its output has been taken (Linux's does, with a lock held), so output
//! that nobody reads is lost after a short wait, and counted.

pub mod args;
pub mod terminal;

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::chain::{BufferError, Buffers};
use crate::page_log::GuestRam;
use crate::ratelimit::RateLimit;
use crate::request::{Outcome, Request};
use crate::virtio::VirtioDevice;
use crate::warn_limited;
use terminal::{Input, Terminal};

/// Feature bits (section 5.3.3), which `virtio-bindings` has not got.
const VIRTIO_CONSOLE_F_SIZE: u32 = 0;
const VIRTIO_CONSOLE_F_EMERG_WRITE: u32 = 2;
/// Queue of typed input.
const RECEIVE: u16 = 0;
/// Offset of `emerg_wr` in `struct virtio_console_config`.
const EMERG_WR: u32 = 8;
/// Bytes taken from a chain at once.
const PIECE: u64 = 4096;

static LOG: RateLimit = RateLimit::for_logs();

/// A console with one port.
pub struct Console {
    terminal: Terminal,
    /// Bytes that were lost since the reader stopped reading.
    lost: AtomicU64,
}

impl Console {
    /// A console on `terminal`.
    pub fn new(terminal: Terminal) -> Self {
        Console {
            terminal,
            lost: AtomicU64::new(0),
        }
    }

    fn receive(&self, memory: &GuestRam, buffer: &Buffers) -> Outcome {
        let room = buffer.len().min(PIECE) as usize;
        let bytes = match self.terminal.read(room) {
            Ok(Input::Bytes(bytes)) => bytes,
            Ok(Input::Nothing) => return Outcome::Wait,
            Err(error) => {
                warn_limited!(LOG, %error, "the console's input cannot be read");
                return Outcome::Wait;
            }
        };
        match buffer.write(memory, 0, &bytes) {
            Ok(()) => Outcome::Done(bytes.len() as u32),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn_limited!(LOG, error, "dropped a receive buffer of the driver");
                Outcome::Done(0)
            }
        }
    }

    fn transmit(&self, memory: &GuestRam, buffer: &Buffers) -> Result<(), BufferError> {
        let mut offset = 0;
        while offset < buffer.len() {
            let mut bytes = vec![0; (buffer.len() - offset).min(PIECE) as usize];
            buffer.read(memory, offset, &mut bytes)?;
            self.print(&bytes);
            offset += bytes.len() as u64;
        }
        Ok(())
    }

    fn print(&self, bytes: &[u8]) {
        match self.terminal.write(bytes) {
            Ok(true) => self.tell_lost(),
            Ok(false) => {
                if self.lost.fetch_add(bytes.len() as u64, Relaxed) == 0 {
                    warn_limited!(LOG, "nobody reads the console; its output is lost");
                }
            }
            Err(error) => warn_limited!(LOG, %error, "the console's output cannot be written"),
        }
    }

    fn tell_lost(&self) {
        let bytes = self.lost.swap(0, Relaxed);
        if bytes > 0 {
            warn_limited!(LOG, bytes, "output of the console was lost: nobody read it");
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.tell_lost();
    }
}

impl VirtioDevice for Console {
    fn queues(&self) -> u16 {
        2
    }

    fn features(&self) -> u64 {
        let size = u64::from(self.terminal.size().is_some());
        size << VIRTIO_CONSOLE_F_SIZE | 1 << VIRTIO_CONSOLE_F_EMERG_WRITE
    }

    /// `struct virtio_console_config`: cols, rows, max_nr_ports, emerg_wr.
    fn config(&self) -> Vec<u8> {
        let mut space = vec![0; 12];
        let (columns, rows) = self.terminal.size().unwrap_or_default();
        space[0..2].copy_from_slice(&columns.to_le_bytes());
        space[2..4].copy_from_slice(&rows.to_le_bytes());
        space
    }

    /// Section 5.3.5.1: a write to `emerg_wr` prints a character, rings or no rings.
    fn write_config(&self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        match bytes {
            [character, ..] if offset == EMERG_WR => {
                self.print(&[*character]);
                Ok(())
            }
            _ => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "only emerg_wr of a console's configuration space is writable",
            )),
        }
    }

    fn events(&self, queue: u16) -> Vec<RawFd> {
        let input = self.terminal.input_fd();
        input.filter(|_| queue == RECEIVE).into_iter().collect()
    }

    fn config_event(&self) -> Option<RawFd> {
        self.terminal.size_fd()
    }

    fn config_changed(&self) -> bool {
        self.terminal.size_changed()
    }

    fn process(&self, queue: u16, memory: &GuestRam, request: &mut Request) -> Outcome {
        let chain = &request.chain;
        if queue != RECEIVE {
            if let Err(error) = self.transmit(memory, &chain.readable) {
                let error: &dyn std::error::Error = &error;
                warn_limited!(LOG, error, "dropped output of the driver");
            }
            return Outcome::Done(0);
        }
        if chain.writable.is_empty() {
            warn_limited!(LOG, "dropped a receive buffer without room");
            return Outcome::Done(0);
        }
        self.receive(memory, &chain.writable)
    }
}
