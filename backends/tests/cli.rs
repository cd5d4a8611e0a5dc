//! The binaries as a user meets them: usage, errors, exit status, signals, sockets.

#![allow(unsafe_code)]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use common::{DEADLINE, Driver, readable};
use serde_json::{Value, json};
use tempfile::TempDir;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;

const BLK: &str = env!("CARGO_BIN_EXE_outboard-blk");
const NET: &str = env!("CARGO_BIN_EXE_outboard-net");
const RNG: &str = env!("CARGO_BIN_EXE_outboard-rng");
const CONSOLE: &str = env!("CARGO_BIN_EXE_outboard-console");

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A scratch directory with an image and the path of a socket in it.
fn scratch() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.img");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let socket = dir.path().join("socket");
    (dir, image, socket)
}

/// A running `outboard-blk`.
struct Blk {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Blk {
    fn start(image: &Path, socket: &Path) -> Self {
        Blk::start_with(image, socket, &[])
    }

    fn start_with(image: &Path, socket: &Path, options: &[&str]) -> Self {
        let mut child = Command::new(BLK)
            .args(options)
            .arg("--path")
            .arg(image)
            .arg("--socket")
            .arg(socket)
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut blk = Blk { child, log };
        blk.wait_for("waiting for a frontend");
        blk
    }

    /// Reads the log up to a line with `text`.
    fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            let buffered = !self.log.buffer().is_empty();
            assert!(
                buffered || readable(self.log.get_ref(), DEADLINE),
                "no {text:?} in the log"
            );
            line.clear();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "it has ended");
        }
    }

    /// Sends a signal and waits for the end: exit status and the rest of the log.
    fn signal(mut self, signal: libc::c_int) -> (Option<i32>, String) {
        // SAFETY: takes no pointer; the child has not been waited for, so the pid is its own.
        let result = unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        assert_eq!(result, 0);
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        let code = self.child.wait().unwrap().code();
        (code, rest)
    }
}

impl Drop for Blk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn help_and_bad_usage() {
    for program in [BLK, NET, RNG, CONSOLE] {
        let help = run(program, &["--help"]);
        assert_eq!(help.status.code(), Some(0));
        let text = String::from_utf8(help.stdout).unwrap();
        assert!(text.contains("--socket <PATH>"), "{text}");
        assert!(text.contains("--fd <FD>"), "{text}");
        assert_eq!(run(program, &[]).status.code(), Some(2));
        assert_eq!(run(program, &["--nonsense"]).status.code(), Some(2));
    }
    for extra in [
        ["--fd", "3"],
        ["--queues", "0"],
        ["--queues", "65"],
        ["--serial", "123456789012345678901"],
    ] {
        let args = ["--socket", "s", "--path", "p", extra[0], extra[1]];
        let output = run(BLK, &args);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    }
    let output = run(CONSOLE, &["--socket", "s", "--terminal", "tty"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("unix=PATH"), "{output:?}");
    let output = run(RNG, &["--socket", "s", "--source", "/missing"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("/missing"), "{output:?}");
    for extra in [
        ["--mac", "01:00:00:00:00:00"],
        ["--mac", "x"],
        ["--mtu", "67"],
        ["--tap", "a-name-that-is-too-long"],
    ] {
        let tap: &[_] = if extra[0] == "--tap" {
            &[]
        } else {
            &["--tap", "t"]
        };
        let output = run(NET, &[&["--socket", "s"], tap, &extra].concat());
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    }
}

#[test]
fn host_failures_say_what_was_asked_and_found() {
    let (dir, image, socket) = scratch();
    let fails = |path: &Path, socket: &Path, words: &[&str]| {
        let output = Command::new(BLK)
            .args(["--path".as_ref(), path.as_os_str()])
            .args(["--socket".as_ref(), socket.as_os_str()])
            .env("RUST_LOG", "error")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        assert_eq!(text.lines().count(), 1, "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} in {text}");
        }
    };
    let missing = dir.path().join("missing");
    fails(&missing, &socket, &["missing", "No such file"]);
    fails(dir.path(), &socket, &["cannot be opened", "directory"]);
    let tiny = dir.path().join("tiny");
    File::create(&tiny).unwrap().set_len(511).unwrap();
    fails(&tiny, &socket, &["tiny", "511 bytes", "512"]);
    fails(&image, &missing.join("socket"), &["socket", "directory"]);
    fails(&image, &tiny, &["tiny", "not a socket"]);
    assert!(!socket.exists());
}

#[test]
fn signals_end_it_cleanly() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let (_dir, image, socket) = scratch();
        let blk = Blk::start(&image, &socket);
        assert!(socket.exists());
        let (code, log) = blk.signal(signal);
        assert_eq!(code, Some(0), "{log}");
        assert!(!socket.exists());
    }
}

