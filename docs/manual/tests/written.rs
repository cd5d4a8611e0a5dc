//! What is written, as its readers take it: groff, mandoc, and the shells.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn written() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut manual = Command::new(env!("CARGO_BIN_EXE_outboard-manual"));
    let output = manual
        .arg(dir.path())
        .args(["--date", "2026-12-01"])
        .output();
    assert!(output.unwrap().status.success());
    dir
}

/// `make setup` installs the program.
fn run(program: &str, args: &[&str], file: &Path) -> Output {
    let output = Command::new(program).args(args).arg(file).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}; `make setup` installs it"))
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn pages(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir.join("man/man1")).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

#[test]
fn groff_and_mandoc_have_no_fault_to_find() {
    let dir = written();
    let pages = pages(dir.path());
    assert!(pages.len() > 10, "{pages:?}");
    for page in pages {
        // A device's syntax is one long word.
        let groff = run(
            "groff",
            &["-k", "-ww", "-man", "-Tutf8", "-rLL=100n", "-z"],
            &page,
        );
        assert_eq!(text(&groff), "", "{}", page.display());
        let mandoc = run("mandoc", &["-T", "lint", "-W", "warning"], &page);
        // clap_mangen has an empty line above possible values, which mandoc calls needless.
        let found = text(&mandoc);
        let mut found = found
            .lines()
            .filter(|line| !line.contains("skipping paragraph macro"));
        assert_eq!(found.next(), None, "{}", page.display());
    }
}

/// The words that `shell` offers after a command line, by a script that has the file's path as its
/// first argument.
fn offered(shell: &str, script: &str, file: &Path) -> Vec<String> {
    let mut command = Command::new(shell);
    let output = command.args(["-c", script, shell]).arg(file).output();
    let output =
        output.unwrap_or_else(|error| panic!("{shell}: {error}; `make setup` installs it"));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shell}");
    let words = String::from_utf8(output.stdout).unwrap();
    let words = words
        .split_whitespace()
        .map(|word| word.trim_end_matches('\r').to_owned());
    words.collect()
}

fn assert_offers(offered: &[String], words: &[&str]) {
    for word in words {
        assert!(offered.iter().any(|it| it == word), "{word} in {offered:?}");
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let dir = written();
    let file = |name| dir.path().join("bash-completion/completions").join(name);
    // Called as bash calls it, by the name that the file has given it.
    let after = |words: &str| {
        format!(
            "source \"$1\"; COMP_WORDS=({words} ''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             set -- $(complete -p \"${{COMP_WORDS[0]}}\"); while [[ $1 != -F ]]; do shift; done; \
             $2 \"${{COMP_WORDS[0]}}\" '' \"${{COMP_WORDS[COMP_CWORD-1]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
    };
    let outboard = file("outboard");
    let first = offered("bash", &after("outboard"), &outboard);
    assert_offers(&first, &["run", "doctor", "ctl", "new-backend"]);
    let ctl = offered("bash", &after("outboard ctl"), &outboard);
    assert_offers(&ctl, &["--api", "status", "restart"]);
    let action = after("outboard run --on-reboot");
    assert_offers(&offered("bash", &action, &outboard), &["reset", "exit"]);
    let blk = offered("bash", &after("outboard-blk"), &file("outboard-blk"));
    assert_offers(&blk, &["--path", "--socket"]);
}

#[test]
fn fish_completes_commands_and_options() {
    let dir = written();
    let file = dir.path().join("fish/vendor_completions.d/outboard.fish");
    let after = |line: &str| format!("source $argv[2]; complete --do-complete '{line}'");
    let first = offered("fish", &after("outboard "), &file);
    assert_offers(&first, &["run", "doctor", "ctl", "new-backend"]);
    let options = offered("fish", &after("outboard run --on"), &file);
    assert_offers(&options, &["--on-reboot", "--on-panic"]);
}

/// Types a line and Tab in a zsh on a terminal of its own, as its user does. Completions are
/// printed instead of shown, between two marks.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "PROMPT=; fpath=(${1:h} \$fpath); autoload -Uz compinit; compinit -D -u"
zpty -w z 'compadd() {
    [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]] && { builtin compadd "$@"; return }
    local -a hits; builtin compadd -A hits "$@"; print -l -- $hits }'
zpty -w z 'bounded() { print -r -- "BE""GIN"; zle complete-word; print -r -- "E""ND" }'
zpty -w z 'zle -C complete-word complete-word _main_complete; zle -N bounded; bindkey "^I" bounded'
zpty -w z 'print -r -- "REA""DY"'
zpty -r -m z line '*READY*'
zpty -w -n z "$LINE_TO_COMPLETE"$'\t'
zpty -r -m z line '*END*'
print -r -- ${${line##*BEGIN}%%END*}
zpty -d z
"#;

#[test]
fn zsh_completes_commands_and_options() {
    let dir = written();
    let file = dir.path().join("zsh/site-functions/_outboard");
    let after = |line: &str| ZSH.replace("$LINE_TO_COMPLETE", line);
    let first = offered("zsh", &after("outboard "), &file);
    assert_offers(&first, &["run", "doctor", "ctl", "new-backend"]);
    let options = offered("zsh", &after("outboard run --on"), &file);
    assert_offers(&options, &["--on-reboot", "--on-panic"]);
}
