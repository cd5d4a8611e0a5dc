//! Reads of a disk without a guest: `outboard-blk` beside QEMU's storage daemon, each driven by the
//! tests' frontend, which sleeps until it is interrupted.
//!
//! All are measured in turn, and each row is a median with the median of the ratios: the machines
//! that this runs on are shared and noisy. `OUTBOARD_BLK_OTHER` names another build to compare with.

#[path = "../tests/common/mod.rs"]
mod common;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{BUFFERS, DEADLINE, Desc, Driver, INDIRECT, NEXT, QUEUE_SIZE, connect_within, r, w};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Of each measurement.
const ROUNDS: usize = 5;
const DURATION: Duration = Duration::from_secs(2);
const READ: u32 = 4096;
const SECTORS_PER_READ: u64 = READ as u64 / 512;

/// A row of the table.
struct Row {
    name: &'static str,
    image: PathBuf,
    /// Of the image, in bytes.
    size: u64,
    direct: bool,
    depth: u64,
}

/// The result of one measurement.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    /// Of the backend's time on a processor, in microseconds.
    cpu_per_read: f64,
    /// In microseconds.
    median_latency: f64,
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let cached = image(dir.path(), "cached", 64 << 20);
    let large = image(dir.path(), "large", 4 << 30);
    std::fs::read(&cached).unwrap();
    let row = |name, image: &Path, direct, depth| Row {
        name,
        image: image.to_owned(),
        size: image.metadata().unwrap().len(),
        direct,
        depth,
    };
    let rows = [
        row("in the page cache, depth 1", &cached, false, 1),
        row("in the page cache, depth 32", &cached, false, 32),
        row("O_DIRECT, depth 1", &large, true, 1),
        row("O_DIRECT, depth 32", &large, true, 32),
    ];
    let wanted = std::env::args().nth(1).filter(|arg| arg != "--bench");
    let wanted = wanted.unwrap_or_default();
    println!("4 KiB random reads by a frontend without a guest, one queue");
    for row in rows.iter().filter(|row| row.name.contains(&wanted)) {
        compare(row);
    }
}

/// A file of random bytes, on disk.
fn image(dir: &Path, name: &str, size: u64) -> PathBuf {
    let path = dir.join(name);
    let mut file = File::create(&path).unwrap();
    let mut state = 1u64;
    let mut block = vec![0; 1 << 20];
    for _ in 0..size >> 20 {
        for bytes in block.chunks_mut(8) {
            bytes.copy_from_slice(&random(&mut state).to_le_bytes());
        }
        file.write_all(&block).unwrap();
    }
    file.sync_all().unwrap();
    path
}

