//! What `make install` installs, as systemd and management programs read it, and `make uninstall`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::{program, scratch};

use crate::host::provides;

/// Runs a script of `vmm/packaging/`, which has to succeed without a word.
fn packaging(script: &str, arguments: &[&Path]) -> String {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vmm/packaging");
    run(Command::new(scripts.join(script)).args(arguments))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    assert_eq!(errors, "", "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// An installation, and the stage that it was copied from.
struct Installation {
    stage: PathBuf,
    prefix: PathBuf,
}

impl Installation {
    fn new(directory: &Path) -> Self {
        let (stage, prefix) = (directory.join("stage"), directory.join("usr"));
        let built = program::own("outboard");
        packaging("stage", &[&stage, &prefix, built.parent().unwrap()]);
        let installed = stage.join(prefix.strip_prefix("/").unwrap());
        run(Command::new("cp").arg("-R").arg(installed).arg(&prefix));
        Self { stage, prefix }
    }

    fn files(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        collect(&self.prefix, &mut found);
        found
    }
}

fn collect(directory: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            found.insert(path);
        }
    }
}

/// systemd looks at a unit with the name of an instance.
fn instances(installation: &Installation, directory: &Path) -> Vec<PathBuf> {
    let units = installation.prefix.join("lib/systemd/system");
    let units = fs::read_dir(units)
        .unwrap()
        .map(|unit| unit.unwrap().path());
    let instance = |unit: PathBuf| {
        let name = unit.file_name().unwrap().to_str().unwrap();
        let instance = directory.join(name.replace('@', "@disk"));
        fs::copy(&unit, &instance).unwrap();
        instance
    };
    units.map(instance).collect()
}

#[test]
fn systemd_has_no_fault_to_find_with_the_units() {
    if !provides("systemd-analyze") {
        return;
    }
    let dir = scratch();
    let installation = Installation::new(dir.path());
    let units = instances(&installation, dir.path());
    assert_eq!(units.len(), 9, "{units:?}");
    let mut analyze = Command::new("systemd-analyze");
    // The manual of an installation elsewhere is not in man's path.
    run(analyze.args(["verify", "--man=no"]).args(&units));
    let machine = fs::read_to_string(dir.path().join("outboard@disk.service")).unwrap();
    assert!(!machine.contains("@bindir@"), "{machine}");
}

#[test]
fn descriptions_name_programs_that_were_installed() {
    if !provides("systemd-analyze") {
        return;
    }
    let dir = scratch();
    let installation = Installation::new(dir.path());
    let descriptions = installation.prefix.join("share/qemu/vhost-user");
    let mut types = BTreeSet::new();
    for file in fs::read_dir(descriptions).unwrap() {
        let text = fs::read(file.unwrap().path()).unwrap();
        let description: Value = serde_json::from_slice(&text).unwrap();
        let binary = description["binary"].as_str().unwrap();
        let said = run(Command::new(binary).arg("--print-capabilities"));
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["type"], description["type"]);
        types.insert(said["type"].as_str().unwrap().to_owned());
    }
    let expected = ["block", "console", "net", "rng"].map(str::to_owned);
    assert_eq!(types, BTreeSet::from(expected));
}

#[test]
fn what_was_installed_goes_and_what_was_there_stays() {
    if !provides("systemd-analyze") {
        return;
    }
    let dir = scratch();
    let installation = Installation::new(dir.path());
    let before = installation.files();
    for file in ["bin/outboard", "share/man/man1/outboard-run.1"] {
        assert!(
            before.contains(&installation.prefix.join(file)),
            "{before:?}"
        );
    }
    let others = installation.prefix.join("share/doc/outboard/notes");
    fs::write(&others, "the administrator's").unwrap();
    packaging("unstage", &[&installation.stage]);
    assert_eq!(installation.files(), BTreeSet::from([others.clone()]));
    fs::remove_file(others).unwrap();
    packaging("unstage", &[&installation.stage]);
    assert!(!installation.prefix.join("share/doc/outboard").exists());
}
