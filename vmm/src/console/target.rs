//! The targets that the serial port can be connected to, and the errors.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use host_io::sockets::BindError;

/// Where the serial port goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The terminal, or whatever standard input and output are.
    #[default]
    Stdio,
    /// Nowhere.
    None,
    /// A new pseudo-terminal, whose name is printed.
    Pty,
    /// Output to a file, created or truncated.
    File(PathBuf),
    /// A Unix socket on which one client at a time is served.
    Unix(PathBuf),
}

/// A `--serial` argument that is none of the forms.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("serial target {0:?} is not known; use stdio, none, pty, file=PATH or unix=PATH")]
pub struct ParseError(String);

impl FromStr for Target {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let unknown = || ParseError(text.to_owned());
        Ok(match text.split_once('=') {
            None => match text {
                "stdio" => Target::Stdio,
                "none" => Target::None,
                "pty" => Target::Pty,
                _ => return Err(unknown()),
            },
            Some((_, "")) => return Err(unknown()),
            Some(("file", path)) => Target::File(path.into()),
            Some(("unix", path)) => Target::Unix(path.into()),
            Some(_) => return Err(unknown()),
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot set up the terminal for the serial console")]
    Terminal(#[source] io::Error),
    #[error("cannot use standard input and output for the serial console")]
    Stdio(#[source] io::Error),
    #[error("cannot make an eventfd for the serial console")]
    EventFd(#[source] io::Error),
    #[error("cannot open a pseudo-terminal for the serial console")]
    Pty(#[source] io::Error),
    #[error("cannot write the serial console to {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen for the serial console on {}", path.display())]
    Listen {
        path: PathBuf,
        #[source]
        source: BindError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_parse() {
        assert_eq!("stdio".parse(), Ok(Target::Stdio));
        assert_eq!("file=/tmp/a=b".parse(), Ok(Target::File("/tmp/a=b".into())));
        assert_eq!("unix=/run/s".parse(), Ok(Target::Unix("/run/s".into())));
        for bad in ["", "tty", "file", "file=", "unix=", "pty=x"] {
            let error = bad.parse::<Target>().unwrap_err();
            assert!(error.to_string().contains("use stdio, none, pty"), "{bad}");
        }
    }
}