/// Marsaglia's xorshift.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn compare(row: &Row) {
    let program =
        |options: &[&str]| ours(env!("CARGO_BIN_EXE_outboard-blk").as_ref(), row, options);
    let other = std::env::var_os("OUTBOARD_BLK_OTHER");
    let mut names = vec![
        "outboard-blk",
        "outboard-blk --poll-us 50",
        "qemu-storage-daemon",
    ];
    names.extend(other.is_some().then_some("the other outboard-blk"));
    let start = |which| match (which, &other) {
        (0, _) => program(&[]),
        (1, _) => program(&["--poll-us=50"]),
        (2, _) | (_, None) => qemu(row),
        (_, Some(other)) => ours(other, row, &[]),
    };
    let round = |_| -> Vec<Figures> {
        let backends = (0..names.len()).map(start);
        backends.map(|backend| measure(&backend, row)).collect()
    };
    let rounds: Vec<Vec<Figures>> = (0..ROUNDS).map(round).collect();
    println!("{}:", row.name);
    for (which, name) in names.iter().enumerate() {
        let of = |field: fn(&Figures) -> f64| median(rounds.iter().map(|all| field(&all[which])));
        let ratio = |field: fn(&Figures) -> f64| {
            median(rounds.iter().map(|all| field(&all[0]) / field(&all[which])))
        };
        println!(
            "  {name}: {:.0} reads a second, median latency {:.0} µs, {:.1} µs of CPU a read",
            of(|f| f.per_second),
            of(|f| f.median_latency),
            of(|f| f.cpu_per_read),
        );
        if which > 0 {
            println!(
                "    outboard-blk has {:.2} times as many, for {:.2} times the CPU a read",
                ratio(|f| f.per_second),
                ratio(|f| f.cpu_per_read),
            );
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A backend that runs.
struct Backend {
    child: Child,
    dir: tempfile::TempDir,
}

impl Backend {
    fn start(program: impl AsRef<OsStr>, options: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = Command::new(program)
            .args(options)
            .current_dir(&dir)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Backend { child, dir }
    }

    /// Time on a processor since it was started.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name, which may have spaces: utime is field 14 and stime 15, in ticks.
        let fields = stat.rsplit(')').next().unwrap();
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().unwrap())
            .sum();
        Duration::from_millis(10 * ticks)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ours(program: &OsStr, row: &Row, more: &[&str]) -> Backend {
    let mut options = vec![
        "--socket=socket".to_owned(),
        format!("--path={}", row.image.display()),
    ];
    if row.direct {
        options.push("--direct".to_owned());
    }
    options.extend(more.iter().map(|&option| option.to_owned()));
    Backend::start(program, &options)
}

fn qemu(row: &Row) -> Backend {
    let cache = if row.direct { "on" } else { "off" };
    let file = format!(
        "driver=file,node-name=file,filename={},aio=io_uring,cache.direct={cache}",
        row.image.display()
    );
    let export = "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=socket,\
                  writable=on";
    let options = [
        "--blockdev",
        &file,
        "--blockdev",
        "driver=raw,node-name=disk,file=file",
        "--export",
        export,
    ];
    Backend::start("qemu-storage-daemon", &options.map(str::to_owned))
}

/// Reads for a while, with `depth` requests in flight.
fn measure(backend: &Backend, row: &Row) -> Figures {
    let socket = backend.dir.path().join("socket");
    let mut driver = connect_within(DEADLINE, &socket, 1);
    driver.start();
    let mut load = Load::new(driver, row);
    load.run(DURATION / 10);
    let (cpu, begin) = (backend.cpu(), Instant::now());
    let mut latencies = load.run(DURATION);
    let (cpu, elapsed) = (backend.cpu() - cpu, begin.elapsed());
    latencies.sort_unstable();
    Figures {
        per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
        cpu_per_read: cpu.as_secs_f64() * 1e6 / latencies.len() as f64,
        median_latency: latencies[latencies.len() / 2].as_secs_f64() * 1e6,
    }
}

/// A driver that reads at random places.
struct Load {
    driver: Driver,
    depth: u64,
    places: u64,
    state: u64,
    begun: Vec<Instant>,
    /// With the ring's interrupt in it.
    epoll: Epoll,
}

/// Where a request is: its table of descriptors, header, status and data.
fn slot(number: u64) -> u64 {
    BUFFERS + 0x3000 * number
}

impl Load {
    fn new(driver: Driver, row: &Row) -> Self {
        assert!(row.depth <= u64::from(QUEUE_SIZE));
        for number in 0..row.depth {
            let at = slot(number);
            let table = [r(at + 0x100, 16), w(at + 0x1000, READ), w(at + 0x200, 1)];
            for (i, desc) in (0u16..).zip(table) {
                let next = if i < 2 { NEXT } else { 0 };
                let bytes = [
                    &desc.addr.to_le_bytes()[..],
                    &desc.len.to_le_bytes(),
                    &(desc.flags | next).to_le_bytes(),
                    &(i + 1).to_le_bytes(),
                ];
                let place = GuestAddress(at + 16 * u64::from(i));
                driver.memory.write_slice(&bytes.concat(), place).unwrap();
            }
            let desc = Desc {
                addr: at,
                len: 48,
                flags: INDIRECT,
            };
            driver.rings[0].write_desc(&driver.memory, number as u16, desc, 0);
        }
        let epoll = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        let call = driver.rings[0].call.as_raw_fd();
        epoll.ctl(ControlOperation::Add, call, event).unwrap();
        Load {
            epoll,
            driver,
            depth: row.depth,
            places: row.size / u64::from(READ),
            state: 42,
            begun: vec![Instant::now(); row.depth as usize],
        }
    }

    /// Makes request `number` available.
    fn add(&mut self, number: u16) {
        let at = slot(number.into());
        let sector = random(&mut self.state) % self.places * SECTORS_PER_READ;
        let memory = &self.driver.memory;
        memory.write_obj(sector, GuestAddress(at + 0x108)).unwrap();
        memory.write_obj(0xffu8, GuestAddress(at + 0x200)).unwrap();
        self.begun[usize::from(number)] = Instant::now();
        self.driver.rings[0].publish(memory, number);
    }

    /// Reads for `duration`; returns how long each read took.
    fn run(&mut self, duration: Duration) -> Vec<Duration> {
        let mut latencies = Vec::with_capacity(1 << 20);
        let begin = Instant::now();
        (0..self.depth as u16).for_each(|number| self.add(number));
        self.driver.rings[0].kick_if_wanted(&self.driver.memory, self.depth as u16);
        let mut in_flight = self.depth;
        while in_flight > 0 {
            let mut added = 0;
            let mut next = self.wait_used();
            while let Some((number, _)) = next {
                latencies.push(self.begun[usize::from(number)].elapsed());
                let status: u8 = self.status(number);
                assert_eq!(status, 0);
                if begin.elapsed() < duration {
                    self.add(number);
                    added += 1;
                } else {
                    in_flight -= 1;
                }
                next = self.driver.rings[0].poll_used(&self.driver.memory);
            }
            self.driver.rings[0].kick_if_wanted(&self.driver.memory, added);
        }
        latencies
    }

    /// Sleeps until a request is finished.
    fn wait_used(&mut self) -> Option<(u16, u32)> {
        let Driver { rings, memory, .. } = &mut self.driver;
        loop {
            if let Some(used) = rings[0].poll_used(memory) {
                return Some(used);
            }
            rings[0].want_interrupt(memory);
            if let Some(used) = rings[0].poll_used(memory) {
                return Some(used);
            }
            let mut events = [EpollEvent::default()];
            let count = self.epoll.wait(DEADLINE.as_millis() as i32, &mut events);
            assert_eq!(count.unwrap(), 1, "no interrupt");
            rings[0].call.read().unwrap();
        }
    }

    fn status(&self, number: u16) -> u8 {
        let at = GuestAddress(slot(number.into()) + 0x200);
        self.driver.memory.read_obj(at).unwrap()
    }
}
