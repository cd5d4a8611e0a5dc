//! How much `outboard-check` notices: our own backends are broken in one line, and the check that
//! names the rule has to fail.
//!
//! `mutants.toml` has the breaks. The score is the share that was caught.

mod list;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use list::Mutant;
use tempfile::TempDir;

/// Runs at once: they wait for deadlines more than they compute.
const AT_ONCE: usize = 6;

/// What a broken program is given.
struct Bench {
    programs: std::path::PathBuf,
    dir: TempDir,
}

impl Bench {
    /// The command of a program, without its socket.
    fn command(&self, program: &str, place: &Path) -> String {
        let binary = self.programs.join(format!("outboard-{program}"));
        let options = match program {
            "blk" => {
                let image = place.join("disk.img");
                File::create(&image).unwrap().set_len(4 << 20).unwrap();
                format!("--path {}", image.display())
            }
            "net" => format!("--peer-listen {}", place.join("peer").display()),
            "console" => format!("--terminal file={}", place.join("output").display()),
            _ => String::new(),
        };
        format!("{} {options}", binary.display())
    }

    /// Runs one check against the program, with one break on, or none.
    fn check(&self, program: &str, check: &str, number: Option<usize>) -> Output {
        let place = tempfile::tempdir_in(self.dir.path()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_outboard-check"));
        command
            .arg("--exec")
            .arg(self.command(program, place.path()));
        command.args(["--type", program, "--only", check]);
        match number {
            Some(number) => command.env(tree::SWITCH, number.to_string()),
            None => command.env_remove(tree::SWITCH),
        };
        command.output().expect("outboard-check can be started")
    }
}

/// The program's own exit statuses: all that applied passed, or something failed.
const PASSED: i32 = 0;
const FAILED: i32 = 1;

#[test]
fn each_broken_backend_is_caught_by_the_check_that_names_the_rule() {
    let mutants = list::read();
    let bench = Bench {
        programs: tree::build(&mutants),
        dir: tempfile::tempdir().unwrap(),
    };
    let mut complaints = sound_backends_pass(&bench, &mutants);
    let survivors = survivors(&bench, &mutants);
    let caught = mutants.len() - survivors.len();
    // Past the test runner, which keeps the output of tests that pass.
    let _ = writeln!(
        std::io::stderr(),
        "mutation score: {caught} of {} broken backends were caught",
        mutants.len()
    );
    complaints.extend(survivors);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Complaints about checks that fail without any break, or do not apply.
fn sound_backends_pass(bench: &Bench, mutants: &[Mutant]) -> Vec<String> {
    let used: BTreeSet<_> = mutants.iter().map(|it| (&it.program, &it.check)).collect();
    let used: Vec<_> = used.into_iter().collect();
    in_parallel(&used, |_, (program, check)| {
        let output = bench.check(program, check, None);
        let text = String::from_utf8_lossy(&output.stdout);
        let has_passed = output.status.code() == Some(PASSED) && text.contains("1 passed");
        (!has_passed).then(|| format!("{check} of a sound outboard-{program}:\n{text}"))
    })
}

/// The breaks that nobody noticed, as complaints.
fn survivors(bench: &Bench, mutants: &[Mutant]) -> Vec<String> {
    in_parallel(mutants, |number, mutant| {
        let output = bench.check(&mutant.program, &mutant.check, Some(number));
        let text = String::from_utf8_lossy(&output.stdout);
        let is_caught = output.status.code() == Some(FAILED);
        (!is_caught).then(|| format!("{}\n  passes {}:\n{text}", mutant.name(), mutant.check))
    })
}

/// What `work` returns for each item and its number, in the order of the items.
fn in_parallel<T: Sync>(
    items: &[T],
    work: impl Fn(usize, &T) -> Option<String> + Sync,
) -> Vec<String> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(number) else { break };
                    if let Some(result) = work(number, item) {
                        results.lock().unwrap().insert(number, result);
                    }
                }
            });
        }
    });
    results.into_inner().unwrap().into_values().collect()
}
