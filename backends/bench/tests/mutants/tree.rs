//! Backends with all breaks built in, each behind a switch.
//!
//! The sources are copied, and in the copy `old` becomes `if on(N) { new } else { old }`. So the
//! breaks cost one build in all, and the sources themselves have no trace of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::list::Mutant;

/// The environment variable that has the number of the break that is on.
pub const SWITCH: &str = "OUTBOARD_MUTANT";

const SWITCH_CODE: &str = r#"
/// Whether this break is on.
pub fn mutant(number: usize) -> bool {
    static ON: std::sync::OnceLock<Option<usize>> = std::sync::OnceLock::new();
    let on = || std::env::var("OUTBOARD_MUTANT").ok()?.parse().ok();
    *ON.get_or_init(on) == Some(number)
}
"#;

/// The breaks of one file: what they replace, with numbers and replacements.
type Breaks<'m> = BTreeMap<&'m str, Vec<(usize, &'m str)>>;

/// Crates that the copy needs, below the root of the checkout.
const CRATES: [&str; 3] = ["backends", "devices/wire", "devices/host"];

/// Builds the programs; the directory where they are.
pub fn build(mutants: &[Mutant]) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants");
    copy(&root, mutants);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "build",
        "--offline",
        "--quiet",
        "--package",
        "backends",
        "--bins",
    ]);
    cargo
        .current_dir(&root)
        .env("CARGO_TARGET_DIR", root.join("target"));
    // Breaks leave unused names behind.
    cargo.env("RUSTFLAGS", "--cap-lints=allow");
    let status = cargo.status().expect("cargo can be started");
    assert!(
        status.success(),
        "the broken backends do not build: {status}"
    );
    root.join("target/debug")
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn copy(root: &Path, mutants: &[Mutant]) {
    let checkout = checkout();
    let manifest = fs::read_to_string(checkout.join("Cargo.toml")).unwrap();
    write(&root.join("Cargo.toml"), &with_members(&manifest));
    let lock = fs::read_to_string(checkout.join("Cargo.lock")).unwrap();
    if !root.join("Cargo.lock").exists() {
        write(&root.join("Cargo.lock"), &lock);
    }
    let mut breaks = by_file(mutants);
    for name in CRATES {
        let (from, to) = (checkout.join(name), root.join(name));
        let manifest = fs::read_to_string(from.join("Cargo.toml")).unwrap();
        write(&to.join("Cargo.toml"), &without_tests(&manifest));
        for file in sources(&from.join("src")) {
            let below = file.strip_prefix(from.join("src")).unwrap();
            let mut text = fs::read_to_string(&file).unwrap();
            if name == "backends" {
                if let Some(breaks) = breaks.remove(below) {
                    text = broken(text, below, &breaks);
                }
                if below == Path::new("lib.rs") {
                    text.push_str(SWITCH_CODE);
                }
            }
            write(&to.join("src").join(below), &text);
        }
    }
    assert!(breaks.is_empty(), "no such files: {:?}", breaks.keys());
}

/// The breaks of each file, with their numbers, by what they replace.
fn by_file(mutants: &[Mutant]) -> BTreeMap<PathBuf, Breaks<'_>> {
    let mut files: BTreeMap<_, Breaks<'_>> = BTreeMap::new();
    for (number, mutant) in mutants.iter().enumerate() {
        let file = files.entry(PathBuf::from(&mutant.file)).or_default();
        let place = file.entry(mutant.old.trim()).or_default();
        place.push((number, mutant.new.trim()));
    }
    files
}

/// The text with breaks and switches at their places.
fn broken(mut text: String, path: &Path, breaks: &Breaks<'_>) -> String {
    let krate = match path.starts_with("bin") {
        true => "backends",
        false => "crate",
    };
    for (old, news) in breaks {
        let count = text.matches(old).count();
        assert_eq!(count, 1, "{}: {old:?} has to be there once", path.display());
        let branches = news
            .iter()
            .map(|(number, new)| format!("if {krate}::mutant({number}) {{ {new} }} else "));
        let switch = format!("{}{{ {old} }}", branches.collect::<String>());
        let is_statement = old.ends_with(';');
        let switch = match is_statement {
            true => switch,
            false => format!("({switch})"),
        };
        text = text.replace(old, &switch);
    }
    text
}

fn with_members(manifest: &str) -> String {
    let mut table: toml::Table = manifest.parse().unwrap();
    let members = CRATES.map(toml::Value::from);
    table["workspace"]["members"] = toml::Value::Array(members.to_vec());
    table.to_string()
}

/// The manifest without what the tests alone need.
fn without_tests(manifest: &str) -> String {
    let mut table: toml::Table = manifest.parse().unwrap();
    for key in ["bench", "test", "dev-dependencies"] {
        table.remove(key);
    }
    table.to_string()
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(sources(&path)),
            false => files.push(path),
        }
    }
    files
}

/// Writes a file, unless it is like that already: cargo rebuilds what is newer.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return;
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}
