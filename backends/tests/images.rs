//! Which images `outboard-blk` opens, and which it leaves alone.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};

mod common;

use common::{BUFFERS, DEADLINE, connect_within, r, w};
use vm_memory::{Bytes, GuestAddress};

fn tool(name: &str, args: &[&str], dir: &Path) {
    let output = Command::new(name).args(args).current_dir(dir).output();
    let output = output.unwrap_or_else(|e| panic!("{name}: {e}; `make setup` installs it"));
    assert!(output.status.success(), "{name} {args:?}: {output:?}");
}

fn qemu_img(args: &[&str], dir: &TempDir) {
    tool("qemu-img", args, dir.path());
}

fn outboard_blk(args: &[&str], dir: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outboard-blk"));
    command.current_dir(dir).args(["--socket", "socket"]);
    command.args(args);
    command
}

/// The program does not serve; what it says on one line.
fn refusal(args: &[&str], dir: &TempDir) -> String {
    let child = outboard_blk(args, dir).stderr(Stdio::piped()).spawn();
    let mut running = Running(child.unwrap());
    let status = running.wait();
    let mut text = String::new();
    let mut stderr = running.0.stderr.take().unwrap();
    stderr.read_to_string(&mut text).unwrap();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(!dir.path().join("socket").exists());
    text
}

/// A process that is killed at the end.
struct Running(Child);

impl Running {
    /// It ends by itself.
    fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "still running");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program serves.
fn serve(args: &[&str], dir: &TempDir) -> Running {
    let running = Running(outboard_blk(args, dir).spawn().unwrap());
    connect_within(DEADLINE, &dir.path().join("socket"), 1).start();
    running
}

#[test]
fn backing_files_are_opened_where_they_are_allowed() {
    let dir = tempfile::tempdir().unwrap();
    qemu_img(&["create", "-q", "-f", "qcow2", "base", "1M"], &dir);
    let above = ["create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2"];
    qemu_img(&[&above[..], &["disk"]].concat(), &dir);
    let args = ["--path", "disk", "--format", "qcow2"];
    let text = refusal(&args, &dir);
    assert!(text.contains("names the backing file"), "{text}");
    assert!(text.contains("--backing-files allows that"), "{text}");
    serve(&[&args[..], &["--backing-files"]].concat(), &dir);
}

#[test]
fn an_external_data_file_is_opened_where_it_is_allowed_and_only_read_under_readonly() {
    let dir = tempfile::tempdir().unwrap();
    let create = ["create", "-q", "-f", "qcow2", "-o", "data_file=data"];
    qemu_img(&[&create[..], &["disk", "1M"]].concat(), &dir);
    let args = ["--path", "disk", "--format", "qcow2"];
    let text = refusal(&args, &dir);
    assert!(text.contains("--data-file allows that"), "{text}");
    let text = refusal(&[&args[..], &["--backing-files"]].concat(), &dir);
    assert!(text.contains("names the data file"), "{text}");
    let access = |options: &[&str]| {
        let running = serve(&[&args[..], &["--data-file"], options].concat(), &dir);
        access_mode(running.0.id(), &dir.path().join("data"))
    };
    assert_eq!(access(&[]), libc::O_RDWR);
    assert_eq!(access(&["--readonly"]), libc::O_RDONLY);
}

/// How process `pid` has `path` open.
fn access_mode(pid: u32, path: &Path) -> i32 {
    let path = path.canonicalize().unwrap();
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let file = files
        .map(|entry| entry.unwrap())
        .find(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to == path));
    let number = file.expect("the file is open").file_name();
    let info = format!("/proc/{pid}/fdinfo/{}", number.to_str().unwrap());
    let info = std::fs::read_to_string(info).unwrap();
    let flags = info.lines().find_map(|l| l.strip_prefix("flags:")).unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_ACCMODE
}

#[test]
fn an_encrypted_image_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let create = [
        "create",
        "-q",
        "--object",
        "secret,id=key,data=something",
        "-f",
        "qcow2",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10",
        "secret",
        "1M",
    ];
    qemu_img(&create, &dir);
    let text = refusal(&["--path", "secret", "--format", "qcow2"], &dir);
    assert!(text.contains("secret is encrypted (LUKS)"), "{text}");
    let above = ["create", "-q", "-f", "qcow2", "-u", "-b", "secret"];
    qemu_img(&[&above[..], &["-F", "qcow2", "disk", "1M"]].concat(), &dir);
    let args = ["--path", "disk", "--format", "qcow2", "--backing-files"];
    let text = refusal(&args, &dir);
    assert!(text.contains("secret is encrypted (LUKS)"), "{text}");
}

#[test]
fn a_backing_chain_that_is_a_loop_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (image, below) in [("a", "b"), ("b", "a")] {
        let create = ["create", "-q", "-f", "qcow2", "-u", "-F", "qcow2", "-b"];
        qemu_img(&[&create[..], &[below, image, "1M"]].concat(), &dir);
    }
    let args = ["--path", "a", "--format", "qcow2", "--backing-files"];
    let text = refusal(&args, &dir);
    assert!(text.contains("backing chain is a loop: a -> "), "{text}");
}

