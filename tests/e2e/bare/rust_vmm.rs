//! Backends on rust-vmm's crate, of several releases: a disk like Cloud Hypervisor's
//! `vhost_user_block`, and virtiofsd. A thread of theirs that meets a kick descriptor other
//! than the one it waits on ends, and the device is silent from then on.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use tests::backend::{self, Backend};
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, guest, repetitions, scratch};

use crate::host::provides;
use crate::killstorm;

const MIB: u64 = 8;
/// Those that begin a ring at its beginning after a reset: 0.10 keeps its used index.
const RELEASES: [&str; 3] = ["0.17", "0.20", "0.24"];
const OLDEST: &str = "0.10";

/// `make soak` asks for more.
fn times() -> u64 {
    repetitions("OUTBOARD_RESETS", 200)
}

/// A disk and a file system.
struct Backends {
    disk: Backend,
    fs: Backend,
}

impl Backends {
    fn start(dir: &Path, release: &str) -> Self {
        let shared = dir.join("shared");
        std::fs::create_dir(&shared).unwrap();
        Self {
            disk: backend::rust_vmm_blk(dir, &backend::disk_image(dir, MIB), release),
            fs: backend::virtiofsd(dir, &shared, &["--tag", "shared"]),
        }
    }

    fn machine(&self, cmdline: &str) -> Vmm {
        Vmm::new(guest::bare("virtio"))
            .cmdline(&format!("timeout=3600 {cmdline}"))
            .device("blk", &self.disk.socket)
            .device("fs", &self.fs.socket)
    }
}

#[test]
fn each_is_reset_two_hundred_times_in_the_middle_of_its_work() {
    if !provides("virtiofsd") {
        return;
    }
    for release in RELEASES {
        let dir = scratch();
        let backends = Backends::start(dir.path(), release);
        let cmdline = format!("mode=reset resets={} event_idx", times());
        let mut vmm = backends.machine(&cmdline).start();
        vmm.process.close_stdin();
        vmm.process.expect_exit(0, 4 * DEADLINE);
        let console = vmm.console();
        assert_eq!(console.matches("reset: ok").count(), 2, "{console}");
        println!("{release}: {console}");
        assert!(sum(&console, "in_flight=") > times(), "{console}");
    }
}

#[test]
fn a_guest_of_theirs_reboots_two_hundred_times_in_the_middle_of_its_work() {
    if !provides("virtiofsd") {
        return;
    }
    for release in RELEASES {
        let dir = scratch();
        let backends = Backends::start(dir.path(), release);
        let vmm = backends.machine("mode=reboot").start();
        let mut line = 0;
        for _ in 0..times() {
            line = wait_for_reboot(&vmm, line);
        }
        finish_reboots(vmm);
    }
}

#[test]
fn all_are_paused_two_hundred_times_under_a_guest_that_reboots() {
    if !provides("virtiofsd") {
        return;
    }
    for release in RELEASES {
        let dir = scratch();
        let backends = Backends::start(dir.path(), release);
        let vmm = backends.machine("mode=reboot event_idx").gdb(dir.path());
        let vmm = vmm.start();
        wait_for_reboot(&vmm, 0);
        pause_again_and_again(vmm.gdb_socket());
        let printed = vmm.process.lines().len();
        wait_for_reboot(&vmm, printed);
        finish_reboots(vmm);
    }
}

#[test]
fn disks_are_paused_two_hundred_times_with_requests_in_flight() {
    for release in [OLDEST].iter().chain(&RELEASES) {
        let dir = scratch();
        let image = backend::disk_image(dir.path(), MIB);
        let disk = backend::rust_vmm_blk(dir.path(), &image, release);
        let spec = format!("blk,socket={}", disk.socket.display());
        let vmm = killstorm::storming(&spec, "event_idx").gdb(dir.path());
        let vmm = killstorm::start(vmm);
        pause_again_and_again(vmm.gdb_socket());
        let requests = killstorm::finish(vmm);
        println!("{release}: {requests} requests");
    }
}

fn wait_for_reboot(vmm: &Running, line: usize) -> usize {
    let text = "reboot: in_flight=";
    vmm.process.wait_for_after(line, text, DEADLINE).0
}

fn finish_reboots(mut vmm: Running) {
    vmm.process.send(b"x");
    vmm.process.wait_for("reboot: ok", DEADLINE);
    vmm.process.close_stdin();
    vmm.process.expect_exit(0, DEADLINE);
    let in_flight = sum(&vmm.console(), "in_flight=");
    println!("{in_flight} requests were in flight");
    assert!(in_flight > 10, "{}", vmm.console());
    let messages = vmm.messages();
    assert!(!messages.contains("needs a reset"), "{messages}");
}

/// The sum of what stands behind `key`.
fn sum(console: &str, key: &str) -> u64 {
    let words = console.split_whitespace();
    let numbers = words.filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
    numbers.sum()
}

/// Attaches, has the devices paused, and detaches.
fn pause_again_and_again(socket: &Path) {
    for _ in 0..times() {
        let mut gdb = UnixStream::connect(socket).unwrap();
        gdb.set_read_timeout(Some(DEADLINE)).unwrap();
        ask(&mut gdb, "?");
        let hex: String = "pause-devices on"
            .bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        ask(&mut gdb, &format!("qRcmd,{hex}"));
        assert_eq!(ask(&mut gdb, "D"), "OK");
    }
}

/// Sends a packet and reads the answer, up to the last one of several.
fn ask(gdb: &mut UnixStream, packet: &str) -> String {
    let sum = packet.bytes().fold(0u8, u8::wrapping_add);
    write!(gdb, "${packet}#{sum:02x}").unwrap();
    loop {
        let answer = read_packet(gdb);
        // Behind the last answer the other side hangs up.
        let _ = gdb.write_all(b"+");
        // Text on gdb's console comes before the answer.
        if !answer.starts_with('O') || answer == "OK" {
            return answer;
        }
    }
}

fn read_packet(gdb: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < 3 || bytes[bytes.len() - 3] != b'#' {
        let mut byte = [0];
        gdb.read_exact(&mut byte).unwrap();
        if byte != [b'+'] || !bytes.is_empty() {
            bytes.push(byte[0]);
        }
    }
    let packet = &bytes[1..bytes.len() - 3];
    String::from_utf8_lossy(packet).into_owned()
}
