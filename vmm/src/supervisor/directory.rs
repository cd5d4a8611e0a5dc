//! Directories for the sockets of supervised backends.
//!
//! A VMM that is killed leaves its own behind. Each VMM holds a lock on each of its directories
//! while it uses it, so that the next one finds those of the dead, and removes them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Once;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::process::geteuid;
use tempfile::TempDir;

const PREFIX: &str = "outboard-backend-";
/// How often another VMM may take a new directory for one of the dead.
const TRIES: usize = 16;

/// A directory that only this user can enter. Dropping it removes it with what is in it.
pub struct SocketDirectory {
    directory: TempDir,
    _lock: OwnedFd,
}

impl SocketDirectory {
    /// One where temporary files go. The first call removes those of the dead there.
    pub fn new() -> io::Result<Self> {
        static LOOKED: Once = Once::new();
        let parent = std::env::temp_dir();
        LOOKED.call_once(|| remove_abandoned(&parent));
        Self::inside(&parent)
    }

    fn inside(parent: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            let builder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent);
            let directory = builder?;
            // Until it is locked it may be taken for one of the dead.
            if let Ok(lock) = lock(directory.path(), FlockOperation::LockExclusive)
                && directory.path().exists()
            {
                let _lock = lock;
                return Ok(Self { directory, _lock });
            }
        }
        Err(io::Error::other("other processes remove it"))
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn lock(directory: &Path, operation: FlockOperation) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let descriptor = open(directory, flags, Mode::empty())?;
    flock(&descriptor, operation)?;
    Ok(descriptor)
}

/// Removes this user's directories that nobody has locked. What cannot be removed hinders nobody.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_named_so = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes());
        let is_ours = || {
            let metadata = fs::symlink_metadata(entry.path());
            metadata.is_ok_and(|it| it.is_dir() && it.uid() == geteuid().as_raw())
        };
        if is_named_so
            && is_ours()
            && let Ok(_lock) = lock(&entry.path(), FlockOperation::NonBlockingLockExclusive)
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_the_dead_go_and_others_stay() {
        let parent = tempfile::tempdir().unwrap();
        let living = SocketDirectory::inside(parent.path()).unwrap();
        let dead = parent.path().join("outboard-backend-dead");
        let strange = parent.path().join("outboard-else");
        let file = parent.path().join("outboard-backend-file");
        for directory in [&dead, &strange] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("backend.sock"), "").unwrap();
        }
        fs::write(&file, "").unwrap();
        remove_abandoned(parent.path());
        assert!(living.path().exists() && strange.exists() && file.exists());
        assert!(!dead.exists());
        let path = living.path().to_owned();
        drop(living);
        assert!(!path.exists());
    }

    /// One that finds out the other's directory between the other's mkdir(2) and flock(2).
    #[test]
    fn those_that_look_and_those_that_begin_do_not_disturb_each_other() {
        let parent = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let own = SocketDirectory::inside(parent.path()).unwrap();
                        remove_abandoned(parent.path());
                        assert!(own.path().exists());
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
