//! A disk without a guest: `outboard-blk` beside QEMU's storage daemon, each driven by the tests'
//! frontend, which sleeps until it is interrupted, and beside plain io_uring, which is the limit.
//!
//! All are measured in turn, and each row is a median with the median of the ratios: the machines
//! that this runs on are shared and noisy. `OUTBOARD_BLK_OTHER` names another build to compare with.

#[path = "../../tests/common/mod.rs"]
mod common;

#[path = "../backend.rs"]
mod backend;

mod contender;
mod disks;
mod figures;
mod load;
mod plain;
mod row;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{DEADLINE, connect_within};
use contender::Contender;
use disks::{ours, program};
use figures::{Figures, median};
use load::Load;
use row::{Row, Work, random};

/// Of each measurement.
const ROUNDS: usize = 5;
const DURATION: Duration = Duration::from_secs(2);

/// What is in the page cache.
const CACHED: u64 = 64 << 20;

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), 4 << 30);
    let wanted = std::env::args().nth(1).filter(|arg| arg != "--bench");
    let wanted = wanted.unwrap_or_default();
    println!("requests by a frontend without a guest");
    if "idle".contains(&wanted) {
        idle(&image);
    }
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
        queues: 1,
        is_busy: false,
    };
    let direct = |name, depth, work, len| Row {
        name,
        image: image.to_owned(),
        size: image.metadata().unwrap().len(),
        direct: true,
        depth,
        work,
        len,
        queues: 1,
        is_busy: false,
    };
    vec![
        cached("reads in the page cache, depth 1", 1, Work::Read),
        cached("reads in the page cache, depth 32", 32, Work::Read),
        Row {
            is_busy: true,
            ..cached(
                "reads in the page cache, depth 1, beside a busy process for each core",
                1,
                Work::Read,
            )
        },
        Row {
            is_busy: true,
            ..cached(
                "reads in the page cache, depth 32, beside a busy process for each core",
                32,
                Work::Read,
            )
        },
        Row {
            queues: 4,
            ..cached(
                "reads in the page cache, four queues of depth 32",
                32,
                Work::Read,
            )
        },
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

fn compare(row: &Row) {
    let contenders = Contender::all(row);
    let round = |_| -> Vec<Figures> { contenders.iter().map(|who| who.measure(row)).collect() };
    let rounds: Vec<Vec<Figures>> = (0..ROUNDS).map(round).collect();
    report(row.name, &contenders, &rounds);
}

fn report(row: &str, contenders: &[Contender], rounds: &[Vec<Figures>]) {
    println!("{row}:");
    for (which, name) in contenders.iter().map(Contender::name).enumerate() {
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

/// The CPU time of a disk that has nothing to do, right after it had.
fn idle(image: &Path) {
    let row = &rows(image)[0];
    let backend = ours(program(), row, &[]);
    let mut driver = connect_within(DEADLINE, &backend.socket(), 1);
    driver.start();
    let mut load = Load::new(driver.memory.clone(), driver.rings.remove(0), row);
    load.run(DURATION / 10, false);
    let (cpu, begin) = (backend.cpu(), Instant::now());
    std::thread::sleep(5 * DURATION);
    let share = (backend.cpu() - cpu).as_secs_f64() / begin.elapsed().as_secs_f64();
    println!("CPU of an idle disk: {:.2} %", 100.0 * share);
}
