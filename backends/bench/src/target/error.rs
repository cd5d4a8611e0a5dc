//! Why there is no connection to a backend.

use std::io;
use std::time::Duration;

use super::exit::Exit;

/// How long a process may take to listen.
pub const START: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("nobody accepts a connection on {path}; start the backend, or again if it has ended")]
    Connect {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{program} cannot be started")]
    Start {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("{program} did not listen within {waited:?}{hint}: {last}")]
    NotListening {
        program: String,
        waited: Duration,
        hint: &'static str,
        last: String,
    },
    #[error("{program} ended ({exit}) and listens no more{hint}: {last}")]
    Ended {
        program: String,
        exit: Exit,
        hint: &'static str,
        last: String,
    },
    #[error("the host refused what a process needs")]
    Host(#[from] io::Error),
}
