//! `outboard record`.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use vhost_user_wire::DeviceType;

use super::in_flight::Lost;
use super::rings::{Rings, Tell};
use super::tape::Tape;
use crate::recording::WriteError;
use crate::trace::Recorder;
use crate::trace::proxy::{self, ProxyError, Session};

#[derive(Args, Debug)]
pub struct RecordArgs {
    /// Where the frontend is to connect.
    #[arg(long, value_name = "PATH")]
    listen: PathBuf,
    /// Where the backend listens.
    #[arg(long, value_name = "PATH")]
    connect: PathBuf,
    /// Write the recording to this file.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The device, blk, net, ... or a virtio device number, so that it is known what may differ
    /// in a replay.
    #[arg(long = "type", value_name = "TYPE")]
    device_type: Option<DeviceType>,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
}

/// Records until `quit` is readable, one connection after another. Returns the number of
/// requests.
pub fn run(args: &RecordArgs, quit: BorrowedFd<'_>, tell: &Tell) -> Result<u64, RecordError> {
    let device = device_name(&args.listen);
    let device_type = args.device_type.map(DeviceType::id);
    let tape = Arc::new(Tape::create(&args.output, device, device_type)?);
    let lost = Arc::default();
    let mut current: Option<Session> = None;
    let served = proxy::serve(&args.listen, quit, |frontend| {
        if current.as_ref().is_some_and(|session| !session.is_ending()) {
            return tell("a second connection at the same time is not recorded, and closed");
        }
        current.take().into_iter().for_each(Session::end);
        match open(args, &tape, &lost, frontend, quit, tell) {
            Ok(session) => current = Some(session),
            Err(error) => tell(&proxy::unreachable(&args.connect, &error)),
        }
    });
    current.into_iter().for_each(Session::end);
    // Also of a proxy that failed.
    let requests = tape.finish();
    served?;
    Ok(requests?)
}

fn open(
    args: &RecordArgs,
    tape: &Arc<Tape>,
    lost: &Arc<Lost>,
    frontend: UnixStream,
    quit: BorrowedFd<'_>,
    tell: &Tell,
) -> io::Result<Session> {
    let backend = proxy::dial(&args.connect, quit)?;
    let rings = Rings::new(tape, lost, tell)?;
    // The messages of a recording are part of it.
    let recorder = Recorder::silent().connected("", args.device_type);
    Session::start(frontend, backend, recorder, Some(Box::new(rings)), None)
}

/// A device is called as its socket is.
fn device_name(socket: &Path) -> String {
    let name = socket.file_stem().unwrap_or(socket.as_os_str());
    name.to_string_lossy().into_owned()
}
