//! Backends killed under a working guest: nothing is lost, nothing done twice.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::{Duration, Instant};

use tests::backend::{self, Backend};
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, guest, network, program, repetitions, scratch};

use crate::host::shown;
use crate::supervise::outboard_blk;

/// `make soak` asks for more.
const KILLS: u64 = 200;
const KILLS_VARIABLE: &str = "OUTBOARD_KILLS";
/// Longest time from a backend's start to its end, in microseconds. Some live long enough
/// to count as sound, so that the next ones are not started with pauses of a second.
const LIFE: u64 = 150_000;
const MIB: u64 = 8;
const QUEUES: usize = 4;

fn kills() -> u64 {
    repetitions(KILLS_VARIABLE, KILLS)
}

/// Random moments. The seed is printed, for who wants the same again.
pub struct Moments {
    state: u64,
    /// All of them are earlier, in microseconds.
    end: u64,
}

impl Moments {
    pub fn new(end: u64) -> Self {
        let seed = RandomState::new().hash_one(0);
        println!("seed {seed:#x}");
        Self { state: seed, end }
    }

    pub fn next(&mut self) -> Duration {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Duration::from_micros((self.state >> 33) % self.end)
    }
}

fn start_backend(dir: &Path, image: &Path) -> Backend {
    backend::outboard_blk(dir, image, &["--queues", &QUEUES.to_string()])
}

/// A guest that keeps 64 requests in flight on four queues, compares what it
/// reads, and is never told of an error.
pub fn storming(spec: &str, options: &str) -> Vmm {
    storming_on(QUEUES, spec, options)
}

/// The same on another number of queues.
pub fn storming_on(queues: usize, spec: &str, options: &str) -> Vmm {
    let cmdline = format!("mode=storm queues={queues} timeout=3600 {options}");
    Vmm::new(guest::bare("virtio"))
        .cmdline(&cmdline)
        .arg("--device", spec)
}

pub fn start(vmm: Vmm) -> Running {
    let vmm = vmm.start();
    vmm.process
        .wait_for("storm: start queues=4 depth=16", DEADLINE);
    vmm
}

fn start_guest(spec: &str, options: &str) -> Running {
    start(storming(spec, options))
}

/// Tells the guest to finish: it waits for all requests, reads every block back
/// and audits its rings. Returns how many requests it has made.
pub fn finish(vmm: Running) -> u64 {
    finish_on(QUEUES, vmm)
}

/// The same on another number of queues.
pub fn finish_on(queues: usize, mut vmm: Running) -> u64 {
    vmm.process.send(b"x");
    vmm.process.wait_for("storm: ok", DEADLINE);
    vmm.process.close_stdin();
    vmm.process.expect_exit(0, DEADLINE);
    assert!(
        !vmm.messages().contains("needs a reset"),
        "{}",
        vmm.messages()
    );
    let console = vmm.console();
    let requests = console.split_whitespace().filter_map(|word| {
        let number = word.strip_prefix("requests=")?;
        number.parse::<u64>().ok()
    });
    let requests: Vec<_> = requests.collect();
    assert_eq!(requests.len(), queues, "{console}");
    requests.iter().sum()
}

/// Kills the machine's backend, and the next one, at any moment of their lives.
fn kill_again_and_again(vmm: &Running, moments: &mut Moments) {
    let mut line = 0;
    for _ in 0..kills() {
        let text = "the backend's process has started";
        let (next, started) = vmm.process.wait_for_after(line, text, DEADLINE);
        // Not a synchronisation: any moment will do.
        std::thread::sleep(moments.next());
        vmm.kill_backend(&started);
        line = next;
    }
}

/// Killed at any moment of its life, also while it starts and is negotiated with.
#[test]
fn a_guest_on_four_queues_sees_nothing_of_two_hundred_killed_block_backends() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), MIB);
    storm_of_killed_block_backends(&image, "event_idx indirect");
}

/// Where a backend was in a packed ring nobody knows but its record.
#[test]
fn packed_queues_see_nothing_of_two_hundred_killed_block_backends() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), MIB);
    storm_of_killed_block_backends(&image, "packed event_idx");
}