#[test]
fn a_signal_ends_it_in_the_middle_of_a_session() {
    let (_dir, image, socket) = scratch();
    let mut blk = Blk::start(&image, &socket);
    let mut driver = Driver::connect(&socket, 1, 0);
    driver.start();
    blk.wait_for("a frontend has connected");
    let (code, log) = blk.signal(libc::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(!socket.exists());
}

#[test]
fn a_live_socket_is_not_stolen_and_a_dead_one_is_replaced() {
    let (dir, image, socket) = scratch();
    let first = Blk::start(&image, &socket);
    let other = dir.path().join("other.img");
    File::create(&other).unwrap().set_len(1 << 20).unwrap();
    let args = ["--path", other.to_str().unwrap()];
    let socket_args = ["--socket", socket.to_str().unwrap()];
    let second = run(BLK, &[args, socket_args].concat());
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("live process"), "{second:?}");
    // Killed it leaves its socket behind; the next one takes that path, and the image.
    first.signal(libc::SIGKILL);
    assert!(socket.exists());
    let third = Blk::start(&image, &socket);
    Driver::connect(&socket, 1, 0).start();
    assert_eq!(third.signal(libc::SIGTERM).0, Some(0));
}

#[test]
fn an_inherited_socket_is_served_once() {
    let (_dir, image, _) = scratch();
    let (ours, theirs) = UnixStream::pair().unwrap();
    // Unlike what std opens, a duplicate made by dup() is inherited.
    // SAFETY: takes no pointer; `theirs` is open.
    let fd = unsafe { libc::dup(theirs.as_raw_fd()) };
    let mut child = Command::new(BLK)
        .arg("--path")
        .arg(&image)
        .args(["--fd", &fd.to_string()])
        .spawn()
        .unwrap();
    // SAFETY: `fd` was made above and belongs to nobody else.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    drop(theirs);
    let mut driver = Driver::over(ours, 1, 0);
    driver.start();
    assert_eq!(driver.frontend.get_vring_base(0).unwrap(), 0);
    drop(driver);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    for wrong in ["999", "2"] {
        let args = ["--path", image.to_str().unwrap(), "--fd", wrong];
        let code = run(BLK, &args).status.code();
        assert_eq!(code, Some(if wrong == "2" { 2 } else { 1 }));
    }
}

/// systemd's own program stands for systemd: it listens, and starts the backend at the first
/// connection.
#[test]
fn systemd_starts_it_at_the_first_connection() {
    let (_dir, image, socket) = scratch();
    let mut activate = Command::new("systemd-socket-activate");
    activate.arg("--listen").arg(&socket);
    activate.args(["--setenv=RUST_LOG=info", BLK, "--listen-fd", "3", "--path"]);
    let child = activate.arg(&image).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("systemd-socket-activate, of the package systemd");
    let log = BufReader::new(child.stderr.take().unwrap());
    let mut blk = Blk { child, log };
    for _ in 0..2 {
        let mut driver = common::connect_within(DEADLINE, &socket, 1);
        driver.start();
        assert_eq!(driver.frontend.get_vring_base(0).unwrap(), 0);
        drop(driver);
        blk.wait_for("the frontend has been served");
    }
    let (code, log) = blk.signal(libc::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(socket.exists(), "it is systemd's");
}

#[test]
fn a_descriptor_that_does_not_listen_is_refused() {
    let (_dir, image, _) = scratch();
    let args = ["--path", image.to_str().unwrap(), "--listen-fd", "999"];
    let output = run(BLK, &args);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("--listen-fd 999 is not a listening"),
        "{said}"
    );
}

#[test]
fn an_image_has_one_writer() {
    let (dir, image, socket) = scratch();
    let _blk = Blk::start(&image, &socket);
    let other = dir.path().join("other");
    let args = ["--path", image.to_str().unwrap()];
    let second = run(BLK, &[args, ["--socket", other.to_str().unwrap()]].concat());
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("in use"), "{second:?}");
}

#[test]
fn hostile_frontends_do_not_spoil_it_for_the_next() {
    let (_dir, image, socket) = scratch();
    let mut blk = Blk::start(&image, &socket);
    let garbage: [&[u8]; 5] = [
        b"",
        b"GET / HTTP/1.0\r\n\r\n",
        &[0xff; 4096],
        &[1, 0, 0, 0, 1, 0],
        // GET_VRING_BASE of a ring that does not exist.
        &[11, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0],
    ];
    for bytes in garbage {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // Closed with data unread, a socket is reset.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"");
        blk.wait_for("the frontend has been served");
    }
    let mut driver = Driver::connect(&socket, 1, 0);
    driver.start();
    assert_eq!(driver.frontend.get_vring_base(0).unwrap(), 0);
    assert_eq!(blk.signal(libc::SIGTERM).0, Some(0));
}

