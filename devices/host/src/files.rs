//! Files without a name, and files that only their owner may read.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

const PRIVATE: u32 = 0o600;

/// Creates or empties a file for what others must not read, as a guest's data. A pipe or a
/// device that is there stays as it is.
pub fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    let file = options.mode(PRIVATE).open(path)?;
    if file.metadata()?.is_file() {
        // Before there is anything in it: of a file that is there, the mode is another.
        file.set_permissions(Permissions::from_mode(PRIVATE))?;
        file.set_len(0)?;
    }
    Ok(file)
}

/// An anonymous file of `len` zero bytes, which is called `name` in /proc. Nobody can change its
/// size: truncation would kill a process that accesses the missing part of a mapping (SIGBUS).
pub fn sealed_memfd(name: &str, len: u64) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create(name, flags)?);
    file.set_len(len)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_private_file_is_for_its_owner_even_if_it_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        create_private(&path).unwrap();
        assert_eq!(mode(), 0o600);
        fs::write(&path, "before").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        create_private(&path).unwrap();
        assert_eq!((mode(), fs::read(&path).unwrap()), (0o600, vec![]));
        create_private(Path::new("/dev/null")).unwrap();
    }

    #[test]
    fn nobody_changes_the_size() {
        let file = sealed_memfd("test", 4096).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 4096);
        assert!(file.set_len(0).is_err());
        assert!(file.set_len(8192).is_err());
        assert!(fcntl_add_seals(&file, SealFlags::WRITE).is_err());
    }
}
