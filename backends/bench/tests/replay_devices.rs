//! What differs between two answers of a device that behaves is not taken for a difference: each
//! device of another project is recorded, and asked again in a new process.

mod recorder;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use workbench::driver::{Buffers, Frontend, Session, Setup};

/// What no device writes by chance: it stays where nothing is written.
const UNWRITTEN: u8 = 0xee;

/// A device's process, which ends with the value.
struct Device {
    process: Child,
    socket: PathBuf,
}

impl Device {
    /// Starts a program of the cache, which begins to listen at `socket`.
    fn start(program: &str, args: &[&str], socket: PathBuf) -> Self {
        let mut command = Command::new(cached(program));
        command.args(args).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let mut device = Self { process, socket };
        let end = Instant::now() + Duration::from_secs(20);
        while !device.socket.exists() {
            assert!(Instant::now() < end, "{program} does not listen");
            assert!(device.process.try_wait().unwrap().is_none(), "{program}");
            thread::yield_now();
        }
        device
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // It may have ended with its connection.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A program that `make setup` has put into the cache.
fn cached(path: &str) -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| home().join(".cache"));
    let program = cache.join("outboard").join(path);
    assert!(
        program.exists(),
        "{} is not there; run `make setup` first",
        program.display()
    );
    program
}

/// Records what `drive` does with the device that `start` starts in a directory, and replays it to
/// another one. Returns what was told.
fn ask_twice(
    device_type: &str,
    queues: usize,
    start: impl Fn(&Path) -> Device,
    drive: impl FnOnce(&mut Session),
) -> String {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let device = start(here.path());
    let file = recorder::record(
        here.path(),
        device_type,
        &device.socket,
        |stream: UnixStream| {
            let setup = Setup::default().queues(queues, 64);
            drive(&mut setup.start(Frontend::new(stream)).unwrap());
        },
    );
    let device = start(there.path());
    let (is_equal, text) = recorder::replay(&file, &device.socket, &[]);
    assert!(is_equal, "{text}");
    text
}

/// Makes a request, and returns the writable part of it.
fn ask(session: &mut Session, queue: usize, readable: &[u8], writable: u32) -> Vec<u8> {
    let memory = session.memory().clone();
    let buffers = Buffers::place(&memory, readable, writable).unwrap();
    buffers.refill(&memory, UNWRITTEN).unwrap();
    session.run(queue, &buffers).unwrap();
    buffers.finish(&memory).unwrap()
}

/// Buffers that wait for what comes from elsewhere.
fn offer(session: &mut Session, queue: usize, count: usize) {
    for _ in 0..count {
        let buffers = Buffers::place(session.memory(), &[], 1024).unwrap();
        session.queue_mut(queue).submit(buffers.chain()).unwrap();
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Requests of FUSE (include/uapi/linux/fuse.h), numbered.
struct Fuse<'a> {
    session: &'a mut Session,
    count: u64,
}

impl Fuse<'_> {
    /// Returns what is behind the header of the answer.
    fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
        self.count += 1;
        let mut bytes = words(&[40 + body.len() as u32, opcode]);
        bytes.extend(self.count.to_le_bytes());
        bytes.extend(node.to_le_bytes());
        bytes.extend([0; 16]);
        bytes.extend(body);
        let answer = ask(self.session, 1, &bytes, 16 + 4096);
        assert_eq!(answer[4..8], [0; 4], "request {opcode}: an error");
        answer[16..].to_vec()
    }

    /// A node's number, or a handle.
    fn number(&mut self, opcode: u32, node: u64, body: &[u8]) -> u64 {
        let answer = self.ask(opcode, node, body);
        u64::from_le_bytes(*answer.first_chunk().unwrap())
    }

    /// READ or READDIR, from the begin.
    fn read(&mut self, opcode: u32, node: u64, handle: u64) -> Vec<u8> {
        let body = [
            &handle.to_le_bytes()[..],
            &[0; 8],
            &words(&[4000, 0, 0, 0, 0, 0]),
        ]
        .concat();
        self.ask(opcode, node, &body)
    }
}

const ROOT: u64 = 1;
const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;

