//! Where backends come from, and connections to them.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use host_io::command::{CommandLine, Handover};
use tempfile::TempDir;

use super::error::{START, TargetError};
use super::exit::Exit;
use super::process::Process;

/// Where a process is to listen. Some programs put the number of a device behind it.
const SOCKETS: [&str; 2] = ["s", "s0"];

/// Where backends come from.
#[derive(Clone, Debug)]
pub enum Target {
    /// Somebody else has started one, which listens there and serves one connection after another.
    Socket(PathBuf),
    /// A process is started for each check.
    Command { text: String, line: CommandLine },
}

/// A backend that is there: a process of our own, or somebody else's.
#[derive(Debug)]
pub struct Instance {
    process: Option<Process>,
    /// Where it accepts more connections.
    listens: Option<PathBuf>,
    /// The connection that it was started with.
    first: Option<UnixStream>,
    /// Holds the socket.
    _dir: Option<TempDir>,
}

impl Target {
    pub fn command(text: &str) -> Result<Self, String> {
        let line = CommandLine::parse(text)?;
        let text = text.to_owned();
        Ok(Self::Command { text, line })
    }

    /// Whether a process can be killed and another one be started.
    pub fn restarts(&self) -> bool {
        matches!(self, Self::Command { .. })
    }

    /// Whether one process serves one connection after another.
    pub fn reconnects(&self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Command { line, .. } => line.handover != Handover::Connected,
        }
    }

    /// Starts a process, if there is one to start.
    pub fn start(&self) -> Result<Instance, TargetError> {
        match self {
            Self::Socket(path) => Ok(Instance {
                process: None,
                listens: Some(path.clone()),
                first: None,
                _dir: None,
            }),
            Self::Command { line, .. } => start(line),
        }
    }
}

/// As options of a command line.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
        match self {
            Self::Socket(path) => write!(f, "--socket {}", quote(&path.display().to_string())),
            Self::Command { text, .. } => write!(f, "--exec {}", quote(text)),
        }
    }
}

fn start(line: &CommandLine) -> Result<Instance, TargetError> {
    if line.handover == Handover::Connected {
        let (ours, theirs) = UnixStream::pair()?;
        let process = Process::start(line, &theirs.as_raw_fd().to_string(), Some(&theirs))?;
        return Ok(Instance {
            process: Some(process),
            listens: None,
            first: Some(ours),
            _dir: None,
        });
    }
    let dir = tempfile::Builder::new()
        .prefix("outboard-check-")
        .tempdir()?;
    let path = dir.path().join(SOCKETS[0]);
    let mut first = None;
    let process = if line.handover == Handover::Listening {
        let listener = UnixListener::bind(&path)?;
        // Some programs accept once, before they look for anything else.
        first = Some(UnixStream::connect(&path)?);
        Process::start(line, &listener.as_raw_fd().to_string(), Some(&listener))?
    } else {
        Process::start(line, &path.to_string_lossy(), None::<&UnixStream>)?
    };
    Ok(Instance {
        process: Some(process),
        listens: Some(path),
        first,
        _dir: Some(dir),
    })
}

impl Instance {
    /// A connection; `None` where the process has had its only one.
    pub fn connect(&mut self) -> Result<Option<UnixStream>, TargetError> {
        self.connect_within(START)
    }

    /// The same of a process that may take so long until it listens.
    pub fn connect_within(&mut self, time: Duration) -> Result<Option<UnixStream>, TargetError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let Some(path) = self.listens.clone() else {
            return Ok(None);
        };
        match &mut self.process {
            Some(process) => dial_process(process, &path, time).map(Some),
            None => dial(&path)
                .map(Some)
                .map_err(|source| TargetError::Connect {
                    path: path.display().to_string(),
                    source,
                }),
        }
    }

    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }
}

fn dial(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}

fn not_listening(process: &mut Process, exit: Option<Exit>, waited: Duration) -> TargetError {
    let program = process.program().to_owned();
    let hint = process.hint();
    let last = process.last_lines().join("\n");
    match exit {
        Some(exit) => TargetError::Ended {
            program,
            exit,
            hint,
            last,
        },
        None => TargetError::NotListening {
            program,
            waited,
            hint,
            last,
        },
    }
}

/// Connects to a process that is about to listen.
fn dial_process(
    process: &mut Process,
    path: &Path,
    time: Duration,
) -> Result<UnixStream, TargetError> {
    let end = Instant::now() + time;
    loop {
        let found = SOCKETS
            .iter()
            .find_map(|name| dial(&path.with_file_name(name)).ok());
        if let Some(stream) = found {
            return Ok(stream);
        }
        let exit = process.exit_within(Duration::from_millis(2));
        if exit.is_some() || Instant::now() > end {
            return Err(not_listening(process, exit, time));
        }
    }
}
