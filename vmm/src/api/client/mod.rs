//! `outboard ctl`: sends a command to a running machine.

mod connection;
mod tables;

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode, utf8_percent_encode};
use serde_json::Value;

use super::explain::Report;
use crate::cli::{CtlArgs, CtlCommand};
pub use connection::Error;
use connection::{ask, ask_text, ask_within, follow};

/// Carries out one command, and writes what it prints.
pub fn run(args: &CtlArgs, out: &mut impl Write) -> Result<(), Error> {
    let text = match &args.command {
        CtlCommand::Events => return events(args, out),
        CtlCommand::Metrics if args.json => {
            let text = "metrics are in Prometheus' form; `status --json` has these counters too";
            return Err(Error::Refused(text.to_owned()));
        }
        CtlCommand::Metrics => ask_text(&args.api, "/metrics")?,
        command => {
            let answer = carry_out(&args.api, command)?;
            match args.json {
                true => format!("{answer:#}"),
                false => text(command, &answer),
            }
        }
    };
    writeln!(out, "{}", text.trim_end()).map_err(Error::Output)
}

/// The machine's answer.
fn carry_out(api: &Path, command: &CtlCommand) -> Result<Value, Error> {
    let post = |target: &str| ask(api, "POST", target);
    match command {
        CtlCommand::Status => ask(api, "GET", "/v1/status"),
        CtlCommand::Pause => post("/v1/pause"),
        CtlCommand::Resume => post("/v1/resume"),
        CtlCommand::Log { filter: None } => ask(api, "GET", "/v1/log"),
        CtlCommand::Log {
            filter: Some(filter),
        } => {
            let filter = utf8_percent_encode(filter, NON_ALPHANUMERIC);
            ask(api, "PUT", &format!("/v1/log?filter={filter}"))
        }
        CtlCommand::Nmi => post("/v1/nmi"),
        CtlCommand::Reset { reload: false } => post("/v1/reset"),
        CtlCommand::Reset { reload: true } => post("/v1/reload"),
        CtlCommand::Shutdown => post("/v1/shutdown"),
        CtlCommand::DetachGdb => post("/v1/debugger/detach"),
        CtlCommand::Dump { compress, file } => dump(api, *compress, file),
        CtlCommand::Restart { id } => post(&device(id, "restart")),
        CtlCommand::Disconnect { id } => post(&device(id, "disconnect")),
        CtlCommand::Connect { id } => post(&device(id, "connect")),
        // Answered by `run`.
        CtlCommand::Events | CtlCommand::Metrics => Ok(Value::Null),
    }
}

/// A request about one device.
fn device(id: &str, what: &str) -> String {
    let name = utf8_percent_encode(id, NON_ALPHANUMERIC);
    format!("/v1/devices/{name}/{what}")
}

/// An answer as people read it.
fn text(command: &CtlCommand, answer: &Value) -> String {
    let string = |key: &str| answer[key].as_str().unwrap_or_default();
    match command {
        CtlCommand::Status => tables::status(answer),
        CtlCommand::Log { .. } => format!("log: {}", string("filter")),
        CtlCommand::Dump { file, .. } => format!("{}: {}", file.display(), string("text")),
        CtlCommand::Restart { id } => {
            let (time, status) = (&answer["milliseconds"], string("status"));
            format!("{id}: restarted in {time} ms, device status {status}")
        }
        CtlCommand::Disconnect { id } => {
            format!("{id}: disconnected, device status {}", string("status"))
        }
        CtlCommand::Connect { id } => {
            let (time, status) = (&answer["milliseconds"], string("status"));
            format!("{id}: connected in {time} ms, device status {status}")
        }
        CtlCommand::Pause => "pause: done".into(),
        CtlCommand::Resume => "resume: done".into(),
        CtlCommand::Nmi => "nmi: done".into(),
        CtlCommand::Reset { reload: false } => "reset: done".into(),
        CtlCommand::Reset { reload: true } => "reload: done".into(),
        CtlCommand::Shutdown => "shutdown: done".into(),
        CtlCommand::DetachGdb => "detach-gdb: done".into(),
        CtlCommand::Events | CtlCommand::Metrics => String::new(),
    }
}

/// Prints what happens, until the machine ends.
fn events(args: &CtlArgs, out: &mut impl Write) -> Result<(), Error> {
    follow(&args.api, "/v1/events", |data| {
        let line = match args.json {
            true => data.to_owned(),
            false => tables::event(&serde_json::from_str(data).unwrap_or_default()),
        };
        writeln!(out, "{line}")
            .and_then(|()| out.flush())
            .map_err(Error::Output)
    })
}

/// The machine writes the file, and may do so in another directory.
fn dump(api: &Path, compress: bool, file: &Path) -> Result<Value, Error> {
    let path = std::path::absolute(file)?;
    let path = percent_encode(path.as_os_str().as_bytes(), NON_ALPHANUMERIC);
    let format = if compress { "kdump" } else { "elf" };
    let target = format!("/v1/dump?file={path}&format={format}");
    // As long as the disk takes.
    ask_within(None, api, "POST", &target)
}

/// Asks what is wrong with the machine's devices, or with one, and returns it as text.
pub fn explain(path: &Path, id: Option<&str>) -> Result<String, Error> {
    let target = id.map_or("/v1/explain".to_owned(), |id| device(id, "explain"));
    let answer = ask(path, "GET", &target)?;
    let report: Report = serde_json::from_value(answer).map_err(|_| Error::NotTheApi {
        path: path.to_owned(),
    })?;
    Ok(report.text())
}
