//! What is logged: chosen at the start, and changed while the machine runs.

use std::sync::OnceLock;

use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload::{self, Handle};

/// The level that is logged by default.
const DEFAULT: LevelFilter = LevelFilter::WARN;

/// Longest filter, in bytes.
const MAX_FILTER: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "log filter {filter:?} cannot be understood; give a level (error, warn, info, debug or \
         trace), or warn,devices=debug, for instance"
    )]
    Syntax {
        filter: String,
        #[source]
        source: ParseError,
    },
    #[error("a log filter has at most {MAX_FILTER} bytes, not {0}")]
    TooLong(usize),
    #[error("nothing is logged yet")]
    NotStarted,
}

/// The filter in force, once logging has started.
static CURRENT: OnceLock<Handle<Targets, Registry>> = OnceLock::new();

/// The filter to start with: `chosen`, or else that of the environment, or the default.
pub fn start(chosen: Option<&str>) -> Result<reload::Layer<Targets, Registry>, Error> {
    let filter = match chosen {
        Some(filter) => parse(filter)?,
        None => from_environment().unwrap_or_else(|| Targets::new().with_default(DEFAULT)),
    };
    let (layer, handle) = reload::Layer::new(filter);
    CURRENT.get_or_init(|| handle);
    Ok(layer)
}

/// Logs by `filter` from here on.
pub fn set(filter: &str) -> Result<(), Error> {
    let filter = parse(filter)?;
    let handle = CURRENT.get().ok_or(Error::NotStarted)?;
    handle.reload(filter).map_err(|_| Error::NotStarted)
}

/// The filter in force, as it can be given again.
pub fn get() -> Option<String> {
    let current = CURRENT.get()?.clone_current()?;
    Some(current.to_string())
}

/// Levels by target. `EnvFilter`, which knows spans and fields too, has regular expressions
/// for them, which are 600 KB of code.
fn parse(filter: &str) -> Result<Targets, Error> {
    if filter.len() > MAX_FILTER {
        return Err(Error::TooLong(filter.len()));
    }
    filter.parse().map_err(|source| Error::Syntax {
        filter: filter.to_owned(),
        source,
    })
}

fn from_environment() -> Option<Targets> {
    let filter = std::env::var("RUST_LOG").ok()?;
    parse(&filter).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_shown_as_it_can_be_given_again() {
        for text in ["warn", "info,devices=trace", "off", "devices::virtio=debug"] {
            let filter = parse(text).unwrap();
            assert_eq!(parse(&filter.to_string()).unwrap(), filter, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let error = parse("warn,devices=loud").unwrap_err().to_string();
        assert!(error.contains("devices=debug, for instance"), "{error}");
        let error = parse(&"a,".repeat(MAX_FILTER)).unwrap_err().to_string();
        assert!(error.contains("at most 1024 bytes, not 2048"), "{error}");
    }
}
