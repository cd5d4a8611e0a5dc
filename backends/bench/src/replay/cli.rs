//! `outboard replay`.

use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::lane::Lane;
use super::player::{PlayError, Player};
use super::report;
use super::rules::{Ignore, Rules};
use super::survey::{Survey, SurveyError};
use crate::recording::{ReadError, Reader};
use crate::target::Target;

/// Between two lines of progress on a terminal.
const PROGRESS: Duration = Duration::from_millis(100);

#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// A recording of `outboard record`.
    file: PathBuf,
    #[command(flatten)]
    place: Place,
    /// Compare with the answers of this backend, not with the recorded ones: where it listens, or
    /// a command.
    #[arg(long, value_name = "SOCKET|COMMAND")]
    against: Option<String>,
    /// Do not compare: content of answers (but for a status), their length, the order of
    /// completion.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    ignore: Vec<Ignore>,
    /// How fast.
    #[arg(long, value_enum, default_value_t = Pace::Fast)]
    pace: Pace,
    /// How the result is written to standard output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Where the backend is.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Place {
    /// Connect to a backend that listens there.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Start a backend; its socket goes where the command has {fd}, {listen-fd} or {socket}.
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pace {
    /// As fast as the backend answers.
    Fast,
    /// Requests come when they came, or later.
    Recorded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("{}", .path.display())]
    Open { path: PathBuf, source: ReadError },
    #[error("{}", .path.display())]
    Survey { path: PathBuf, source: SurveyError },
    #[error("the command cannot be used: {0}")]
    Command(String),
    #[error(transparent)]
    Play(#[from] PlayError),
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
}

/// Replays, and prints what came of it. Says whether all answers were the same.
pub fn run(args: &ReplayArgs) -> Result<bool, ReplayError> {
    let (is_equal, text) = replay(args)?;
    print(&text)?;
    Ok(is_equal)
}

/// Replays. Says whether all answers were the same, and what there is to tell.
pub fn replay(args: &ReplayArgs) -> Result<(bool, String), ReplayError> {
    let mut reader = open(&args.file)?;
    let device_type = reader.header().device_type();
    let rules = Rules::new(device_type, &args.ignore);
    let survey = Survey::of(&mut reader, rules.clone());
    let survey = survey.map_err(|source| ReplayError::Survey {
        path: args.file.clone(),
        source,
    })?;
    let lanes = lanes(args, &survey)?;
    let is_against = lanes.len() > 1;
    let player = Player::new(device_type, rules, lanes, args.pace == Pace::Recorded);
    let mut progress = Progress::new(survey.requests, args.format);
    let outcome = player.play(&mut open(&args.file)?, &mut |count| progress.show(count));
    progress.clear();
    let mut outcome = outcome?;
    if survey.is_cut_short {
        let note = "the recording ends within a record; what is before that was replayed";
        outcome.notes.push(note.into());
    }
    let text = match args.format {
        Format::Text => report::text(&outcome, is_against),
        Format::Json => report::json(&outcome),
    };
    Ok((outcome.is_equal(), text))
}

fn open(path: &Path) -> Result<Reader, ReplayError> {
    Reader::open(path).map_err(|source| ReplayError::Open {
        path: path.to_owned(),
        source,
    })
}

fn lanes(args: &ReplayArgs, survey: &Survey) -> Result<Vec<Lane>, ReplayError> {
    let command = |text: &str| Target::command(text).map_err(ReplayError::Command);
    let target = match (&args.place.socket, &args.place.exec) {
        (Some(path), _) => Target::Socket(path.clone()),
        (None, text) => command(text.as_deref().unwrap_or_default())?,
    };
    let mut lanes = Vec::new();
    if let Some(other) = &args.against {
        let target = match is_socket(other) {
            true => Target::Socket(other.into()),
            false => command(other)?,
        };
        lanes.push(Lane::new("the other backend", target, survey));
    }
    lanes.push(Lane::new("the backend", target, survey));
    Ok(lanes)
}

fn is_socket(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

fn print(text: &str) -> Result<(), ReplayError> {
    let mut output = io::stdout().lock();
    let written = output.write_all(text.as_bytes());
    match written.and_then(|()| output.flush()) {
        // A reader that closes standard output early has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ReplayError::Print(error)),
        _ => Ok(()),
    }
}

/// A line on a terminal that counts requests.
struct Progress {
    requests: u64,
    is_shown: bool,
    last: Instant,
}

impl Progress {
    fn new(requests: u64, format: Format) -> Self {
        Self {
            requests,
            is_shown: format == Format::Text && io::stderr().is_terminal(),
            last: Instant::now(),
        }
    }

    fn show(&mut self, count: u64) {
        if self.is_shown && self.last.elapsed() >= PROGRESS {
            self.last = Instant::now();
            // Without a reader it is nobody's loss.
            let _ = write!(io::stderr(), "\r\x1b[K[{count}/{}]", self.requests);
        }
    }

    fn clear(&self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
