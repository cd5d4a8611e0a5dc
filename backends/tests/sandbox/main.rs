//! The walls around the programs, and what becomes of a thread that runs into one.

#[path = "../common/mod.rs"]
mod common;
mod trespasser;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

use common::{BUFFERS, DEADLINE, Driver, readable, w};

const SIGSYS: i32 = 31;

/// A program whose log is read.
struct Program {
    child: Child,
    log: BufReader<ChildStderr>,
    said: String,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .env("RUST_LOG", "info")
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let said = String::new();
        Program { child, log, said }
    }

    /// Reads the log up to a line with `text`.
    fn wait_for(&mut self, text: &str) {
        loop {
            let has_some = !self.log.buffer().is_empty() || readable(self.log.get_ref(), DEADLINE);
            assert!(has_some, "no {text:?} in: {}", self.said);
            let mut line = String::new();
            let len = self.log.read_line(&mut line).unwrap();
            self.said += &line;
            assert_ne!(len, 0, "it ended without {text:?}: {}", self.said);
            if line.contains(text) {
                return;
            }
        }
    }

    /// Waits until it ends by itself: the signal, and all that it has said.
    fn end(mut self) -> (Option<i32>, String) {
        // The end of the log is that of the program.
        while readable(self.log.get_ref(), DEADLINE) {
            let mut bytes = [0; 4096];
            match self.log.get_mut().read(&mut bytes).unwrap() {
                0 => break,
                len => self.said += &String::from_utf8_lossy(&bytes[..len]),
            }
        }
        let _ = self.child.kill();
        let status = self.child.wait().unwrap();
        (status.signal(), std::mem::take(&mut self.said))
    }

    /// The values of `field` of all threads (proc_pid_status(5)).
    fn field(&self, field: &str) -> Vec<String> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let of_thread = |path: PathBuf| {
            let status = fs::read_to_string(path.join("status")).unwrap();
            let mut lines = status.lines();
            let value = lines.find_map(|line| line.strip_prefix(field)).unwrap();
            value.trim_start_matches(':').trim().to_owned()
        };
        threads
            .map(|thread| of_thread(thread.unwrap().path()))
            .collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the environment holds for [`trespasser`], this program as a process of its own.
const ARGUMENTS: &str = "OUTBOARD_TRESPASSER";

#[test]
#[ignore = "the other tests start it"]
fn trespasser() {
    let arguments = std::env::var(ARGUMENTS).expect("the other tests start it");
    trespasser::run(&arguments).unwrap();
}

/// A thread of that kind does something: the signal that the process ends by, and its log.
fn commit(thread: &str, act: &str, options: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let path = socket.display();
    let arguments = format!("trespasser --socket {path} --thread {thread} --act {act} {options}");
    let mut command = Command::new(std::env::current_exe().unwrap());
    // A test that ends by a signal is no result of this run.
    command.stdout(Stdio::null());
    command.args(["--ignored", "--exact", "trespasser", "--nocapture"]);
    let mut program = Program::start(command.env(ARGUMENTS, arguments.trim_end()));
    if thread == "session" || thread == "queue" {
        program.wait_for("waiting for a frontend");
        let mut driver = Driver::connect(&socket, 1, 0);
        driver.start();
        if thread == "session" {
            drop(driver);
            return program.verdict(act);
        }
        driver.rings[0].add(&driver.memory, &[w(BUFFERS, 4)]);
        driver.rings[0].kick();
        if act != "panic" {
            return program.verdict(act);
        }
        // The session notices when the driver goes.
        program.wait_for("on purpose");
    }
    program.verdict(act)
}

impl Program {
    /// The program's end, or where it lives on what its thread says.
    fn verdict(mut self, act: &str) -> (Option<i32>, String) {
        let mut name = act.to_owned();
        name[..1].make_ascii_uppercase();
        loop {
            let has_some = !self.log.buffer().is_empty() || readable(self.log.get_ref(), DEADLINE);
            assert!(has_some, "nothing happens: {}", self.said);
            let mut line = String::new();
            let len = self.log.read_line(&mut line).unwrap();
            self.said += &line;
            if len == 0 {
                return self.end();
            }
            if line.contains(&format!("{name}: ")) || line.contains(&format!("{name} went")) {
                return (None, std::mem::take(&mut self.said));
            }
        }
    }
}

