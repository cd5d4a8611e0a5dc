//! `outboard trace`.

use std::io::{self, BufWriter, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use host_io::files::create_private;
use vhost_user_wire::DeviceType;

use super::explain;
use super::faults::{self, LoadError};
use super::format::{Kind, Writer, line};
use super::proxy::{self, ProxyError, Route};
use super::record::{Record, Start};
use super::recorder::Recorder;
use super::show::{self, Filter, ReadError, Summary, Trace};
use super::sink::{Sink, SinkError};

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct TraceArgs {
    #[command(flatten)]
    proxy: Option<ProxyArgs>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a trace, and how long its requests took.
    Show(ShowArgs),
}

#[derive(Args, Debug)]
struct ProxyArgs {
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
    /// Trace kicks, calls and requests too. They pass the proxy then, which takes time.
    #[arg(long)]
    rings: bool,
    /// Inject the faults of this TOML file (docs/trace.md), and print at the end those that
    /// happened, as such a file.
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Decides what the file leaves open [default: the file's seed, or a new one].
    #[arg(long, value_name = "N", requires = "faults")]
    seed: Option<u32>,
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// A trace in the form json or pcapng.
    file: PathBuf,
    /// Only of the device with this name.
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Only messages whose name has this part.
    #[arg(long, value_name = "NAME")]
    message: Option<String>,
    /// Only from so many seconds after the begin on.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    since: Option<Duration>,
    /// Write a page with a timeline and histograms to this file instead.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot create the trace {}", .path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot write the page {}", .path.display())]
    Page { path: PathBuf, source: io::Error },
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
    #[error(transparent)]
    Faults(#[from] LoadError),
    #[error("cannot begin the trace")]
    Begin(#[source] io::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// Does what the command line says; a proxy stands until `quit` is readable. `tell` is called
/// with what a user should know.
pub fn run(args: &TraceArgs, quit: BorrowedFd<'_>, tell: impl Fn(&str)) -> Result<(), Error> {
    match (&args.command, &args.proxy) {
        (Some(Command::Show(args)), _) => show(args),
        (None, Some(args)) => trace(args, quit, tell),
        // The command line has one of both.
        (None, None) => Ok(()),
    }
}

fn trace(args: &ProxyArgs, quit: BorrowedFd<'_>, tell: impl Fn(&str)) -> Result<(), Error> {
    let device = device_name(&args.listen);
    let load = |path| faults::load(path, args.seed, vec![device.clone()], args.rings);
    let faults = args.faults.as_deref().map(load).transpose()?;
    let route = Route {
        listen: args.listen.clone(),
        connect: args.connect.clone(),
        device,
        device_type: args.device_type,
        rings: args.rings,
        faults,
    };
    let writer = create(args.output.as_deref(), args.format)?;
    let recorder = Recorder::new(Sink::start(writer).map_err(Error::Begin)?);
    let served = proxy::run(&route, &recorder, quit, tell);
    if let Some(faults) = &route.faults {
        // As it is, so that it can be copied. Without a reader it is nobody's loss.
        let _ = io::stderr().write_all(faults.schedule().as_bytes());
    }
    // Also of a proxy that failed.
    let written = recorder.finish();
    served?;
    Ok(written?)
}

/// Why what is traced in `file` hangs, if it does.
pub fn explain(file: &Path) -> Result<String, Error> {
    let trace = Trace::read(file)?;
    Ok(explain::explain(&trace.records))
}

fn show(args: &ShowArgs) -> Result<(), Error> {
    let trace = Trace::read(&args.file)?;
    let filter = Filter {
        device: args.device.clone(),
        message: args.message.clone(),
        since: args.since.unwrap_or_default(),
    };
    let records = trace.records.iter().filter(|record| filter.matches(record));
    let records: Vec<_> = records.collect();
    if let Some(path) = &args.html {
        let page = show::page(&args.file.display().to_string(), &records);
        let written = create_private(path).and_then(|mut file| file.write_all(page.as_bytes()));
        return written.map_err(|source| Error::Page {
            path: path.clone(),
            source,
        });
    }
    match print(&records) {
        // A reader that closes standard output early has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Print(error)),
        _ => Ok(()),
    }
}

fn print(records: &[&Record]) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for record in records {
        writeln!(out, "{}", line(record))?;
    }
    let summary = Summary::of(records.iter().copied());
    writeln!(out, "\n{summary}")?;
    out.flush()
}

/// Records into `file`, in the form that its name ends with.
pub fn record(file: &Path) -> Result<Recorder, Error> {
    let sink = Sink::start(create(Some(file), None)?).map_err(Error::Begin)?;
    Ok(Recorder::new(sink))
}

/// Begins a trace in `file`, which only its owner may read as a guest's data may be in it, or
/// on standard output.
pub fn create(file: Option<&Path>, kind: Option<Kind>) -> Result<Box<dyn Writer>, Error> {
    let kind = kind.unwrap_or_else(|| file.map_or(Kind::Text, Kind::of_name));
    let out: Box<dyn Write + Send> = match file {
        None => Box::new(io::stdout()),
        Some(path) => Box::new(create_private(path).map_err(|source| Error::Create {
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
