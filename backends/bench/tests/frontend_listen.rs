//! `outboard-check --frontend --listen`, as somebody uses it who starts the frontend by hand.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// In the environment of a process that is to play a frontend: how often it connects.
const PLAY: &str = "OUTBOARD_FRONTEND_CONNECTS";
const GET_FEATURES: [u32; 3] = [1, 1, 0];

/// This test is a frontend where it is told so: it asks for features on each of its connections,
/// and stays on the last one. The path is the last argument.
#[test]
fn as_a_frontend() {
    let Ok(times) = std::env::var(PLAY) else {
        return;
    };
    let path = std::env::args().next_back().unwrap();
    let mut last = None;
    for _ in 0..times.parse::<u32>().unwrap() {
        drop(last.take());
        let mut stream = UnixStream::connect(&path).unwrap();
        stream
            .write_all(&GET_FEATURES.map(u32::to_ne_bytes).concat())
            .unwrap();
        match stream.read_exact(&mut [0; 20]) {
            Ok(()) => println!("answered"),
            Err(_) => println!("turned away"),
        }
        last = Some(stream);
    }
    // Until its input ends.
    let _ = std::io::stdin().read(&mut [0]);
}

/// A frontend, whose first line on standard output says how it fared.
fn frontend(path: &Path, connections: u32) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_a_frontend", "--nocapture"])
        .arg(path)
        .env(PLAY, connections.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// `outboard-check`, which is killed should it hang.
struct Check {
    child: Child,
    said: BufReader<ChildStderr>,
    /// Closed when there is nothing to watch any more.
    _watched: Sender<()>,
}

const DEADLINE: Duration = Duration::from_secs(60);

impl Check {
    fn start(path: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_outboard-check"))
            .args([
                "--frontend",
                "--type",
                "blk",
                "--format",
                "json",
                "--listen",
            ])
            .arg(path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let (watched, is_over) = channel();
        let pid = Pid::from_child(&child);
        std::thread::spawn(move || {
            if is_over.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout) {
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        Self {
            child,
            said,
            _watched: watched,
        }
    }

    /// Waits for a line on standard error.
    fn wait_for(&mut self, text: &str) {
        wait_for(&mut self.said, text);
    }

    /// Ctrl-C; then the exit status, and what it wrote to standard output.
    fn interrupt(mut self) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let mut report = String::new();
        let mut output = self.child.stdout.take().unwrap();
        output.read_to_string(&mut report).unwrap();
        (self.child.wait().unwrap().code(), report)
    }
}

fn wait_for(from: &mut impl BufRead, text: &str) {
    let mut seen = String::new();
    loop {
        let begin = seen.len();
        let count = from.read_line(&mut seen).unwrap();
        assert!(count > 0, "{text:?} does not come, but {seen}");
        if seen[begin..].contains(text) {
            return;
        }
    }
}

#[test]
fn a_stale_socket_is_replaced_and_none_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    let mut check = Check::start(&path);
    check.wait_for("waiting for a frontend");
    let (code, _) = check.interrupt();
    assert_eq!(code, Some(2));
    assert!(!path.exists());
}

#[test]
fn a_socket_that_somebody_listens_on_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut check = Check::start(&path);
    check.wait_for("a live process listens there");
    assert_eq!(check.child.wait().unwrap().code(), Some(2));
    assert!(path.exists());
}

#[test]
fn one_frontend_is_looked_at_on_all_of_its_connections() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut check = Check::start(&path);
    check.wait_for("waiting for a frontend");
    // Whoever looks whether somebody listens is no frontend.
    drop(UnixStream::connect(&path).unwrap());
    let (mut first, mut output) = frontend(&path, 3);
    for _ in 0..3 {
        wait_for(&mut output, "answered");
    }
    let (mut second, mut output) = frontend(&path, 1);
    wait_for(&mut output, "turned away");
    check.wait_for("is turned away: one frontend");
    let (code, report) = check.interrupt();
    assert_eq!(code, Some(0), "{report}");
    let report: Value = serde_json::from_str(&report).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let of = |name: &str| checks.iter().find(|check| check["name"] == name).unwrap();
    assert_eq!(of("header.version")["outcome"], "pass");
    assert!(!path.exists());
    for child in [&mut first, &mut second] {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
