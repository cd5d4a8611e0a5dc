//! Why a command gives no backend.

use std::io;
use std::process::ExitStatus;

/// Why a command gives no backend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot start {program:?}; it has to be a path, or the name of a program in PATH or beside outboard"
    )]
    Start {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot prepare {what}")]
    Host {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("it ended before it served the device ({status}){}{hint}", said(.last_line))]
    Ended {
        status: ExitStatus,
        last_line: Option<String>,
        hint: &'static str,
    },
}

fn said(last_line: &Option<String>) -> String {
    last_line
        .as_ref()
        .map_or(String::new(), |line| format!(": {line}"))
}
