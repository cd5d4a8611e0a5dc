//! Where frontends come from, and what is seen of them.

use std::fmt;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use host_io::command::{CommandLine, Handover};

use super::device::Device;
use super::error::SourceError;
use super::history::{History, Milestone};
use super::listen::Listen;
use super::offer::Offer;
use super::player::{End, Limits, Player};
use super::scene::Scene;
use super::script::Script;
use crate::driver::{MessageLog, wait_readable};
use crate::target::{Exit, GRACE, Process};

/// Where frontends come from.
#[derive(Clone, Debug)]
pub enum FrontendSource {
    /// Somebody else starts one.
    Listen(Listen),
    /// A process is started for each look at it, which connects to `{socket}`.
    Command { text: String, line: CommandLine },
}

/// What was seen of a frontend from its start to its end.
#[derive(Debug)]
pub struct Observation {
    pub history: History,
    pub log: MessageLog,
    /// How it ended; `None` where it is not this program's, or had to be killed.
    pub exit: Option<Exit>,
    /// It is a process of this program's that did not end when it was asked to.
    pub is_stuck: bool,
    /// Its last lines.
    pub output: Vec<String>,
    pub time: Duration,
}

/// How long a process may take to connect.
const CONNECT: Duration = Duration::from_secs(20);
/// How long a frontend may take to connect again.
const RECONNECT: Duration = Duration::from_secs(3);
/// How long a frontend may take to end when it is asked to.
const FAREWELL: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);

impl FrontendSource {
    pub fn command(text: &str) -> Result<Self, String> {
        let line = CommandLine::parse(text)?;
        if line.handover != Handover::Path {
            return Err(
                "the frontend's command needs {socket} where it takes the path of the \
                        backend's socket"
                    .into(),
            );
        }
        let text = text.to_owned();
        Ok(Self::Command { text, line })
    }

    /// Whether a frontend can be started again.
    pub fn restarts(&self) -> bool {
        matches!(self, Self::Command { .. })
    }

    /// Serves a frontend until the limits are reached and it has ended. One that somebody else
    /// has started is served until it leaves.
    pub fn observe(
        &self,
        offer: &Offer,
        script: Script,
        limits: &Limits,
    ) -> Result<Observation, SourceError> {
        let mut scene = Scene {
            offer,
            script,
            device: Device::new(offer.device_type),
            history: History::default(),
            log: MessageLog::new(Some(offer.device_type)),
        };
        let begun = Instant::now();
        match self {
            Self::Listen(listen) => {
                listen.serve(&mut scene, limits)?;
                Ok(observation(scene, None, begun))
            }
            Self::Command { line, .. } => {
                let process = serve_command(line, &mut scene, limits)?;
                Ok(observation(scene, Some(process), begun))
            }
        }
    }
}

/// As options of a command line.
impl fmt::Display for FrontendSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
        f.write_str("--frontend ")?;
        match self {
            Self::Listen(listen) => {
                write!(
                    f,
                    "--listen {}",
                    quote(&listen.path().display().to_string())
                )
            }
            Self::Command { text, .. } => write!(f, "--exec {}", quote(text)),
        }
    }
}

fn observation(scene: Scene, process: Option<Process>, begun: Instant) -> Observation {
    let is_ours = process.is_some();
    let (exit, output) = match process {
        Some(mut process) => {
            let exit = process.finish(GRACE);
            (exit, process.last_lines())
        }
        None => (None, Vec::new()),
    };
    Observation {
        is_stuck: is_ours && (exit.is_none() || scene.history.is_outlived()),
        history: scene.history,
        log: scene.log,
        exit,
        output,
        time: begun.elapsed(),
    }
}

/// Starts a frontend and serves one connection of it after another.
fn serve_command(
    line: &CommandLine,
    scene: &mut Scene,
    limits: &Limits,
) -> Result<Process, SourceError> {
    let dir = tempfile::Builder::new()
        .prefix("outboard-check-")
        .tempdir()?;
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    let mut process = Process::start(line, &path.to_string_lossy(), None::<&UnixStream>)?;
    let Some(mut stream) = accept(&listener, &mut process, CONNECT)? else {
        return Err(SourceError::NotConnected {
            patience: CONNECT,
            last: process.last_lines().join("\n"),
        });
    };
    loop {
        let end = serve_one(stream, scene, limits, &mut process);
        if end == End::Over {
            return Ok(process);
        }
        match accept(&listener, &mut process, RECONNECT)? {
            Some(next) => stream = next,
            None => return Ok(process),
        }
    }
}

/// Serves a connection; when it has been long enough, asks the frontend to end, and serves on.
fn serve_one(stream: UnixStream, scene: &mut Scene, limits: &Limits, process: &mut Process) -> End {
    let mut player = Player::new(stream, scene);
    let end = player.serve(limits, || true);
    if end != End::Over {
        return end;
    }
    player.dismiss();
    process.ask_to_end();
    let farewell = Limits {
        goal: Milestone::Completed,
        linger: FAREWELL,
        idle: FAREWELL,
        total: FAREWELL,
    };
    let asked = Instant::now();
    player.serve(&farewell, || process.exit_within(Duration::ZERO).is_none());
    // The connection stays: to close it would help one that waits for a reply.
    let left = FAREWELL.saturating_sub(asked.elapsed());
    if process.exit_within(left).is_none() {
        player.outlived();
    }
    End::Over
}

/// The next connection; `None` when the process has ended or none has come for so long.
fn accept(
    listener: &UnixListener,
    process: &mut Process,
    patience: Duration,
) -> io::Result<Option<UnixStream>> {
    let begun = Instant::now();
    loop {
        if wait_readable(listener, LOOK)? {
            let (stream, _) = listener.accept()?;
            return Ok(Some(stream));
        }
        let has_ended = process.exit_within(Duration::ZERO).is_some();
        if has_ended || begun.elapsed() >= patience {
            return Ok(None);
        }
    }
}
