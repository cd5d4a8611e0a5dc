//! The real gdb on bare-metal guests, with exact expected output.
//!
//! Hosts differ in what they trap. What to expect of this one is taken from
//! `outboard doctor`; what it cannot do is expected to be refused in words that
//! gdb's user sees, and what then remains unshown is listed at the end of the run.

mod attach;
mod breakpoints;
mod code32;
mod disconnected;
mod dump;
mod ends;
mod events;
mod front_ends;
mod int3;
mod late;
mod lldb;
mod memory;
mod modes;
mod monitor;
mod newer;
mod registers;
mod rings;
mod stepping;
mod trace_files;
mod trace_variables;
mod tracepoints;
mod vcpus;
mod watchpoints;
mod while_stepping;
mod written;

use std::path::PathBuf;

use tempfile::TempDir;
use tests::process::{Process, Stream, wait_until};
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, gdb, guest, scratch};

/// Behind this line gdb is attached; what it prints before depends on where the
/// running guest happened to be.
const ATTACHED: &str = "@attached";

/// Prints [`ATTACHED`].
const MARK: &str = "echo @attached\\n";

/// Takes the guest's first 2 MiB, its code and data, from ring 3. A page that
/// ring 3 may execute too gets an int3 only where both rings trap it.
const KERNEL_PAGES: &str =
    "set var {unsigned long}&page_directories = {unsigned long}&page_directories & ~4";

/// The end of a notice that some hosts make of every breakpoint in a page that both
/// rings may use, as those of these guests are. A test of its own expects it.
const ONE_RING: &str = ": this host traps it in ring 0 only";

/// A bare-metal guest that serves gdb.
struct Guest {
    vmm: Running,
    symbols: PathBuf,
    dir: TempDir,
}

impl Guest {
    /// `name` on `cpus` vCPUs, running.
    fn start(name: &str, cmdline: &str, cpus: usize) -> Self {
        Self::launch(name, |vmm| vmm.cmdline(cmdline).cpus(cpus))
    }

    /// `name` on `cpus` vCPUs, held before the first instruction.
    fn held(name: &str, cmdline: &str, cpus: usize) -> Self {
        Self::launch(name, |vmm| vmm.cmdline(cmdline).cpus(cpus).gdb_wait())
    }

    fn launch(name: &str, configure: impl FnOnce(Vmm) -> Vmm) -> Self {
        Self::of_file(guest::bare(name), configure)
    }

    /// Any ELF file as both kernel and gdb's file.
    fn of_file(symbols: PathBuf, configure: impl FnOnce(Vmm) -> Vmm) -> Self {
        let dir = scratch();
        let vmm = configure(Vmm::new(&symbols).gdb(dir.path())).start();
        wait_until("the gdb socket", DEADLINE, || vmm.gdb_socket().exists());
        Self { vmm, symbols, dir }
    }

    /// The debuggee on one vCPU, in its endless loop.
    fn debuggee() -> Self {
        let guest = Self::start("debug", "", 1);
        guest.vmm.process.wait_for("debug: ready", DEADLINE);
        guest
    }

    /// All that gdb prints, attached and carrying out `commands` to the end.
    fn transcript(&self, commands: &[&str]) -> String {
        let mut gdb = gdb::start_merged(self.vmm.gdb_socket(), &self.symbols, commands);
        gdb.expect_exit(0, DEADLINE);
        gdb.printed(Stream::Out)
    }

    /// What gdb prints for `commands`, without empty lines, and without what it
    /// says at attaching and detaching.
    fn gdb(&self, commands: &[&str]) -> Vec<String> {
        let commands = [&[MARK], commands].concat();
        answer(&self.transcript(&commands))
    }

    /// Carries out `commands` and expects gdb to print exactly `expected`.
    #[track_caller]
    fn expect(&self, commands: &[&str], expected: &[&str]) {
        assert_lines(&self.gdb(commands), expected);
    }

    /// [`Guest::gdb`] on the debuggee, at the beginning of a pass: what follows is
    /// the same every time. The next breakpoint is number 2.
    fn gdb_at_scenario(&self, commands: &[&str]) -> Vec<String> {
        let commands = [&["tbreak scenario", "continue", MARK], commands].concat();
        answer(&self.transcript(&commands))
    }

    /// [`Guest::expect`] on the debuggee, at the beginning of a pass.
    #[track_caller]
    fn expect_at_scenario(&self, commands: &[&str], expected: &[&str]) {
        assert_lines(&self.gdb_at_scenario(commands), expected);
    }

    /// The value of a C expression; stops the guest for a moment.
    fn value(&self, expression: &str) -> u64 {
        let lines = self.gdb(&[&format!("output (unsigned long)({expression})")]);
        let value = lines.first().and_then(|line| line.parse().ok());
        value.unwrap_or_else(|| panic!("{expression} is not a number: {lines:?}"))
    }

    /// A gdb that stays when it has carried out `commands`, as at a terminal.
    fn open(&self, commands: &[&str]) -> Process {
        let mut gdb = gdb::open(self.vmm.gdb_socket(), &self.symbols, &[]);
        gdb.send(format!("{MARK}\n").as_bytes());
        gdb.wait_for(ATTACHED, DEADLINE);
        for command in commands {
            gdb.send(format!("{command}\n").as_bytes());
        }
        gdb
    }

    /// Nothing of gdb's is left in the debuggee, and it runs.
    #[track_caller]
    fn expect_undisturbed(&self) {
        let lines = self.gdb(&["monitor info breakpoints", "compare-sections .text"]);
        let (code, planted) = lines.split_last().unwrap();
        assert_lines(
            planted,
            &[
                "planted now (gdb plants when it resumes the guest):",
                "hardware slots:",
                "  0: free",
                "  1: free",
                "  2: free",
                "  3: free",
            ],
        );
        assert!(code.ends_with(": matched."), "{code}");
        let before = self.value("loop_counter");
        wait_until("the debuggee runs on", DEADLINE, || {
            self.value("loop_counter") > before
        });
    }

    /// Lets the debuggee end. It checks its own results at every pass, and
    /// crashes if a debugger has spoiled one.
    #[track_caller]
    fn finish(mut self) {
        self.gdb(&["set var stop_requested = 1"]);
        self.vmm.process.expect_exit(0, DEADLINE);
        assert!(
            self.vmm.console().contains("stop_requested=1"),
            "{}",
            self.vmm.process.transcript()
        );
    }
}

/// What gdb printed behind [`ATTACHED`], line by line.
fn answer(transcript: &str) -> Vec<String> {
    let (_, answer) = transcript
        .split_once(ATTACHED)
        .unwrap_or_else(|| panic!("gdb did not attach:\n{transcript}"));
    let answer = answer.replace("[Inferior 1 (process 1) detached]", "");
    let lines = answer
        .lines()
        .filter(|line| !line.is_empty() && !line.contains("[remote]"))
        .filter(|line| !line.ends_with(ONE_RING));
    lines.map(str::to_owned).collect()
}

#[track_caller]
fn assert_lines(found: &[String], expected: &[&str]) {
    let found: Vec<_> = found.iter().map(String::as_str).collect();
    assert!(
        found == expected,
        "gdb printed:\n{}\nexpected:\n{}",
        found.join("\n"),
        expected.join("\n")
    );
}