#[test]
fn a_tap_that_cannot_be_had_is_an_error() {
    let (_dir, _, socket) = scratch();
    let args = ["--socket", socket.to_str().unwrap()];
    // The loopback interface exists and is no tap.
    let output = run(NET, &[args, ["--tap", "lo"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("tap lo"), "{output:?}");
    assert!(!socket.exists());
    // Somebody else's socket is not taken away for it.
    let _other = UnixListener::bind(&socket).unwrap();
    let output = run(NET, &[args, ["--tap", "lo"]].concat());
    assert!(stderr(&output).contains("live process"), "{output:?}");
    assert!(socket.exists());
}

/// A network namespace whose loopback interface is down, as each is that was just made.
#[test]
fn a_tap_is_up_where_the_loopback_interface_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", NET, "--tap", "tap0", "--socket"]);
    let mut child = command.arg(&socket).spawn().expect("unshare(1)");
    let mut driver = common::connect_within(DEADLINE, &socket, 1);
    driver.start();
    // virtio 1.4, section 5.1.4: `status` at offset 6, with VIRTIO_NET_S_LINK_UP.
    let flags = VhostUserConfigFlags::empty();
    let config = driver.frontend.get_config(6, 2, flags, &[0; 2]).unwrap();
    assert_eq!(config.1[0] & 1, 1, "the link is down");
    drop(driver);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// After "Backend program conventions" of the vhost-user document.
#[test]
fn capabilities_are_printed_whatever_else_is_said() {
    let descriptions = Path::new(env!("CARGO_MANIFEST_DIR")).join("share/qemu/vhost-user");
    let files = std::fs::read_dir(&descriptions).unwrap();
    let mut described: Vec<String> = files
        .map(|file| described_type(&file.unwrap().path()))
        .collect();
    described.sort();
    let mut printed = Vec::new();
    for (program, features) in [
        (BLK, json!(["blk-file", "read-only"])),
        (CONSOLE, Value::Null),
        (NET, Value::Null),
        (RNG, Value::Null),
    ] {
        let output = run(program, &["--nonsense", "--print-capabilities"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let capabilities: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(capabilities["features"], features, "{program}");
        let name = Path::new(program).file_name().unwrap().to_str().unwrap();
        let device = capabilities["type"].as_str().unwrap();
        printed.push(format!("{name} is {device}"));
    }
    assert_eq!(described, printed);
}

/// Which program a description for management programs names, and of which type.
fn described_type(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let description: Value = serde_json::from_str(&text).unwrap();
    let binary = Path::new(description["binary"].as_str().unwrap());
    assert!(binary.is_absolute(), "{}", file.display());
    let name = binary.file_name().unwrap().to_str().unwrap();
    let device = description["type"].as_str().unwrap();
    format!("{name} is {device}")
}

/// The names of a disk's options in the conventions are accepted.
#[test]
fn a_disk_takes_the_options_of_the_conventions() {
    let (_dir, image, socket) = scratch();
    let mut command = Command::new(BLK);
    command.arg("--blk-file").arg(&image).arg("--read-only");
    let mut child = command.arg("--socket-path").arg(&socket).spawn().unwrap();
    let driver = common::connect_within(DEADLINE, &socket, 1);
    drop(driver);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The processors that the threads named so may run on.
fn allowed(child: &Child, name: &str) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let statuses = threads.map(|thread| {
        let path = thread.unwrap().path();
        let read = |file| std::fs::read_to_string(path.join(file)).unwrap_or_default();
        (read("comm"), read("status"))
    });
    let mine = statuses.filter(|(comm, _)| comm.starts_with(name));
    let lists = mine.filter_map(|(_, status)| {
        let line = status
            .lines()
            .find(|line| line.starts_with("Cpus_allowed_list:"));
        line.map(|line| {
            line.split_whitespace()
                .last()
                .unwrap_or_default()
                .to_owned()
        })
    });
    lists.collect()
}

#[test]
fn the_queues_threads_are_kept_on_processors() {
    let (_dir, image, socket) = scratch();
    let own = Blk::start(&image, &socket);
    // Of the main thread, for others may not have their names yet.
    let free = allowed(&own.child, "outboard-blk").remove(0);
    drop(own);
    let first = free.split(['-', ',']).next().unwrap();
    let blk = Blk::start_with(&image, &socket, &["--queues", "2", "--cpus", first]);
    assert_eq!(allowed(&blk.child, "vring-worker"), [first, first]);
}

#[test]
fn a_processor_that_is_not_there_is_refused() {
    let (_dir, image, socket) = scratch();
    let (image, socket) = (image.to_str().unwrap(), socket.to_str().unwrap());
    let start = |cpus| run(BLK, &["--path", image, "--socket", socket, "--cpus", cpus]);
    let refused = start("1023");
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("processor 1023 is not there"),
        "{}",
        stderr(&refused)
    );
    let nonsense = start("3-1");
    assert_eq!(nonsense.status.code(), Some(2));
    assert!(stderr(&nonsense).contains("0-3,6"), "{}", stderr(&nonsense));
}
