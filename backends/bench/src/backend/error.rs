//! What keeps a frontend from being looked at.

use std::io;
use std::time::Duration;

use host_io::sockets::BindError;

use crate::target::TargetError;

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{path} cannot be listened on")]
    Listen {
        path: String,
        #[source]
        source: BindError,
    },
    #[error("the frontend cannot be started")]
    Start(#[from] TargetError),
    #[error("the frontend did not connect within {patience:?}: {last}")]
    NotConnected { patience: Duration, last: String },
    #[error("stopped before a frontend that sends something has connected to {path}")]
    NobodyCame { path: String },
    #[error("the host refused what is needed")]
    Host(#[from] io::Error),
}
