//! Where the programs under test are.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// Writes a shell script that can be started at once. Another process writes it: a file that
/// this one had open, and that a child of another test inherited for the time until its exec,
/// would be refused as busy.
pub fn write_script(path: &Path, text: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"cat >"$0" && chmod 755 "$0""#]);
    let child = shell.arg(path).stdin(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("sh: {error}"));
    let mut input = child.stdin.take().unwrap_or_else(|| unreachable!("piped"));
    let written = input.write_all(format!("#!/bin/sh\n{text}\n").as_bytes());
    drop(input);
    let status = child.wait();
    assert!(
        written.is_ok() && status.is_ok_and(|status| status.success()),
        "{} cannot be written",
        path.display()
    );
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
