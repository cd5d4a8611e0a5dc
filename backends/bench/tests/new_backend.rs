//! What `outboard new-backend` writes builds, passes its own tests, and passes `make check`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use clap::Parser;
use workbench::new_backend::{NewBackendArgs, NewBackendError, run};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: NewBackendArgs,
}

fn new_backend(words: &[&str]) -> Result<PathBuf, NewBackendError> {
    let words = ["new-backend"].iter().chain(words);
    run(&Cli::try_parse_from(words).unwrap().args)
}

/// A new crate, in a directory that is the test's alone.
fn crate_of(name: &str, device_type: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("new-backend")
        .join(name);
    if path.exists() {
        fs::remove_dir_all(&path).unwrap();
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = path.to_str().unwrap();
    new_backend(&[name, "--type", device_type, "--path", text]).unwrap()
}

/// Runs `make` in the crate. All crates share what they have in common.
fn make(path: &Path, goal: &str) -> Output {
    let target = path.with_file_name("target");
    let mut make = Command::new("make");
    make.arg(goal).current_dir(path);
    make.env("CARGO_TARGET_DIR", target)
        .env("CARGO_NET_OFFLINE", "true")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_INCREMENTAL", "0")
        .env("OUTBOARD_CHECK", env!("CARGO_BIN_EXE_outboard-check"));
    // A make that runs this test has other goals.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    make.output().expect("make can be started")
}

fn passes(path: &Path, goal: &str) {
    let begun = Instant::now();
    let output = make(path, goal);
    let time = begun.elapsed().as_secs();
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    println!("{}: make {goal} took {time} s", path.display());
    assert!(output.status.success(), "make {goal}:\n{out}\n{err}");
}

/// One after another: they build into one directory, and their checks have deadlines.
#[test]
fn new_backends_pass_their_tests_and_checks() {
    for (name, device_type) in [("new-rng", "rng"), ("new-blk", "blk"), ("new-echo", "63")] {
        let path = crate_of(name, device_type);
        passes(&path, "test");
        passes(&path, "check");
    }
}

#[test]
fn every_placeholder_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    for device_type in ["rng", "blk", "63"] {
        let path = dir.path().join(device_type);
        let text = path.to_str().unwrap();
        new_backend(&["some-device", "--type", device_type, "--path", text]).unwrap();
        for file in files(&path) {
            let text = fs::read_to_string(&file).unwrap();
            // GitHub's own have a space behind the braces.
            let left = text
                .match_indices("{{")
                .find(|(at, _)| !text[at + 2..].starts_with(' '));
            assert_eq!(left, None, "{}", file.display());
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| match path.is_dir() {
        true => files(&path),
        false => vec![path],
    };
    entries.flat_map(below).collect()
}

fn refusal(words: &[&str]) -> String {
    let error = new_backend(words).unwrap_err();
    assert!(error.is_bad_usage());
    error.to_string()
}

#[test]
fn a_name_that_is_no_crate_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    for (name, reason) in [
        ("", "does not begin with a letter"),
        ("3d", "does not begin with a letter"),
        ("a/b", "has other characters"),
        ("dé", "has other characters"),
        ("match", "a word of Rust"),
        ("backends", "name of a crate that it uses"),
    ] {
        let text = refusal(&[name, "--type", "rng", "--path", path.to_str().unwrap()]);
        assert!(text.contains(reason), "{text}");
        assert!(!path.exists());
    }
}

#[test]
fn a_directory_that_exists_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let text = refusal(&["a", "--type", "rng", "--path", dir.path().to_str().unwrap()]);
    assert!(
        text.ends_with("exists already; give another directory with --path"),
        "{text}"
    );
    assert_eq!(files(dir.path()), [] as [PathBuf; 0]);
}

#[test]
fn a_kit_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let (path, kit) = (path.to_str().unwrap(), dir.path().to_str().unwrap());
    let text = refusal(&["a", "--type", "rng", "--path", path, "--kit", kit]);
    assert!(text.contains("has no backend kit"), "{text}");
    assert!(!Path::new(path).exists());
}

#[test]
fn an_unknown_type_is_refused() {
    let error = Cli::try_parse_from(["new-backend", "a", "--type", "dice"])
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(text.contains("no virtio device type \"dice\""), "{text}");
}
