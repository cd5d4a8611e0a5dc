//! `outboard ctl`: sends a command to a running machine.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode, utf8_percent_encode};
use serde_json::Value;

use super::explain::Report;
use crate::cli::{CtlArgs, CtlCommand};

/// Longer than any command takes but a dump.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longest answer, in bytes.
const MAX_ANSWER: u64 = 16 << 20;
const MAX_FIELDS: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot ask the machine at {}; it has to be started with --api and this path", path.display())]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the machine did not answer")]
    Io(#[from] io::Error),
    #[error("what answered at {} is not a machine's control API", path.display())]
    NotTheApi { path: PathBuf },
    #[error("{0}")]
    Refused(String),
}

/// Carries out one command and returns what to print.
pub fn run(args: &CtlArgs) -> Result<String, Error> {
    match &args.command {
        CtlCommand::Status => {
            let answer = ask(&args.api, "GET", "/v1/status")?;
            Ok(format!("{answer:#}"))
        }
        CtlCommand::Pause => change(&args.api, "pause"),
        CtlCommand::Resume => change(&args.api, "resume"),
        CtlCommand::Metrics => metrics(&args.api),
        CtlCommand::Log { filter } => {
            let answer = match filter {
                None => ask(&args.api, "GET", "/v1/log")?,
                Some(filter) => {
                    let filter = utf8_percent_encode(filter, NON_ALPHANUMERIC);
                    ask(&args.api, "PUT", &format!("/v1/log?filter={filter}"))?
                }
            };
            let filter = answer["filter"].as_str().unwrap_or_default();
            Ok(format!("log: {filter}"))
        }
        CtlCommand::Nmi => change(&args.api, "nmi"),
        CtlCommand::Reset { reload: false } => change(&args.api, "reset"),
        CtlCommand::Reset { reload: true } => change(&args.api, "reload"),
        CtlCommand::Shutdown => change(&args.api, "shutdown"),
        CtlCommand::DetachGdb => {
            ask(&args.api, "POST", "/v1/debugger/detach")?;
            Ok("detach-gdb: done".to_owned())
        }
        CtlCommand::Dump { compress, file } => dump(&args.api, *compress, file),
        CtlCommand::Restart { id } => {
            let name = utf8_percent_encode(id, NON_ALPHANUMERIC);
            let answer = ask(&args.api, "POST", &format!("/v1/devices/{name}/restart"))?;
            let (time, status) = (&answer["milliseconds"], &answer["status"]);
            let status = status.as_str().unwrap_or_default();
            Ok(format!(
                "{id}: restarted in {time} ms, device status {status}"
            ))
        }
    }
}

/// The machine writes the file, and may do so in another directory.
fn dump(api: &Path, compress: bool, file: &Path) -> Result<String, Error> {
    let path = std::path::absolute(file)?;
    let path = percent_encode(path.as_os_str().as_bytes(), NON_ALPHANUMERIC);
    let format = if compress { "kdump" } else { "elf" };
    let target = format!("/v1/dump?file={path}&format={format}");
    // As long as the disk takes.
    let answer = ask_within(None, api, "POST", &target)?;
    let text = answer["text"].as_str().unwrap_or_default();
    Ok(format!("{}: {text}", file.display()))
}

/// Asks what is wrong with the machine's devices, or with one, and returns it as text.
pub fn explain(path: &Path, device: Option<&str>) -> Result<String, Error> {
    let target = device.map_or("/v1/explain".to_owned(), |id| {
        let name = utf8_percent_encode(id, NON_ALPHANUMERIC);
        format!("/v1/devices/{name}/explain")
    });
    let answer = ask(path, "GET", &target)?;
    let report: Report = serde_json::from_value(answer).map_err(|_| Error::NotTheApi {
        path: path.to_owned(),
    })?;
    Ok(report.text())
}

/// The machine's counters, as they came.
fn metrics(path: &Path) -> Result<String, Error> {
    let bytes = exchange(Some(DEADLINE), path, "GET", "/metrics")?;
    let not_the_api = || Error::NotTheApi {
        path: path.to_owned(),
    };
    let (code, body) = parse(&bytes).ok_or_else(not_the_api)?;
    match std::str::from_utf8(body) {
        Ok(text) if code == 200 => Ok(text.trim_end().to_owned()),
        _ => Err(not_the_api()),
    }
}

/// A command whose answer only says that it was done.
fn change(path: &Path, command: &str) -> Result<String, Error> {
    ask(path, "POST", &format!("/v1/{command}"))?;
    Ok(format!("{command}: done"))
}

fn ask(path: &Path, method: &str, target: &str) -> Result<Value, Error> {
    ask_within(Some(DEADLINE), path, method, target)
}

fn ask_within(
    deadline: Option<Duration>,
    path: &Path,
    method: &str,
    target: &str,
) -> Result<Value, Error> {
    let bytes = exchange(deadline, path, method, target)?;
    let not_the_api = || Error::NotTheApi {
        path: path.to_owned(),
    };
    let (code, body) = parse(&bytes).ok_or_else(not_the_api)?;
    let body: Value = serde_json::from_slice(body).map_err(|_| not_the_api())?;
    match body.get("error").and_then(Value::as_str) {
        None if code == 200 => Ok(body),
        Some(text) => Err(Error::Refused(text.to_owned())),
        None => Err(not_the_api()),
    }
}

/// Sends a request, and returns all that comes back.
fn exchange(
    deadline: Option<Duration>,
    path: &Path,
    method: &str,
    target: &str,
) -> Result<Vec<u8>, Error> {
    let mut stream = UnixStream::connect(path).map_err(|source| Error::Connect {
        path: path.to_owned(),
        source,
    })?;
    stream.set_read_timeout(deadline)?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let request =
        format!("{method} {target} HTTP/1.1\r\nHost: outboard\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The code of an answer, and its body.
fn parse(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(bytes).ok()? else {
        return None;
    };
    Some((response.code?, &bytes[head..]))
}
