//! A disk without a guest: `outboard-blk` beside QEMU's storage daemon, each driven by the tests'
//! frontend, which sleeps until it is interrupted, and beside plain io_uring, which is the limit.
//!
//! All are measured in turn, and each row is a median with the median of the ratios: the machines
//! that this runs on are shared and noisy. `OUTBOARD_BLK_OTHER` names another build to compare with.

#[path = "../../tests/common/mod.rs"]
mod common;

mod backend;
mod load;
mod plain;
mod row;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backend::{Backend, ours, qemu};
use common::{DEADLINE, connect_within};
use load::Load;
use row::{DIRTY, Row, Work, random};

/// Of each measurement.
const ROUNDS: usize = 5;
const DURATION: Duration = Duration::from_secs(2);

/// What is in the page cache.
const CACHED: u64 = 64 << 20;

/// The result of one measurement.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    /// Of the backend's time on a processor, in microseconds.
    cpu_per_request: f64,
    /// In microseconds.
    median_latency: f64,
    /// That of which only one in a hundred takes longer.
    p99_latency: f64,
}

impl Figures {
    fn of(mut latencies: Vec<Duration>, elapsed: Duration, cpu: Duration) -> Self {
        latencies.sort_unstable();
        let count = latencies.len();
        let latency = |percent: usize| latencies[count * percent / 100].as_secs_f64() * 1e6;
        Figures {
            per_second: count as f64 / elapsed.as_secs_f64(),
            cpu_per_request: cpu.as_secs_f64() * 1e6 / count as f64,
            median_latency: latency(50),
            p99_latency: latency(99),
        }
    }
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), 4 << 30);
    let wanted = std::env::args().nth(1).filter(|arg| arg != "--bench");
    let wanted = wanted.unwrap_or_default();
    println!("requests by a frontend without a guest, one queue");
    for row in rows(&image).iter().filter(|row| row.name.contains(&wanted)) {
        compare(row);
    }
}

fn rows(image: &Path) -> Vec<Row> {
    let cached = |name, depth, work| Row {
        name,
        image: image.to_owned(),
        size: CACHED,
        direct: false,
        depth,
        work,
        len: 4096,
    };
    let direct = |name, depth, work, len| Row {
        name,
        image: image.to_owned(),
        size: image.metadata().unwrap().len(),
        direct: true,
        depth,
        work,
        len,
    };
    vec![
        cached("reads in the page cache, depth 1", 1, Work::Read),
        cached("reads in the page cache, depth 32", 32, Work::Read),
        cached(
            "reads in the page cache, depth 1, beside a FLUSH of 1 GiB",
            1,
            Work::ReadBesideFlush,
        ),
        direct("O_DIRECT reads, depth 1", 1, Work::Read, 4096),
        direct("O_DIRECT reads, depth 32", 32, Work::Read, 4096),
        direct("O_DIRECT writes, depth 32", 32, Work::Write, 4096),
        direct(
            "O_DIRECT reads of 128 KiB in order, depth 8",
            8,
            Work::ReadInOrder,
            128 << 10,
        ),
    ]
}

/// A file of random bytes, on disk.
fn image(dir: &Path, size: u64) -> PathBuf {
    let path = dir.join("image");
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

/// Has the first part of the image read, and the end of it written for a FLUSH.
fn prepare(row: &Row) {
    if row.direct {
        return;
    }
    let file = File::options()
        .read(true)
        .write(true)
        .open(&row.image)
        .unwrap();
    let mut block = vec![0; 1 << 20];
    for at in (0..row.size).step_by(block.len()) {
        file.read_exact_at(&mut block, at).unwrap();
    }
    if row.work == Work::ReadBesideFlush {
        let begin = file.metadata().unwrap().len() - DIRTY;
        for at in (0..DIRTY).step_by(block.len()) {
            file.write_all_at(&block, begin + at).unwrap();
        }
    }
}

fn compare(row: &Row) {
    let other = std::env::var_os("OUTBOARD_BLK_OTHER");
    let program = env!("CARGO_BIN_EXE_outboard-blk").as_ref();
    let backend = |start: &dyn Fn() -> Backend| measure(&start(), row);
    let mut names = vec!["outboard-blk", "outboard-blk --poll-us 50"];
    // It leaves out a FLUSH of data that it has not written itself.
    let has_flush = row.work == Work::ReadBesideFlush;
    names.extend((!has_flush).then_some("qemu-storage-daemon"));
    names.extend(row.direct.then_some("plain io_uring"));
    names.extend(other.is_some().then_some("the other outboard-blk"));
    let figures = |name: &&str| match *name {
        "outboard-blk" => backend(&|| ours(program, row, &[])),
        "outboard-blk --poll-us 50" => backend(&|| ours(program, row, &["--poll-us=50"])),
        "qemu-storage-daemon" => backend(&|| qemu(row)),
        "plain io_uring" => plain::measure(row, DURATION),
        _ => backend(&|| ours(other.as_deref().unwrap_or(program), row, &[])),
    };
    let round = |_| -> Vec<Figures> { names.iter().map(figures).collect() };
    let rounds: Vec<Vec<Figures>> = (0..ROUNDS).map(round).collect();
    report(row.name, &names, &rounds);
}

fn report(row: &str, names: &[&str], rounds: &[Vec<Figures>]) {
    println!("{row}:");
    for (which, name) in names.iter().enumerate() {
        let of = |field: fn(&Figures) -> f64| median(rounds.iter().map(|all| field(&all[which])));
        let ratio = |field: fn(&Figures) -> f64| {
            median(rounds.iter().map(|all| field(&all[0]) / field(&all[which])))
        };
        println!(
            "  {name}: {:.0} a second, median latency {:.0} µs, p99 {:.0} µs, {:.1} µs of CPU each",
            of(|f| f.per_second),
            of(|f| f.median_latency),
            of(|f| f.p99_latency),
            of(|f| f.cpu_per_request),
        );
        if which > 0 {
            println!(
                "    outboard-blk has {:.2} times as many, for {:.2} times the CPU each",
                ratio(|f| f.per_second),
                ratio(|f| f.cpu_per_request),
            );
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Drives a backend for a while.
fn measure(backend: &Backend, row: &Row) -> Figures {
    let socket = backend.dir.path().join("socket");
    let mut driver = connect_within(DEADLINE, &socket, 1);
    driver.start();
    let mut load = Load::new(driver, row);
    load.run(DURATION / 10, false);
    prepare(row);
    let (cpu, begin) = (backend.cpu(), Instant::now());
    let latencies = load.run(DURATION, row.work == Work::ReadBesideFlush);
    Figures::of(latencies, begin.elapsed(), backend.cpu() - cpu)
}