#[test]
fn a_forbidden_call_of_each_kind_of_threads_ends_the_program_with_a_clear_line() {
    for (thread, name) in [
        ("session", "trespasser"),
        ("queue", "vring-worker-0"),
        ("disk", "Disk"),
        ("peer", "Peer"),
    ] {
        for (act, call) in [
            ("execute", "59 (execve)"),
            ("create", "257 (openat)"),
            ("network", "41 (socket)"),
            ("fork", "56 (clone)"),
            ("code", "9 (mmap)"),
            ("handler", "13 (rt_sigaction)"),
        ] {
            let (signal, log) = commit(thread, act, "");
            assert_eq!(signal, Some(SIGSYS), "{thread}, {act}: {log}");
            let line = format!("trespasser: its thread {name} made system call {call}, which its");
            assert!(log.contains(&line), "{line:?} is not in {log}");
            assert!(log.contains("--sandbox off"), "{log}");
        }
    }
}

#[test]
fn a_panic_ends_as_without_a_sandbox() {
    for thread in ["session", "queue"] {
        let (signal, log) = commit(thread, "panic", "");
        assert!(log.contains("on purpose"), "{thread}: {log}");
        assert_eq!(signal, None, "{thread}: {log}");
    }
    for thread in ["session", "queue", "disk", "peer"] {
        let (signal, log) = commit(thread, "abort", "");
        assert_eq!(signal, Some(6), "{thread}: {log}");
    }
}

#[test]
fn files_of_the_host_cannot_be_read() {
    for thread in ["session", "queue", "disk", "peer"] {
        let (signal, log) = commit(thread, "read", "");
        assert_eq!(signal, None, "{thread}: {log}");
        match log.contains("no Landlock") {
            true => println!("this kernel has no Landlock, and the log says so"),
            false => assert!(log.contains("Read: Permission denied"), "{thread}: {log}"),
        }
    }
}

#[test]
fn without_a_sandbox_the_log_says_so() {
    let (signal, log) = commit("queue", "network", "--sandbox off");
    assert_eq!(signal, None, "{log}");
    assert!(log.contains("Network went unnoticed"), "{log}");
    assert!(
        log.contains("WARN") && log.contains("--sandbox off: a guest"),
        "{log}"
    );
}

/// All threads, as the kernel sees them.
fn is_walled_in(program: &Program) {
    for (field, value) in [
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapInh", "0000000000000000"),
    ] {
        let values = program.field(field);
        assert!(values.iter().all(|v| v == value), "{field}: {values:?}");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", program.child.id())).unwrap();
    let mut lines = limits.lines();
    let core = lines
        .find(|line| line.starts_with("Max core file"))
        .unwrap();
    let words: Vec<_> = core.split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{core}");
}

#[test]
fn all_threads_of_an_rng_are_walled_in() {
    serves_walled_in(env!("CARGO_BIN_EXE_outboard-rng"), &[], 1);
}

#[test]
fn all_threads_of_a_console_are_walled_in() {
    let console = env!("CARGO_BIN_EXE_outboard-console");
    serves_walled_in(console, &["--terminal", "unix=console"], 2);
    serves_walled_in(console, &["--terminal", "pty"], 2);
    serves_walled_in(console, &["--terminal", "file=console"], 2);
}

#[test]
fn all_threads_of_a_disk_are_walled_in() {
    let blk = env!("CARGO_BIN_EXE_outboard-blk");
    serves_walled_in(blk, &["--path", "disk.img", "--queues", "2"], 2);
}

#[test]
fn all_threads_of_a_network_are_walled_in() {
    let net = env!("CARGO_BIN_EXE_outboard-net");
    serves_walled_in(net, &["--peer-listen", "peer"], 2);
    serves_walled_in(net, &["--peer-connect", "peer", "--pcap", "packets"], 2);
}

/// `program` serves a driver with so many queues, and ends as it should.
fn serves_walled_in(program: &str, options: &[&str], queues: usize) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let image = fs::File::create(dir.path().join("disk.img")).unwrap();
    image.set_len(1 << 20).unwrap();
    let mut command = Command::new(program);
    command
        .current_dir(&dir)
        .args(options)
        .args(["--socket", "socket"]);
    let mut program = Program::start(&mut command);
    program.wait_for("waiting for a frontend");
    let mut driver = Driver::connect(&socket, queues, 0);
    driver.start();
    is_walled_in(&program);
    drop(driver);
    program.wait_for("has been served");
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&program.child),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    let (signal, log) = program.end();
    assert_eq!(signal, None, "{log}");
    assert!(!socket.exists(), "its socket is left: {log}");
}
