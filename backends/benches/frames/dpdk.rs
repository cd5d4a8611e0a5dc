//! Frames that DPDK's test program keeps in flight: by its frontend `net_virtio_user` to
//! `outboard-net`, whose peer sends each back, or to its own backend `net_vhost` in a second
//! process, which does the same. All that DPDK starts polls.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::peer::Peer;

const PROGRAM: &str = "dpdk-testpmd";
/// Of the program's lines, one a second, those that count: it begins slowly.
const SKIPPED: usize = 1;
const COUNTED: usize = 3;
const START: Duration = Duration::from_secs(20);

/// Whether this host has it.
pub fn is_here() -> bool {
    let found = Command::new(PROGRAM)
        .args(["--no-huge", "--no-pci", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    found.is_ok()
}

/// Frames a second that come back from `outboard-net`, and its CPU time for each in microseconds.
pub fn through_outboard(program: &str, size: u32) -> (f64, f64) {
    let dir = tempfile::tempdir().unwrap();
    let options = ["--socket=socket", "--peer-listen=link"].map(str::to_owned);
    let backend = Backend::start(program, &options);
    wait_for(&backend.socket());
    wait_for(&backend.file("link"));
    let _peer = Peer::connect(&backend.file("link"));
    let (cpu, begin) = (backend.cpu(), Instant::now());
    let rate = send(dir.path(), &backend.socket(), size);
    let cpu = (backend.cpu() - cpu).as_secs_f64() / begin.elapsed().as_secs_f64();
    (rate, cpu * 1e6 / rate)
}

/// Frames a second that come back from `net_vhost`.
pub fn through_net_vhost(size: u32) -> f64 {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let socket = here.path().join("socket");
    let device = format!("net_vhost0,iface={},queues=1", socket.display());
    let _backend = Running::start(here.path(), &device, &["--auto-start"]);
    wait_for(&socket);
    send(there.path(), &socket, size)
}

/// Has `net_virtio_user` keep frames in flight, and returns how many come back a second.
fn send(dir: &Path, socket: &Path, size: u32) -> f64 {
    let device = format!("net_virtio_user0,path={},queues=1", socket.display());
    let size = format!("--txpkts={size}");
    let options = ["--tx-first", "--stats-period=1", &size];
    let mut sender = Running::start(dir, &device, &options);
    let lines = BufReader::new(sender.0.stdout.take().unwrap()).lines();
    let rates = lines.filter_map(|line| {
        let line = line.unwrap();
        let (_, rate) = line.trim_start().split_once("Rx-pps:")?;
        rate.split_whitespace().next()?.parse().ok()
    });
    let mut rates: Vec<f64> = rates.skip(SKIPPED).take(COUNTED).collect();
    assert_eq!(rates.len(), COUNTED, "{PROGRAM} ended early");
    rates.sort_by(f64::total_cmp);
    rates[COUNTED / 2]
}

fn wait_for(path: &Path) {
    let end = Instant::now() + START;
    while !path.exists() {
        assert!(Instant::now() < end, "{} does not appear", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The test program with one device, which sends back what it gets.
struct Running(Child);

impl Running {
    fn start(dir: &Path, device: &str, options: &[&str]) -> Self {
        let child = Command::new("stdbuf")
            .args(["--output=L", PROGRAM, "--no-huge", "-m", "256", "--no-pci"])
            // It would keep its threads on processors that others need.
            .args(["--no-telemetry", &format!("--lcores={}", lcores())])
            .arg(format!("--vdev={device}"))
            .args(["--", "--forward-mode=io", "--port-topology=loop"])
            .arg("--total-num-mbufs=4096")
            .args(options)
            // Where it has the files that its processes share.
            .env("RUNTIME_DIRECTORY", dir)
            // It ends with its input.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        Running(child.unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two threads that may run wherever this process may.
fn lcores() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let (_, list) = status.split_once("Cpus_allowed_list:").unwrap();
    let list = list.split_whitespace().next().unwrap();
    format!("0@({list}),1@({list})")
}
