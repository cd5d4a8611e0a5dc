//! Finds a kernel and what belongs to it: in the tree where it was built, as an image, or that
//! of this host.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::error::Error;

const BZIMAGE: &str = "arch/x86/boot/bzImage";
const VMLINUX: &str = "vmlinux";
const RELEASE: &str = "include/config/kernel.release";
/// Offset of `kernel_version` in the setup header; it points to a string, 0x200 bytes short
/// (Linux boot protocol).
const KERNEL_VERSION: u64 = 0x20e;
const VERSION_BASE: u64 = 0x200;
const MAX_VERSION: u64 = 256;

/// A kernel to boot.
#[derive(Debug, PartialEq, Eq)]
pub struct Kernel {
    pub image: PathBuf,
    pub release: String,
    pub modules: Modules,
    /// With symbols for gdb.
    pub vmlinux: Option<PathBuf>,
}

/// Where the kernel's modules are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Modules {
    /// In the tree where they were built.
    Tree(PathBuf),
    /// Below `/lib/modules/RELEASE`, or such a directory elsewhere.
    Installed(PathBuf),
}

impl Modules {
    pub fn dir(&self) -> &Path {
        match self {
            Self::Tree(dir) | Self::Installed(dir) => dir,
        }
    }
}

impl Kernel {
    /// `path` is a kernel tree or an image; without it, the kernel that this host runs.
    pub fn find(path: Option<&Path>) -> Result<Self, Error> {
        match path {
            Some(tree) if tree.is_dir() => Self::in_tree(tree),
            Some(image) => Self::of_image(image),
            None => Self::of_host(),
        }
    }

    fn in_tree(tree: &Path) -> Result<Self, Error> {
        let tree = tree.canonicalize().map_err(read(tree))?;
        let image = tree.join(BZIMAGE);
        if !image.is_file() {
            return Err(Error::NotBuilt { tree });
        }
        let release = tree.join(RELEASE);
        let release = fs::read_to_string(&release).map_err(read(&release))?;
        let vmlinux = tree.join(VMLINUX);
        Ok(Self {
            image,
            release: release.trim().to_owned(),
            vmlinux: vmlinux.is_file().then_some(vmlinux),
            modules: Modules::Tree(tree),
        })
    }

    /// With the tree around it, if it lies in one; else with installed modules, of its own root
    /// first (`ROOT/boot/vmlinuz`, `ROOT/lib/modules`).
    fn of_image(image: &Path) -> Result<Self, Error> {
        let image = image.canonicalize().map_err(read(image))?;
        let tree = image.ancestors().find(|dir| image == dir.join(BZIMAGE));
        if let Some(tree) = tree {
            return Self::in_tree(tree);
        }
        let release = version(&image)?;
        let own_root = image.parent().and_then(Path::parent);
        let roots = own_root.into_iter().chain([Path::new("/")]);
        let dirs = roots.map(|root| root.join("lib/modules").join(&release));
        let mut dirs: Vec<PathBuf> = dirs.collect();
        let found = dirs
            .iter()
            .position(|dir| dir.is_dir())
            .unwrap_or(dirs.len() - 1);
        Ok(Self {
            image,
            release,
            modules: Modules::Installed(dirs.swap_remove(found)),
            vmlinux: None,
        })
    }

    fn of_host() -> Result<Self, Error> {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy();
        let path = PathBuf::from(format!("/boot/vmlinuz-{release}"));
        if path.is_file() {
            Self::of_image(&path)
        } else {
            Err(Error::NoHostKernel { path })
        }
    }
}

fn read(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |source| Error::Read {
        path: path.to_owned(),
        source,
    }
}

/// The release that a bzImage says it is of.
fn version(image: &Path) -> Result<String, Error> {
    let text = version_text(image).map_err(read(image))?;
    let release = text.split_whitespace().next().filter(|release| {
        // A part of the path of its modules.
        release.starts_with(|first: char| first.is_ascii_digit()) && !release.contains('/')
    });
    let path = image.to_owned();
    release.map(str::to_owned).ok_or(Error::NoVersion { path })
}

fn version_text(image: &Path) -> io::Result<String> {
    let mut file = File::open(image)?;
    let mut offset = [0; 2];
    file.seek(SeekFrom::Start(KERNEL_VERSION))?;
    file.read_exact(&mut offset)?;
    let offset = u64::from(u16::from_le_bytes(offset));
    file.seek(SeekFrom::Start(VERSION_BASE + offset))?;
    let mut text = Vec::new();
    file.take(MAX_VERSION).read_to_end(&mut text)?;
    let end = text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(text.len());
    Ok(String::from_utf8_lossy(&text[..end]).into_owned())
}

#[cfg(test)]
#[path = "kernel_test.rs"]
mod tests;