#[test]
fn a_file_system_is_asked_again() {
    let start = |dir: &Path| {
        let share = dir.join("share");
        std::fs::create_dir(&share).unwrap();
        std::fs::write(share.join("file"), b"what is in it").unwrap();
        let socket = dir.join("fs.sock");
        let (path, share) = (socket.to_str().unwrap(), share.to_str().unwrap());
        let args = [
            "--socket-path",
            path,
            "--shared-dir",
            share,
            "--sandbox",
            "none",
        ];
        Device::start("virtiofsd/bin/virtiofsd", &args, socket.clone())
    };
    let text = ask_twice("fs", 2, start, |session| {
        let mut fuse = Fuse { session, count: 0 };
        fuse.ask(INIT, 0, &words(&[7, 31, 0, 0]));
        let node = fuse.number(LOOKUP, ROOT, b"file\0");
        let read_write = words(&[2, 0]);
        let handle = fuse.number(OPEN, node, &read_write);
        assert_eq!(fuse.read(READ, node, handle)[..13], *b"what is in it");
        let at_begin = [
            &handle.to_le_bytes()[..],
            &[0; 8],
            &words(&[4, 0, 0, 0, 0, 0]),
        ]
        .concat();
        fuse.ask(WRITE, node, &[&at_begin[..], b"That"].concat());
        assert_eq!(fuse.read(READ, node, handle)[..13], *b"That is in it");
        fuse.ask(GETATTR, node, &[0; 16]);
        fuse.ask(
            RELEASE,
            node,
            &[&handle.to_le_bytes()[..], &[0; 16]].concat(),
        );
        let handle = fuse.number(OPENDIR, ROOT, &[0; 8]);
        fuse.read(READDIR, ROOT, handle);
    });
    assert!(text.contains("10 answered the same, 0 not"), "{text}");
}

/// Of `room` bytes for data.
fn scsi(session: &mut Session, cdb: &[u8], room: u32) -> Vec<u8> {
    let mut request = vec![1, 0, 0x40, 0, 0, 0, 0, 0];
    request.resize(19, 0);
    request.extend(cdb);
    request.resize(19 + 32, 0);
    ask(session, 2, &request, 12 + 96 + room)
}

#[test]
fn a_disk_of_scsi_is_asked_again() {
    let start = |dir: &Path| {
        let image = dir.join("disk.img");
        std::fs::write(&image, vec![0x5a; 1 << 20]).unwrap();
        let socket = dir.join("scsi.sock");
        let args = [
            "--socket-path",
            socket.to_str().unwrap(),
            image.to_str().unwrap(),
        ];
        Device::start("vhost-device/bin/vhost-device-scsi", &args, socket.clone())
    };
    let text = ask_twice("scsi", 3, start, |session| {
        offer(session, 1, 2);
        // TEST UNIT READY, INQUIRY, READ CAPACITY, READ of a block into room for more.
        scsi(session, &[0; 6], 0);
        scsi(session, &[0x12, 0, 0, 0, 36, 0], 36);
        scsi(session, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8);
        let read = scsi(session, &[0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0], 1024);
        assert_eq!(read[108..620], [0x5a; 512]);
        // What nobody knows, which sense data says.
        let unknown = scsi(session, &[0xff; 6], 0);
        assert_ne!(unknown[0], 0, "no sense data");
    });
    assert!(text.contains("5 answered the same, 0 not"), "{text}");
}

#[test]
fn a_console_is_asked_again() {
    let start = |dir: &Path| {
        let socket = dir.join("console.sock");
        let port = free_port();
        let args = [
            "--socket-path",
            socket.to_str().unwrap(),
            "--backend",
            "network",
        ];
        let args = [&args[..], &["--tcp-port", &port]].concat();
        // It puts a number behind the name that it is given.
        let listens = dir.join("console.sock0");
        Device::start("vhost-device/bin/vhost-device-console", &args, listens)
    };
    let text = ask_twice("console", 2, start, |session| {
        offer(session, 0, 3);
        for line in ["first\n", "second\n"] {
            ask(session, 1, line.as_bytes(), 0);
        }
    });
    assert!(text.contains("2 answered the same, 0 not"), "{text}");
    assert!(
        text.contains("3 are buffers for what comes from elsewhere"),
        "{text}"
    );
}

/// Of TCP, that nobody has at the moment.
fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// A request for a connection to a port at which nobody listens.
#[test]
fn a_socket_device_is_asked_again() {
    let start = |dir: &Path| {
        let (socket, host) = (dir.join("vsock.sock"), dir.join("host.sock"));
        let (path, host) = (socket.to_str().unwrap(), host.to_str().unwrap());
        let args = ["--socket", path, "--uds-path", host, "--guest-cid", "42"];
        Device::start("vhost-device/bin/vhost-device-vsock", &args, socket.clone())
    };
    let text = ask_twice("vsock", 3, start, |session| {
        offer(session, 0, 4);
        offer(session, 2, 1);
        // struct virtio_vsock_hdr: VIRTIO_VSOCK_OP_REQUEST of a stream.
        let mut packet = 42u64.to_le_bytes().to_vec();
        packet.extend(2u64.to_le_bytes());
        packet.extend(words(&[1024, 1, 0, 1 << 16 | 1, 0, 1 << 16, 0]));
        ask(session, 1, &packet, 0);
    });
    assert!(text.contains("1 answered the same, 0 not"), "{text}");
}