/// QEMU's tool, which has `image` open for writing until it is dropped; what it says instead,
/// where it cannot.
fn qemu_io(image: &str, dir: &TempDir) -> Result<Running, String> {
    let mut child = Command::new("qemu-io")
        .current_dir(dir)
        .args(["-f", "raw", image])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("qemu-io; `make setup` installs it");
    let mut stderr = child.stderr.take().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "length").unwrap();
    let mut answer = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut answer).unwrap();
    // It has the image.
    if answer.contains("1 MiB") {
        child.stdin = Some(stdin);
        return Ok(Running(child));
    }
    drop(stdin);
    let mut text = answer;
    stderr.read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    Err(text)
}

#[test]
fn an_image_in_use_by_qemu_is_seen_and_the_other_way_round() {
    let dir = tempfile::tempdir().unwrap();
    qemu_img(&["create", "-q", "-f", "raw", "disk", "1M"], &dir);
    let args = ["--path", "disk"];
    let read_only = ["--path", "disk", "--readonly"];
    {
        let _qemu = qemu_io("disk", &dir).unwrap();
        let text = refusal(&args, &dir);
        assert!(text.contains("disk is in use by another process"), "{text}");
        refusal(&read_only, &dir);
        serve(&["--path", "disk", "--force"], &dir);
    }
    {
        let _writer = serve(&args, &dir);
        let text = qemu_io("disk", &dir).err().expect("refused");
        assert!(text.contains("lock"), "{text}");
    }
    let _reader = serve(&read_only, &dir);
    qemu_io("disk", &dir).err().expect("refused");
}

/// QEMU reads a raw image that others write, but no qcow2 image.
#[test]
fn a_qcow2_image_that_is_written_is_not_read_by_qemu() {
    let dir = tempfile::tempdir().unwrap();
    qemu_img(&["create", "-q", "-f", "qcow2", "disk", "1M"], &dir);
    let args = ["--path", "disk", "--format", "qcow2"];
    let is_read = || {
        let mut command = Command::new("qemu-img");
        command
            .current_dir(&dir)
            .args(["info", "-f", "qcow2", "disk"]);
        command.output().unwrap().status.success()
    };
    {
        let _writer = serve(&args, &dir);
        assert!(!is_read());
    }
    let _reader = serve(&[&args[..], &["--readonly"]].concat(), &dir);
    assert!(is_read());
}

/// The threads that serve a qcow2 image allocate clusters side by side.
#[test]
fn a_qcow2_image_is_written_by_many_requests_at_once() {
    const COUNT: u64 = 20;
    const LEN: u64 = 8192;
    let dir = tempfile::tempdir().unwrap();
    qemu_img(&["create", "-q", "-f", "qcow2", "disk", "64M"], &dir);
    let args = ["--path", "disk", "--format", "qcow2"];
    let mut running = Running(outboard_blk(&args, &dir).spawn().unwrap());
    let mut driver = connect_within(DEADLINE, &dir.path().join("socket"), 1);
    driver.start();
    let at = |i: u64| BUFFERS + 0x4000 * i;
    let memory = driver.memory.clone();
    let (put, get) = (
        |at, byte: u8| memory.write_obj(byte, GuestAddress(at)),
        |at| memory.read_obj::<u8>(GuestAddress(at)),
    );
    for kind in [VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_IN] {
        for i in 0..COUNT {
            let (header, status, data) = (at(i), at(i) + 0x100, at(i) + 0x1000);
            // Half of a cluster each, and clusters in a wild order.
            let sector = (i * 7 % COUNT) * 64 + i / 10 * 4096;
            memory.write_obj(kind, GuestAddress(header)).unwrap();
            memory.write_obj(sector, GuestAddress(header + 8)).unwrap();
            put(status, 0xff).unwrap();
            let byte = if kind == VIRTIO_BLK_T_OUT {
                i as u8 + 1
            } else {
                0
            };
            let bytes = [byte; LEN as usize];
            memory.write_slice(&bytes, GuestAddress(data)).unwrap();
            let data = match kind {
                VIRTIO_BLK_T_OUT => r(data, LEN as u32),
                _ => w(data, LEN as u32),
            };
            driver.rings[0].add(&memory, &[r(header, 16), data, w(status, 1)]);
        }
        driver.rings[0].kick();
        for _ in 0..COUNT {
            driver.rings[0].wait_used(&memory);
        }
        for i in 0..COUNT {
            assert_eq!(get(at(i) + 0x100).unwrap(), 0);
            assert_eq!(get(at(i) + 0x1000 + LEN - 1).unwrap(), i as u8 + 1);
        }
    }
    drop(driver);
    running.0.kill().unwrap();
    running.wait();
    qemu_img(&["check", "-q", "disk"], &dir);
}
