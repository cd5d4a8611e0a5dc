//! The programs that are measured in turn.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use super::backend::Backend;
use super::common::{DEADLINE, connect_within};
use super::disks::{Busy, other, ours, program, qemu};
use super::figures::Figures;
use super::load::Load;
use super::row::{DIRTY, Row, Work};
use super::{DURATION, plain};

/// A program that serves a row's requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    /// `outboard-blk` as it comes.
    Ours,
    /// `outboard-blk` that does not poll.
    Sleeping,
    /// `outboard-blk` with one queue.
    OneQueue,
    Qemu,
    /// io_uring, with nobody between.
    Plain,
    /// Another build of `outboard-blk`.
    Other,
}

impl Contender {
    /// Those of a row, ours first.
    pub fn all(row: &Row) -> Vec<Self> {
        let mut all = vec![Contender::Ours, Contender::Sleeping];
        // It leaves out a FLUSH of data that it has not written itself.
        let has_flush = row.work == Work::ReadBesideFlush;
        all.extend((!has_flush).then_some(Contender::Qemu));
        all.extend((row.queues > 1).then_some(Contender::OneQueue));
        all.extend(row.direct.then_some(Contender::Plain));
        all.extend(other().map(|_| Contender::Other));
        all
    }

    pub fn name(&self) -> &'static str {
        match self {
            Contender::Ours => "outboard-blk",
            Contender::Sleeping => "outboard-blk --poll-us 0",
            Contender::OneQueue => "outboard-blk, one queue",
            Contender::Qemu => "qemu-storage-daemon",
            Contender::Plain => "plain io_uring",
            Contender::Other => "the other outboard-blk",
        }
    }

    pub fn measure(&self, row: &Row) -> Figures {
        match self {
            Contender::Ours => measure(&ours(program(), row, &[]), row),
            Contender::Sleeping => measure(&ours(program(), row, &["--poll-us=0"]), row),
            Contender::OneQueue => {
                let queues = 1;
                let row = Row {
                    queues,
                    ..row.clone()
                };
                measure(&ours(program(), &row, &[]), &row)
            }
            Contender::Qemu => measure(&qemu(row), row),
            Contender::Plain => plain::measure(row, DURATION),
            Contender::Other => {
                let other = other().expect("only then it is among all");
                measure(&ours(&other, row, &[]), row)
            }
        }
    }
}

/// Drives a backend for a while, each queue by a thread.
fn measure(backend: &Backend, row: &Row) -> Figures {
    let mut driver = connect_within(DEADLINE, &backend.socket(), row.queues);
    driver.start();
    let rings = driver.rings.drain(..);
    let loads = rings.map(|ring| Load::new(driver.memory.clone(), ring, row));
    let mut loads: Vec<Load> = loads.collect();
    loads[0].run(DURATION / 10, false);
    prepare(row);
    let _busy = row.is_busy.then(Busy::everywhere);
    let (cpu, begin) = (backend.cpu(), Instant::now());
    let flush = row.work == Work::ReadBesideFlush;
    let latencies = std::thread::scope(|scope| {
        let run = |load: &mut Load| load.run(DURATION, flush);
        let threads = loads.iter_mut().map(|load| scope.spawn(move || run(load)));
        let threads: Vec<_> = threads.collect();
        let results = threads.into_iter().map(|thread| thread.join().unwrap());
        results.flatten().collect()
    });
    Figures::of(latencies, begin.elapsed(), backend.cpu() - cpu)
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
