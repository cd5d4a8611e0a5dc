//! A device with shared memory: a board of pages, of which the guest has some mapped, to read
//! and write in place. The pages are in a file of the host.
//!
//! A request is two bytes, a command (`w` to write and read, `r` to read only, `d` to take
//! down) and the number of a page; the answer is one byte, 0 for done.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use backends::log;
use backends::prelude::*;
use clap::Parser;
use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags};
use vhost::vhost_user::{Backend, VhostUserFrontendReqHandler};

const PAGE: u64 = 4096;

struct Board {
    file: File,
    size: u64,
    /// The frontend, which maps the file.
    frontend: Mutex<Option<Backend>>,
}

impl Board {
    /// Has the frontend do what the driver wants.
    fn ask(&self, what: u8, page: u8) -> anyhow::Result<()> {
        let frontend = self.frontend.lock().unwrap_or_else(PoisonError::into_inner);
        let frontend = frontend.as_ref().context("the frontend maps nothing")?;
        let offset = u64::from(page) * PAGE;
        let mut range = VhostUserMMap {
            fd_offset: offset,
            shm_offset: offset,
            len: PAGE,
            ..Default::default()
        };
        match what {
            b'w' => {
                range.flags = VhostUserMMapFlags::WRITABLE.bits();
                frontend.shmem_map(&range, &self.file)?;
            }
            b'r' => drop(frontend.shmem_map(&range, &self.file)?),
            b'd' => drop(frontend.shmem_unmap(&range)?),
            _ => anyhow::bail!("nothing is called {what:#x}"),
        }
        Ok(())
    }
}

impl VirtioDevice for Board {
    fn shared_memory(&self) -> Vec<u64> {
        vec![self.size]
    }

    fn connected(&self, frontend: Backend) {
        *self.frontend.lock().unwrap_or_else(PoisonError::into_inner) = Some(frontend);
    }

    fn process(&self, _queue: u16, memory: &GuestRam, request: &mut Request) -> Outcome {
        let mut command = [0; 2];
        let chain = &request.chain;
        let read = chain.readable.read(memory, 0, &mut command);
        let done = read
            .map_err(anyhow::Error::from)
            .and_then(|()| self.ask(command[0], command[1]));
        if let Err(error) = &done {
            tracing::warn!("{error:#}");
        }
        let answer = [u8::from(done.is_err())];
        let written = chain.writable.write(memory, 0, &answer);
        Outcome::Done(written.map_or(0, |()| 1))
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    socket: SocketArgs,
    /// What is on the board: whole pages of 4096 bytes, up to 256
    #[arg(long)]
    file: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    log::init();
    let shutdown = Shutdown::on_signals()?;
    let file = OpenOptions::new().read(true).write(true).open(&cli.file);
    let file = file.with_context(|| format!("cannot open {}", cli.file.display()))?;
    let board = Board {
        size: file.metadata()?.len(),
        file,
        frontend: Mutex::default(),
    };
    Ok(cli.socket.open()?.serve_device(board, shutdown)?)
}
