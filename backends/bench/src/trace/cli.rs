//! `outboard trace`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use clap::Args;
use vhost_user_wire::DeviceType;

use super::format::{Kind, Writer};
use super::proxy::{self, ProxyError, Route};
use super::record::Start;
use super::recorder::Recorder;
use super::sink::{Sink, SinkError};

#[derive(Args, Debug)]
pub struct TraceArgs {
    /// Where the frontend is to connect.
    #[arg(long, value_name = "PATH")]
    listen: PathBuf,
    /// Where the backend listens.
    #[arg(long, value_name = "PATH")]
    connect: PathBuf,
    /// Write the trace to this file [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Its form [default: by the ending of FILE: .jsonl, .pcapng, .json (chrome), else text].
    #[arg(long, value_enum, value_name = "FORM")]
    format: Option<Kind>,
    /// The device, blk, net, ... or a virtio device number, so that its features have names.
    #[arg(long = "type", value_name = "TYPE")]
    device_type: Option<DeviceType>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot create the trace {}", .path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot begin the trace")]
    Begin(#[source] io::Error),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// Traces until `quit` is readable. `tell` is called with what a user should know.
pub fn run(args: &TraceArgs, quit: BorrowedFd<'_>, tell: impl Fn(&str)) -> Result<(), Error> {
    let route = Route {
        listen: args.listen.clone(),
        connect: args.connect.clone(),
        device: device_name(&args.listen),
        device_type: args.device_type,
    };
    let writer = create(args.output.as_deref(), args.format)?;
    let recorder = Recorder::new(Sink::start(writer).map_err(Error::Begin)?);
    let served = proxy::run(&route, &recorder, quit, tell);
    // Also of a proxy that failed.
    let written = recorder.finish();
    served?;
    Ok(written?)
}

/// Begins a trace in `file`, or on standard output.
pub fn create(file: Option<&Path>, kind: Option<Kind>) -> Result<Box<dyn Writer>, Error> {
    let kind = kind.unwrap_or_else(|| file.map_or(Kind::Text, Kind::of_name));
    let out: Box<dyn Write + Send> = match file {
        None => Box::new(io::stdout()),
        Some(path) => Box::new(File::create(path).map_err(|source| Error::Create {
            path: path.to_owned(),
            source,
        })?),
    };
    kind.begin(out, Start::now()).map_err(Error::Begin)
}

/// A device is called as its socket is.
fn device_name(socket: &Path) -> String {
    let name = socket.file_stem().unwrap_or(socket.as_os_str());
    name.to_string_lossy().into_owned()
}
