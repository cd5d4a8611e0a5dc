//! A child process whose output is read as it comes.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::DEADLINE;

/// A running program. Killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
}

/// Lines printed so far, of both streams in the order they came.
#[derive(Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<Line>,
    open_streams: usize,
}

/// A printed line without its end.
#[derive(Clone, Debug)]
pub struct Line {
    pub stream: Stream,
    pub text: String,
    pub at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, stream: Stream, text: String) {
        self.lock().lines.push(Line {
            stream,
            text,
            at: Instant::now(),
        });
        self.changed.notify_all();
    }

    fn close(&self) {
        self.lock().open_streams -= 1;
        self.changed.notify_all();
    }

    /// Waits until `found` gives something.
    fn wait<T>(&self, deadline: Instant, mut found: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(value) = found(&state) {
                return Some(value);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Has it end on the signals that a shell has ignored for programs in the background, such
/// as the tests may be.
#[allow(unsafe_code)]
fn with_usual_signals(command: &mut Command) -> &mut Command {
    let reset = || {
        for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
            // SAFETY: installs no handler.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: the child does nothing but system calls before it is another program.
    unsafe { command.pre_exec(reset) }
}

impl Process {
    /// Starts `command` with piped standard streams.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start(name: impl Into<String>, command: &mut Command) -> Self {
        Self::start_with(name, command, Stdio::piped(), Stdio::piped())
    }

    /// The same with other streams, which are not read if they are no new pipes.
    pub fn start_with(
        name: impl Into<String>,
        command: &mut Command,
        stdout: impl Into<Stdio>,
        stderr: impl Into<Stdio>,
    ) -> Self {
        let name = name.into();
        command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
        let mut child = with_usual_signals(command)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let output = Arc::new(Output::default());
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(read_lines(stdout, Stream::Out, &output));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(read_lines(stderr, Stream::Err, &output));
        }
        let stdin = child.stdin.take();
        Self {
            name,
            child,
            stdin,
            output,
            readers,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to standard input.
    pub fn send(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut();
        let result = stdin.map(|stdin| stdin.write_all(bytes).and_then(|()| stdin.flush()));
        if !matches!(result, Some(Ok(()))) {
            panic!(
                "{}: cannot write to its standard input\n{}",
                self.name,
                self.transcript()
            );
        }
    }

    /// Closes standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: libc::c_int) {
        kill(self.child.id(), signal);
    }

    /// Stops every thread of it, until SIGCONT.
    pub fn stop(&self) {
        stop(self.child.id());
    }

    /// Waits for a line that contains `text` and returns it.
    ///
    /// # Panics
    /// The program ends without it, or the deadline passes.
    pub fn wait_for(&self, text: &str, within: Duration) -> Line {
        self.wait_for_after(0, text, within).1
    }

    /// Like [`Process::wait_for`], from line number `from` on; also returns the
    /// number of the line behind the one found.
    pub fn wait_for_after(&self, from: usize, text: &str, within: Duration) -> (usize, Line) {
        let found = self.output.wait(Instant::now() + within, |state| {
            let mut lines = state.lines.iter().enumerate().skip(from);
            match lines.find(|(_, line)| line.text.contains(text)) {
                Some((n, line)) => Some(Some((n + 1, line.clone()))),
                None if state.open_streams == 0 => Some(None),
                None => None,
            }
        });
        match found {
            Some(Some(found)) => found,
            Some(None) => panic!(
                "{} ended without {text:?}\n{}",
                self.name,
                self.transcript()
            ),
            None => {
                panic!(
                    "{}: no {text:?} within {within:?}\n{}",
                    self.name,
                    self.transcript()
                )
            }
        }
    }

    /// Whether a line that contains `text` comes before the program ends and the deadline
    /// passes.
    pub fn says(&self, text: &str, within: Duration) -> bool {
        let found = self.output.wait(Instant::now() + within, |state| {
            let is_found = state.lines.iter().any(|line| line.text.contains(text));
            (is_found || state.open_streams == 0).then_some(is_found)
        });
        found.unwrap_or(false)
    }

    /// Lines printed so far.
    pub fn lines(&self) -> Vec<Line> {
        self.output.lock().lines.clone()
    }

    /// What was printed so far on one stream.
    pub fn printed(&self, stream: Stream) -> String {
        let lines = self
            .lines()
            .into_iter()
            .filter(|line| line.stream == stream);
        lines.fold(String::new(), |text, line| text + &line.text + "\n")
    }

    /// Waits for the end and returns the exit status.
    ///
    /// # Panics
    /// The program does not end in time.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let closed = self.output.wait(Instant::now() + within, |state| {
            (state.open_streams == 0).then_some(())
        });
        if closed.is_none() {
            panic!(
                "{} did not end within {within:?}\n{}",
                self.name,
                self.transcript()
            );
        }
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        // Both streams are closed: the end is near, or the program closed them
        // itself, which none here does.
        self.child
            .wait()
            .unwrap_or_else(|error| panic!("cannot wait for {}: {error}", self.name))
    }

    /// Waits for the end and expects exit status `code`.
    pub fn expect_exit(&mut self, code: i32, within: Duration) {
        let status = self.wait(within);
        assert_eq!(
            status.code(),
            Some(code),
            "{} ended with {status} (signal {:?})\n{}",
            self.name,
            status.signal(),
            self.transcript()
        );
    }

    /// All that was printed, for a failing test's message.
    pub fn transcript(&self) -> String {
        let mut text = format!("--- {} printed:\n", self.name);
        for line in self.lines() {
            let mark = if line.stream == Stream::Err { '!' } else { ' ' };
            let _ = writeln!(text, "{mark} {}", line.text);
        }
        text + "---"
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(
    stream: impl Read + Send + 'static,
    kind: Stream,
    output: &Arc<Output>,
) -> JoinHandle<()> {
    output.lock().open_streams += 1;
    let output = output.clone();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        while matches!(reader.read_until(b'\n', &mut bytes), Ok(1..)) {
            let text = String::from_utf8_lossy(&bytes);
            output.push(kind, text.trim_end_matches(['\r', '\n']).to_owned());
            bytes.clear();
        }
        output.close();
    })
}

/// Sends SIGTERM to a child that has not been waited for.
pub fn terminate(pid: u32) {
    kill(pid, libc::SIGTERM);
}

#[allow(unsafe_code)]
pub fn kill(pid: u32, signal: libc::c_int) {
    // SAFETY: a system call on integers; callers name children of theirs, or of these,
    // that nobody has waited for, so that the id is not somebody else's.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// Stops every thread of a child, or of a child's child.
pub fn stop(pid: u32) {
    kill(pid, libc::SIGSTOP);
    wait_until("it is stopped", DEADLINE, || {
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten();
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat"));
            stat.is_ok_and(|stat| stat.contains(") T "))
        })
    });
}

/// Lets a process run on that was [stopped](stop).
pub fn resume(pid: u32) {
    kill(pid, libc::SIGCONT);
}

/// Waits until `ready` says so; looks every few milliseconds, for what no
/// descriptor tells (a file that another process makes).
///
/// # Panics
/// The deadline passes.
pub fn wait_until(what: &str, within: Duration, mut ready: impl FnMut() -> bool) {
    const INTERVAL: Duration = Duration::from_millis(5);
    let deadline = Instant::now() + within;
    while !ready() {
        assert!(Instant::now() < deadline, "{what}: not within {within:?}");
        std::thread::sleep(INTERVAL);
    }
}
