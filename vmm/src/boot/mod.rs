//! Loading a kernel and telling it about the machine.
//!
//! Three forms of kernel, three protocols: an ELF file with a PVH note starts by
//! the PVH protocol, and in 32 bits must have one; any other ELF file and a bzImage
//! start by the 64-bit boot protocol of Linux, a bzImage of 32 bits by the 32-bit one.

mod acpi;
mod entry;
mod error;
mod initrd;
mod kept;
mod kernel;
mod linux;
mod memory_map;
mod pvh;
mod ram_reader;
mod reset_vector;
mod source;

use std::path::PathBuf;

use devices::virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use crate::layout;

pub use acpi::{SLEEP_TYPE_OFF, VirtioSlot};
pub use entry::{Entry, set_registers};
pub use error::Error;
use kept::Kept;
pub use kernel::Error as KernelError;
pub use source::{ReloadError, Source};

/// The kernel to boot, and its boot data.
#[derive(Clone, Debug)]
pub struct Config {
    pub kernel: PathBuf,
    pub initrd: Option<PathBuf>,
    pub cmdline: String,
    pub cpus: u8,
    pub devices: Vec<VirtioSlot>,
}

/// The files of a [`Config`].
struct Files {
    kernel: Kept,
    initrd: Option<Kept>,
}

impl Files {
    /// Reads them, for a machine with so much RAM.
    fn read(config: &Config, ram: u64) -> Result<Self, Error> {
        let kernel = kernel::read(&config.kernel, ram)?;
        let initrd = config.initrd.as_deref();
        let initrd = initrd.map(|path| initrd::read(path, ram)).transpose()?;
        Ok(Self { kernel, initrd })
    }

    /// Makes them independent of later changes to the user's files.
    fn keep(&self) -> Result<(), Error> {
        for file in std::iter::once(&self.kernel).chain(&self.initrd) {
            file.keep().map_err(|source| Error::Keep {
                path: file.path().to_owned(),
                source,
            })?;
        }
        Ok(())
    }
}

/// Puts kernel, initrd, command line, tables and boot parameters into guest RAM. Can
/// be done again after a reset.
fn load(memory: &GuestMemory, config: &Config, files: &Files) -> Result<Entry, Error> {
    let kernel = kernel::load(memory, &files.kernel)?;
    let initrd = files.initrd.as_ref();
    let initrd = initrd
        .map(|initrd| initrd::load(memory, initrd, &kernel))
        .transpose()?;
    write_cmdline(memory, &config.cmdline)?;
    acpi::write(memory, config.cpus, &config.devices)?;
    reset_vector::write(memory)?;
    match kernel.entry {
        Entry::Pvh { .. } => pvh::write(memory, initrd)?,
        Entry::Linux32 { .. } | Entry::Linux64 { .. } => {
            linux::write(memory, &kernel, initrd, &config.cmdline)?;
        }
    }
    entry::write_tables(memory, kernel.entry)?;
    Ok(kernel.entry)
}

fn write_cmdline(memory: &GuestMemory, cmdline: &str) -> Result<(), Error> {
    if cmdline.len() >= layout::CMDLINE_MAX {
        return Err(Error::CmdlineTooLong { len: cmdline.len() });
    }
    if cmdline.contains('\0') {
        return Err(Error::CmdlineNul);
    }
    memory.write_slice(cmdline.as_bytes(), layout::CMDLINE)?;
    let end = GuestAddress(layout::CMDLINE.0 + cmdline.len() as u64);
    memory.write_obj(0u8, end)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::path::Path;

    use super::*;
    use crate::memory;

    /// A 64-bit ELF kernel that is one page of `byte`.
    fn kernel(byte: u8) -> Vec<u8> {
        let mut elf = kernel::tests::elf(0x20_0000, 0x1000, 0x1000);
        let len = elf.len();
        elf[len - 0x1000..].fill(byte);
        elf
    }

    fn source(kernel: &Path, initrd: Option<&Path>) -> Result<Source, Error> {
        let config = Config {
            kernel: kernel.to_owned(),
            initrd: initrd.map(Path::to_owned),
            cmdline: String::new(),
            cpus: 1,
            devices: Vec::new(),
        };
        Source::read(config, memory::MIN_SIZE)
    }

    /// The byte at the kernel's address after a boot.
    fn booted(source: &Source) -> u8 {
        let memory = memory::allocate(memory::MIN_SIZE).unwrap();
        source.load(&memory).unwrap();
        memory.read_obj(GuestAddress(0x20_0000)).unwrap()
    }

    #[test]
    fn what_was_booted_boots_again_whatever_has_become_of_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let [path, initrd] = ["kernel", "initrd"].map(|name| dir.path().join(name));
        std::fs::write(&path, kernel(1)).unwrap();
        std::fs::write(&initrd, b"first").unwrap();
        let source = source(&path, Some(&initrd)).unwrap();
        assert_eq!(booted(&source), 1);
        source.keep().unwrap();
        // In place, as a build does that copies.
        std::fs::write(&path, &kernel(2)[..0x1800]).unwrap();
        std::fs::write(&initrd, b"").unwrap();
        assert_eq!(booted(&source), 1);
        assert!(source.reload().is_err(), "half a kernel");
        assert_eq!((booted(&source), source.reloads()), (1, 0));
        std::fs::write(&path, kernel(2)).unwrap();
        assert!(source.reload().is_err(), "no initrd");
        std::fs::write(&initrd, b"second").unwrap();
        source.reload().unwrap();
        assert_eq!((booted(&source), source.reloads()), (2, 1));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(booted(&source), 2);
        assert!(source.reload().is_err());
        assert_eq!(booted(&source), 2);
    }

    #[test]
    fn an_initrd_may_come_through_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel");
        std::fs::write(&path, kernel(1)).unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"piped").unwrap();
        drop(writer);
        let initrd = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let source = source(&path, Some(Path::new(&initrd))).unwrap();
        for _ in 0..2 {
            let memory = memory::allocate(memory::MIN_SIZE).unwrap();
            source.load(&memory).unwrap();
            let mut found = [0; 6];
            let addr = GuestAddress(memory::MIN_SIZE - 0x1000);
            memory.read_slice(&mut found, addr).unwrap();
            assert_eq!(&found, b"piped\0");
        }
    }

    #[test]
    fn files_without_end_or_contents_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel");
        std::fs::write(&path, kernel(1)).unwrap();
        for (initrd, part) in [
            ("/dev/zero", "no end"),
            ("/dev/null", "is empty"),
            ("/", "cannot read"),
        ] {
            let error = source(&path, Some(Path::new(initrd)))
                .map(|_| ())
                .unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        let endless = source(Path::new("/dev/zero"), None)
            .map(|_| ())
            .unwrap_err();
        assert!(endless.to_string().contains("no end"), "{endless}");
    }
}
