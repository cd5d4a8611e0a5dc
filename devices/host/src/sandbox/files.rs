//! Which paths can be opened from here on: Landlock (Linux `Documentation/userspace-api/landlock.rst`).
//! Descriptors that are open stay as they are.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

/// The newest interface whose rights are known here, that of Linux 6.15. An older kernel restricts
/// what it can.
const KNOWN: ABI = ABI::V7;

/// The kernel has Landlock and does not do as it is told.
#[derive(Debug, thiserror::Error)]
#[error("the host does not restrict access to files")]
pub struct FilesError(#[from] RulesetError);

/// How much of it the kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforced {
    /// Everything that is known here.
    Fully,
    /// It lacks some rights, which are free then.
    InPart,
    /// It has no Landlock, or has it disabled.
    Not,
}

/// What stays allowed.
#[derive(Clone, Debug, Default)]
pub struct Files {
    readable: Vec<PathBuf>,
    emptied: Vec<PathBuf>,
}

impl Files {
    /// `path`, and what is below it, may be read. One that does not exist is left out.
    pub fn readable(mut self, path: &Path) -> Self {
        self.readable.push(path.to_owned());
        self
    }

    /// `file` may be removed. Landlock has this right for directories only, with all that is below
    /// them.
    pub fn removable(mut self, file: &Path) -> Self {
        let directory = file.parent().filter(|path| !path.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        self.emptied.push(directory.to_owned());
        self
    }

    /// Denies the rest to the calling thread and to those that it starts: all other files,
    /// TCP, abstract Unix sockets of other processes, and signals to them.
    pub fn restrict(&self) -> Result<Enforced, FilesError> {
        let ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(KNOWN))?
            .handle_access(AccessNet::from_all(KNOWN))?
            .scope(Scope::from_all(KNOWN))?
            .create()?
            .add_rules(path_beneath_rules(&self.readable, AccessFs::ReadFile))?
            .add_rules(path_beneath_rules(&self.emptied, AccessFs::RemoveFile))?;
        let RestrictionStatus { ruleset, .. } = ruleset.restrict_self()?;
        Ok(match ruleset {
            RulesetStatus::FullyEnforced => Enforced::Fully,
            RulesetStatus::PartiallyEnforced => Enforced::InPart,
            RulesetStatus::NotEnforced => Enforced::Not,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn kind<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }

    /// In a thread of its own, whose end is the end of the walls.
    #[test]
    fn only_what_was_named_can_be_opened() {
        let dir = tempfile::tempdir().unwrap();
        let in_dir = |name: &str| dir.path().join(name);
        for name in ["open", "readable", "other"] {
            fs::write(in_dir(name), name).unwrap();
        }
        fs::create_dir(in_dir("sockets")).unwrap();
        let socket = in_dir("sockets").join("s");
        fs::write(&socket, "").unwrap();
        let mut open = File::options().append(true).open(in_dir("open")).unwrap();
        let files = Files::default()
            .readable(&in_dir("readable"))
            .readable(&in_dir("missing"))
            .removable(&socket);
        let restricted = || {
            let enforced = files.restrict().unwrap();
            if enforced == Enforced::Not {
                return enforced;
            }
            let denied = Some(ErrorKind::PermissionDenied);
            assert_eq!(kind(File::open(in_dir("other"))), denied);
            assert_eq!(kind(File::create(in_dir("new"))), denied);
            assert_eq!(kind(fs::remove_file(in_dir("other"))), denied);
            assert_eq!(kind(fs::write(in_dir("readable"), "x")), denied);
            if enforced == Enforced::Fully {
                assert_eq!(kind(TcpListener::bind("127.0.0.1:0")), denied);
            }
            let mut text = String::new();
            let mut readable = File::open(in_dir("readable")).unwrap();
            readable.read_to_string(&mut text).unwrap();
            assert_eq!(text, "readable");
            open.write_all(b" still").unwrap();
            fs::remove_file(&socket).unwrap();
            enforced
        };
        let enforced = std::thread::scope(|scope| scope.spawn(restricted).join().unwrap());
        println!("this kernel enforces it: {enforced:?}");
        if enforced != Enforced::Not {
            assert_eq!(fs::read_to_string(in_dir("open")).unwrap(), "open still");
            assert!(!socket.exists());
        }
    }
}
