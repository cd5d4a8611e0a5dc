//! Machines that have names: each has a directory, which only its owner can enter, with its
//! sockets. A machine that was killed leaves one that the next of its name takes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::error::Error;

const PRIVATE: u32 = 0o700;
const LOCK: &str = "lock";
const DESCRIPTION: &str = "machine.json";
const MAX_NAME: usize = 64;

/// What `outboard gdb` and `outboard shell` have to know.
#[derive(Debug, Serialize, Deserialize)]
pub struct Description {
    /// With symbols, if there is one.
    pub vmlinux: Option<PathBuf>,
    /// Further shells can be had.
    pub has_shells: bool,
}

/// The directory of a machine that is about to run.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Locked as long as the machine is there.
    _lock: File,
}

impl Directory {
    /// Takes the name `wanted`, or, if it is taken and the user has not asked for it, one with a
    /// number behind it.
    pub fn take(base: &Path, wanted: &str, is_asked: bool) -> Result<Self, Error> {
        check(wanted)?;
        let numbered = (2..).map(|number| format!("{wanted}-{number}"));
        for name in [wanted.to_owned()].into_iter().chain(numbered) {
            let path = base.join(&name);
            let written = |source| Error::Write {
                path: path.clone(),
                source,
            };
            make_private(&path)?;
            match lock(&path).map_err(written)? {
                Some(lock) => {
                    empty(&path).map_err(written)?;
                    return Ok(Self { path, _lock: lock });
                }
                None if is_asked => return Err(Error::Taken { name }),
                None => {}
            }
        }
        Err(Error::Taken {
            name: wanted.to_owned(),
        })
    }

    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn describe(&self, description: &Description) -> Result<(), Error> {
        let path = self.path.join(DESCRIPTION);
        let text = serde_json::to_vec(description).map_err(io::Error::from);
        let written = text.and_then(|text| fs::write(&path, text));
        written.map_err(|source| Error::Write { path, source })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // The next machine of this name empties what stays.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The machine called `name`, or without a name the only one.
pub fn find(base: &Path, name: Option<&str>) -> Result<(PathBuf, Description), Error> {
    let mut running = running(base);
    let name = match name {
        Some(name) if running.iter().any(|known| known == name) => name.to_owned(),
        Some(name) => {
            let name = name.to_owned();
            return Err(Error::NoMachine { name, running });
        }
        None if running.len() == 1 => running.remove(0),
        None => return Err(Error::Which { running }),
    };
    let dir = base.join(name);
    let path = dir.join(DESCRIPTION);
    let text = fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
    match text {
        Ok(description) => Ok((dir, description)),
        Err(source) => Err(Error::Read { path, source }),
    }
}

/// Names of all machines of this user that run.
fn running(base: &Path) -> Vec<String> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let is_locked = |dir: &Path| {
        let lock = File::open(dir.join(LOCK));
        lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
    };
    let running = entries.filter(|entry| is_locked(&entry.path()));
    let names = running.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Where the machines of this user are, made if it is not there.
pub fn base() -> Result<PathBuf, Error> {
    let user = rustix::process::getuid();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    let base = match runtime {
        Some(dir) => PathBuf::from(dir).join("outboard"),
        None if user.is_root() => PathBuf::from("/run/outboard"),
        None => std::env::temp_dir().join(format!("outboard-{}", user.as_raw())),
    };
    make_private(&base)?;
    Ok(base)
}

/// A directory that is there has to be this user's own.
fn make_private(path: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().mode(PRIVATE).create(path);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::Write {
                path: path.to_owned(),
                source: error,
            });
        }
        _ => {}
    }
    let found = fs::symlink_metadata(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let is_own = found.uid() == rustix::process::getuid().as_raw();
    if found.is_dir() && is_own && found.mode() & 0o077 == 0 {
        Ok(())
    } else {
        Err(Error::NotPrivate {
            path: path.to_owned(),
        })
    }
}

/// Locked until it is dropped; nothing if somebody else has it, or has just removed it.
fn lock(dir: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    let path = dir.join(LOCK);
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    let is_there = fs::metadata(&path).is_ok_and(|there| {
        let own = file.metadata();
        own.is_ok_and(|own| own.ino() == there.ino())
    });
    Ok(is_there.then_some(file))
}

/// All but the lock.
fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn check(name: &str) -> Result<(), Error> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if starts_well && name.len() <= MAX_NAME && name.bytes().all(is_allowed) {
        Ok(())
    } else {
        let name = name.to_owned();
        Err(Error::Name { name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Description = Description {
        vmlinux: None,
        has_shells: false,
    };

    fn base() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_name_that_is_taken_is_numbered_unless_it_was_asked_for() {
        let base = base();
        let take = |asked| Directory::take(base.path(), "linux", asked);
        let first = take(true).unwrap();
        assert!(matches!(take(true), Err(Error::Taken { .. })));
        let second = take(false).unwrap();
        assert_eq!(
            (first.name(), second.name()),
            ("linux".into(), "linux-2".into())
        );
        drop(first);
        assert_eq!(take(true).unwrap().name(), "linux");
    }

    #[test]
    fn what_a_killed_machine_has_left_is_removed() {
        let base = base();
        let dir = base.path().join("linux");
        make_private(&dir).unwrap();
        fs::write(dir.join(LOCK), "").unwrap();
        fs::write(dir.join("gdb"), "").unwrap();
        fs::create_dir(dir.join("answer")).unwrap();
        let taken = Directory::take(base.path(), "linux", true).unwrap();
        assert_eq!(fs::read_dir(taken.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_machines_that_run_are_found() {
        let base = base();
        make_private(&base.path().join("stale")).unwrap();
        assert!(matches!(find(base.path(), None), Err(Error::Which { .. })));
        let one = Directory::take(base.path(), "one", true).unwrap();
        one.describe(&NONE).unwrap();
        assert_eq!(find(base.path(), None).unwrap().0, one.path());
        assert_eq!(find(base.path(), Some("one")).unwrap().0, one.path());
        let error = find(base.path(), Some("stale")).unwrap_err().to_string();
        assert!(error.ends_with("these do: one"), "{error}");
        let _two = Directory::take(base.path(), "two", true).unwrap();
        let error = find(base.path(), None).unwrap_err().to_string();
        assert!(error.ends_with("one, two"), "{error}");
    }

    #[test]
    fn a_name_is_no_path() {
        let base = base();
        for name in ["", "..", "a/b", "-x", &"n".repeat(65)] {
            let error = Directory::take(base.path(), name, true).unwrap_err();
            assert!(matches!(error, Error::Name { .. }), "{name}");
        }
    }

    #[test]
    fn a_directory_of_others_is_not_used() {
        let base = base();
        let dir = base.path().join("linux");
        DirBuilder::new().mode(0o755).create(&dir).unwrap();
        let error = Directory::take(base.path(), "linux", true).unwrap_err();
        assert!(matches!(error, Error::NotPrivate { .. }), "{error}");
    }
}
