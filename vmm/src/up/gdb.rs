//! `outboard gdb`: starts gdb on a machine that `outboard up` has started.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::cli::GdbArgs;
use super::error::Error;
use super::machines;

/// In the machine's directory.
pub const SOCKET: &str = "gdb";
const PROGRAM: &str = "gdb";
/// The kernel's own commands, which gdb loads with vmlinux if it may.
const SCRIPTS: &str = "vmlinux-gdb.py";

/// Becomes gdb. Returns only if that fails.
pub fn attach(args: &GdbArgs) -> Error {
    let found = machines::base().and_then(|base| machines::find(&base, args.name.as_deref()));
    let (dir, description) = match found {
        Ok(found) => found,
        Err(error) => return error,
    };
    let words = words(&dir, description.vmlinux.as_deref(), &args.arguments);
    let source = Command::new(PROGRAM).args(words).exec();
    let program = PROGRAM.into();
    Error::Start { program, source }
}

fn words(dir: &Path, vmlinux: Option<&Path>, more: &[String]) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["-q".into()];
    if let Some(vmlinux) = vmlinux {
        let scripts = vmlinux.with_file_name(SCRIPTS);
        if scripts.exists() {
            let command = format!(
                "add-auto-load-safe-path {}",
                vmlinux.with_file_name("").display()
            );
            words.extend(["-iex".into(), command.into()]);
        }
        words.push(vmlinux.into());
    }
    let target = format!("target remote {}", dir.join(SOCKET).display());
    words.extend(["-ex".into(), target.into()]);
    words.extend(more.iter().map(Into::into));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gdb_gets_what_the_tree_has() {
        let tree = tempfile::tempdir().unwrap();
        let vmlinux = tree.path().join("vmlinux");
        let shown = |vmlinux| {
            let words = words(Path::new("/run/m"), vmlinux, &["-ex".into(), "bt".into()]);
            let words = words.iter().map(|word| word.to_str().unwrap().to_owned());
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(None), "-q -ex target remote /run/m/gdb -ex bt");
        let text = shown(Some(&vmlinux));
        assert!(!text.contains("-iex"), "{text}");
        std::fs::write(tree.path().join(SCRIPTS), "").unwrap();
        let text = shown(Some(&vmlinux));
        assert!(text.contains("-iex add-auto-load-safe-path /"), "{text}");
    }
}
