//! The initial RAM disk: the first process with the libraries that it is linked to, the modules
//! that it loads, and its job. The format is newc (Linux, `buffer-format.rst`).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use cpio::newc;

use super::error::Error;
use guest_init::job::{self, Job};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const DATA: u32 = 0o100_644;

/// What is in one, each name below the root without a slash before it.
pub struct Initramfs<'a> {
    /// The program that becomes `/init`.
    pub init: &'a Path,
    pub modules: &'a [PathBuf],
    pub job: &'a Job,
}

impl Initramfs<'_> {
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::Write {
            path: path.to_owned(),
            source,
        };
        let file = io::BufWriter::new(File::create(path).map_err(failed)?);
        let mut archive = Archive::new(file);
        archive
            .add_file("init", PROGRAM, &read(self.init)?)
            .map_err(failed)?;
        for library in libraries(self.init).map_err(failed)? {
            let name = library.strip_prefix("/").unwrap_or(&library);
            archive
                .add_file(&name.to_string_lossy(), PROGRAM, &read(&library)?)
                .map_err(failed)?;
        }
        for (module, name) in self.modules.iter().zip(&self.job.modules) {
            let name = format!("{}/{name}", job::MODULES);
            archive
                .add_file(&name, DATA, &read(module)?)
                .map_err(failed)?;
        }
        let job = serde_json::to_vec(self.job).map_err(|error| failed(error.into()))?;
        archive.add_file(job::FILE, DATA, &job).map_err(failed)?;
        archive.finish().map_err(failed)
    }
}

/// The libraries that `program` is linked to, the dynamic linker among them, where it looks for
/// them: what ldd prints. A program that is linked statically says something else, or nothing.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let mut command = Command::new(program);
    let output = command.env("LD_TRACE_LOADED_OBJECTS", "1").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

/// An archive under construction, with the directories that its files need.
struct Archive<W: Write> {
    writer: Option<W>,
    directories: BTreeSet<PathBuf>,
    files: u32,
}

impl<W: Write> Archive<W> {
    fn new(writer: W) -> Self {
        Self {
            writer: Some(writer),
            directories: BTreeSet::new(),
            files: 0,
        }
    }

    fn add_file(&mut self, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        let parents: Vec<_> = Path::new(name).ancestors().skip(1).collect();
        for parent in parents.into_iter().rev() {
            let is_root = parent.as_os_str().is_empty();
            if !is_root && self.directories.insert(parent.to_owned()) {
                self.add(&parent.to_string_lossy(), DIRECTORY, &[])?;
            }
        }
        self.add(name, mode, bytes)
    }

    fn add(&mut self, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        let Some(writer) = self.writer.take() else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        self.files += 1;
        let size = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let entry = newc::Builder::new(name).mode(mode).nlink(1).ino(self.files);
        let mut entry = entry.write(writer, size);
        entry.write_all(bytes)?;
        self.writer = Some(entry.finish()?);
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        match self.writer.take() {
            Some(writer) => newc::trailer(writer)?.flush(),
            None => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}
