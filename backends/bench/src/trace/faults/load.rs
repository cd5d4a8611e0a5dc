//! From the command line to faults that can be injected.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use super::file::{FaultFile, FileError};
use super::inject::Faults;
use super::plan::Plan;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the faults {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the faults {} cannot be used", .path.display())]
    File { path: PathBuf, source: FileError },
    #[error(
        "the faults {} are of kicks or calls, which pass the proxy only with --rings", .0.display()
    )]
    NeedsRings(PathBuf),
}

/// The faults of a file, on these devices. Without a seed here and in the file there is a new one.
pub fn load(
    path: &Path,
    seed: Option<u32>,
    devices: Vec<String>,
    has_rings: bool,
) -> Result<Faults, LoadError> {
    let path = path.to_owned();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(LoadError::Read { path, source }),
    };
    let checked = FaultFile::parse(&text).and_then(|file| {
        file.check_devices(&devices)?;
        Ok(file)
    });
    let file = match checked {
        Ok(file) => file,
        Err(source) => return Err(LoadError::File { path, source }),
    };
    // Each hasher of std has random keys.
    let random = || RandomState::new().build_hasher().finish() as u32;
    let seed = seed.or(file.seed).unwrap_or_else(random);
    let plan = Plan::new(file.rules, seed, devices);
    if plan.has_signals() && !has_rings {
        return Err(LoadError::NeedsRings(path));
    }
    Ok(Faults::new(plan))
}