fn storm_of_killed_block_backends(image: &Path, options: &str) {
    let command = outboard_blk(image, &format!("--queues {QUEUES}"));
    let vmm = start_guest(&format!("blk,exec=\"{command}\""), options);
    let (mut moments, begun) = (Moments::new(LIFE), Instant::now());
    kill_again_and_again(&vmm, &mut moments);
    let elapsed = begun.elapsed();
    let requests = finish(vmm);
    println!("{} kills in {elapsed:.1?}, {requests} requests", kills());
    assert_much_to_lose(requests);
}

/// Where guest and backends take turns on one CPU, too little comes between two kills.
fn assert_much_to_lose(done: u64) {
    let cpus = std::thread::available_parallelism().unwrap().get();
    if shown(cpus > 1, "backends that are killed with much in flight") {
        assert!(done > 10 * kills(), "there was hardly anything to lose");
    }
}

#[test]
fn backends_that_somebody_else_starts_again_are_as_good() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), MIB);
    let mut disk = start_backend(dir.path(), &image);
    let spec = format!("blk,socket={}", disk.socket.display());
    let vmm = start_guest(&spec, "event_idx indirect");
    let mut moments = Moments::new(LIFE);
    for _ in 0..20 {
        disk.process.wait_for("a frontend has connected", DEADLINE);
        // Not a synchronisation: any moment will do.
        std::thread::sleep(moments.next());
        disk.process.signal(libc::SIGKILL);
        disk.process.wait(DEADLINE);
        disk = start_backend(dir.path(), &image);
    }
    finish(vmm);
}

#[test]
fn a_guest_without_kills_passes_its_own_audit() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), MIB);
    let disk = start_backend(dir.path(), &image);
    let spec = format!("blk,socket={}", disk.socket.display());
    for options in [
        "",
        "poll",
        "event_idx",
        "indirect event_idx ring=0",
        "packed",
        "packed indirect event_idx",
    ] {
        let vmm = start_guest(&spec, options);
        assert!(finish(vmm) >= 64, "{options}");
    }
}

/// The number behind `key=` on the guest's last line.
fn counted(vmm: &Running, key: &str) -> u64 {
    let console = vmm.console();
    let (_, after) = console.rsplit_once(&format!(" {key}=")).unwrap();
    after.split_whitespace().next().unwrap().parse().unwrap()
}

/// Frames may be lost with a backend, or sent by two of them. But none is
/// damaged, each buffer comes back once, and in the end frames still pass.
#[test]
fn no_buffer_is_lost_with_two_hundred_killed_network_backends() {
    storm_of_killed_network_backends("event_idx indirect");
}

#[test]
fn no_buffer_of_packed_queues_is_lost_with_two_hundred_killed_network_backends() {
    storm_of_killed_network_backends("packed event_idx indirect");
}

/// A guest that sends frames to a peer that sends them back, until it is told to finish.
pub fn storming_on_a_network(dir: &Path, options: &str) -> Vmm {
    let peer = network::echo_peer(dir);
    let command = format!(
        "{} --peer-connect {}",
        program::own("outboard-net").display(),
        peer.display()
    );
    Vmm::new(guest::bare("virtio"))
        .cmdline(&format!("net=storm timeout=3600 {options}"))
        .arg("--device", format!("net,exec=\"{command}\""))
}

/// Starts such a guest.
pub fn start_on_a_network(vmm: Vmm) -> Running {
    let vmm = vmm.start();
    vmm.process.wait_for("net storm: start depth=16", DEADLINE);
    vmm
}

/// Ends its work, of which it then tells.
pub fn finish_on_a_network(vmm: &mut Running) {
    vmm.process.send(b"x");
    vmm.process.wait_for("net storm: ok", DEADLINE);
    vmm.process.close_stdin();
    vmm.process.expect_exit(0, DEADLINE);
    let messages = vmm.messages();
    assert!(!messages.contains("needs a reset"), "{messages}");
}

fn storm_of_killed_network_backends(options: &str) {
    let dir = scratch();
    let mut vmm = start_on_a_network(storming_on_a_network(dir.path(), options));
    let (mut moments, begun) = (Moments::new(LIFE), Instant::now());
    kill_again_and_again(&vmm, &mut moments);
    let elapsed = begun.elapsed();
    finish_on_a_network(&mut vmm);
    let [sent, received, again] = ["sent", "received", "again"].map(|key| counted(&vmm, key));
    println!(
        "{} kills in {elapsed:.1?}, {sent} frames sent, {received} came back",
        kills()
    );
    assert_much_to_lose(received - again);
}
