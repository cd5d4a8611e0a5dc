//! Where the programs under test are.

use std::path::{Path, PathBuf};

/// A program or an example of this workspace, beside the running test.
///
/// # Panics
/// It has not been built.
pub fn own(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap_or_else(|error| panic!("no own path: {error}"));
    // target/PROFILE/deps/TEST or target/PROFILE/PROGRAM
    let found = test
        .ancestors()
        .skip(1)
        .take(2)
        .flat_map(|dir| [dir.join(name), dir.join("examples").join(name)])
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "{name} is not built beside {}; run `make build` first",
            test.display()
        )
    })
}

/// A program of the system.
///
/// # Panics
/// It is not installed.
pub fn system(name: &str) -> PathBuf {
    installed(name)
        .unwrap_or_else(|| panic!("{name} is not installed; `make setup` installs what tests need"))
}

fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin", "/usr/libexec"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(extra)
        .map(|dir| dir.join(name))
        .find(|path| is_executable(path))
}

/// Whether the machine that runs the tests is meant to have this program of the system:
/// every machine is, but for the Intel bed, which has a few.
pub fn is_provided(name: &str) -> bool {
    let few = std::env::var_os("OUTBOARD_IN_BED").is_some_and(|bed| bed == "intel");
    !few || installed(name).is_some()
}

/// A program that `make setup` builds into the cache, at `path` there.
///
/// # Panics
/// It has not been built.
pub fn cached(path: &str) -> PathBuf {
    let program = crate::cache().join(path);
    assert!(
        is_executable(&program),
        "{} is not built; run `make setup` first",
        program.display()
    );
    program
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
