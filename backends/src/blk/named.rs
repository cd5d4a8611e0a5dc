//! The files that an image's header names: its backing chain, and an external data file.
//!
//! The author of the header chose them, and they may be any file of the host, so the user says
//! which kind may be opened. They are locked like the image itself.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use imago::file::File as Storage;
use imago::format::Format;
use imago::format::gate::ImplicitOpenGate;
use imago::{FormatAccess, FormatDriverBuilder, StorageOpenOptions};
use thiserror::Error;

use super::lock::{self, Lock, Use};

/// Which of the files that a header names may be opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    /// Backing files, which are only read.
    pub backing_files: bool,
    /// The external data file; it is written unless the disk is read-only.
    pub data_file: bool,
}

/// Why a file that a header names is not used. The image's fault, or its user's.
#[derive(Debug, Error)]
pub enum NamedFileError {
    /// Nobody allowed it.
    #[error("its header names the {kind} {path}; {option} allows that to be opened")]
    NotAllowed {
        /// The header's purpose for it.
        kind: &'static str,
        /// Its path.
        path: PathBuf,
        /// The option that does.
        option: &'static str,
    },
    /// It is its own backing file, directly or not.
    #[error("its backing chain is a loop: {}", Chain(.0))]
    Loop(Vec<PathBuf>),
    /// Another process writes it, or uses it though it is to be written here.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// Its clusters are encrypted, so that the guest could not read them.
    #[error("{path} is encrypted ({method}), which is not supported")]
    Encrypted {
        /// The encrypted image.
        path: PathBuf,
        /// How.
        method: &'static str,
    },
}

impl From<NamedFileError> for io::Error {
    fn from(error: NamedFileError) -> Self {
        io::Error::other(error)
    }
}

struct Chain<'a>(&'a [PathBuf]);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, path) in self.0.iter().enumerate() {
            let arrow = if i > 0 { " -> " } else { "" };
            write!(f, "{arrow}{}", path.display())?;
        }
        Ok(())
    }
}

/// A file, whatever it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

/// Opens the files that the header of one image names; [`Gate::open_format`] makes the gate of the
/// next image.
#[derive(Debug)]
pub struct Gate {
    allowed: Allowed,
    is_locked: bool,
    read_only: bool,
    /// The images from the top of the chain down to this one.
    chain: Vec<(Identity, PathBuf)>,
    /// The method of encryption that the file opened last would have as a qcow2 image.
    encryption: Option<&'static str>,
}

impl Gate {
    /// The gate of the image in `file`, which was opened at `path`.
    pub fn new(
        file: &File,
        path: &Path,
        read_only: bool,
        is_locked: bool,
        allowed: Allowed,
    ) -> io::Result<Self> {
        refuse_encrypted(encryption(file)?, path)?;
        Ok(Gate {
            allowed,
            is_locked,
            read_only,
            chain: vec![(identity(file)?, path.to_owned())],
            encryption: None,
        })
    }

    fn check_allowed(&self, path: &Path, is_data: bool) -> Result<(), NamedFileError> {
        let (is_allowed, kind, option) = match is_data {
            true => (self.allowed.data_file, "data file", "--data-file"),
            false => (
                self.allowed.backing_files,
                "backing file",
                "--backing-files",
            ),
        };
        if is_allowed {
            return Ok(());
        }
        Err(NamedFileError::NotAllowed {
            kind,
            path: path.to_owned(),
            option,
        })
    }

    /// Appends the file at `path` to the chain, unless it is in it.
    fn extend_chain(&mut self, file: &File, path: &Path) -> io::Result<()> {
        let identity = identity(file)?;
        let is_known = self.chain.iter().any(|(known, _)| *known == identity);
        self.chain.push((identity, path.to_owned()));
        if is_known {
            let paths = self.chain.iter().map(|(_, path)| path.clone());
            return Err(NamedFileError::Loop(paths.collect()).into());
        }
        Ok(())
    }
}

impl ImplicitOpenGate<Storage> for Gate {
    fn open_format<F: FormatDriverBuilder<Storage>>(
        &mut self,
        builder: F,
    ) -> io::Result<FormatAccess<Storage>> {
        let path = builder.get_image_path().unwrap_or_default();
        if F::FORMAT == Format::Qcow2 {
            refuse_encrypted(self.encryption.take(), &path)?;
        }
        let below = Gate {
            allowed: self.allowed,
            is_locked: self.is_locked,
            read_only: true,
            chain: self.chain.clone(),
            encryption: None,
        };
        Ok(FormatAccess::new(builder.open(below)?))
    }

    fn open_storage(&mut self, options: StorageOpenOptions) -> io::Result<Storage> {
        let path = options.get_filename().unwrap_or(Path::new("")).to_owned();
        // Only a data file is ever asked for with write access, that of a backing file included.
        let is_data = options.get_writable();
        self.check_allowed(&path, is_data)?;
        let write = is_data && !self.read_only;
        let file = OpenOptions::new().read(true).write(write).open(&path)?;
        if !is_data {
            self.extend_chain(&file, &path)?;
            self.encryption = encryption(&file)?;
        }
        let purpose = if write { Use::Write } else { Use::Read };
        if self.is_locked && lock::take(&file, purpose) == Lock::InUse {
            return Err(NamedFileError::InUse(path).into());
        }
        Storage::from_open_file(file, options.write(write))
    }
}

fn identity(file: &File) -> io::Result<Identity> {
    let metadata = file.metadata()?;
    Ok(Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

/// The field `crypt_method` of a qcow2 header, at offset 32 (`docs/interop/qcow2.rst` of QEMU).
/// Bytes that are no header have no method.
fn encryption(file: &File) -> io::Result<Option<&'static str>> {
    const MAGIC: &[u8] = b"QFI\xfb";
    let mut header = [0; 36];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => (),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let method = u32::from_be_bytes([header[32], header[33], header[34], header[35]]);
    Ok(match method {
        _ if !header.starts_with(MAGIC) => None,
        0 => None,
        1 => Some("AES"),
        2 => Some("LUKS"),
        _ => Some("with an unknown method"),
    })
}

fn refuse_encrypted(method: Option<&'static str>, path: &Path) -> Result<(), NamedFileError> {
    match method {
        None => Ok(()),
        Some(method) => Err(NamedFileError::Encrypted {
            path: path.to_owned(),
            method,
        }),
    }
}

#[cfg(test)]
#[path = "named_test.rs"]
mod tests;
