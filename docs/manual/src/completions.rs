//! Completions, each in the folder below `share` where its shell looks for them.

use clap::Command;
use clap_complete::{Shell, generate};

const FOLDERS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions"),
    (Shell::Zsh, "zsh/site-functions"),
    (Shell::Fish, "fish/vendor_completions.d"),
];

/// A file for one shell.
pub struct Script {
    pub path: String,
    pub text: Vec<u8>,
}

/// What completes the command line of `program`.
pub fn scripts(program: &Command) -> Vec<Script> {
    let name = program.get_name();
    let script = |(shell, folder)| {
        let mut text = Vec::new();
        generate(shell, &mut program.clone(), name, &mut text);
        Script {
            path: format!("{folder}/{}", file_name(shell, name)),
            text,
        }
    };
    FOLDERS.into_iter().map(script).collect()
}

/// The shells load a file by its name when the program is first completed.
fn file_name(shell: Shell, program: &str) -> String {
    match shell {
        Shell::Zsh => format!("_{program}"),
        Shell::Fish => format!("{program}.fish"),
        _ => program.to_owned(),
    }
}
