//! Compression of pages by several threads, which returns them in their order.
//!
//! Each thread has its own queues, and runs of pages go to one after the other: so the next
//! result is always that of the thread whose turn it is. What is under way is bounded.

use std::io;
use std::num::NonZero;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::ram::PAGE;

/// The writer of the file is soon the slowest.
const MAX_THREADS: usize = 8;

/// Most runs of pages that a thread has: one to work on, and the next.
const QUEUE: usize = 2;

/// Pages that follow one another, as the file has them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The contents of one page behind the other.
    pub contents: Vec<u8>,
    pub pages: Vec<Page>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Bytes of the contents.
    pub len: usize,
    /// Otherwise the contents are the page itself.
    pub is_compressed: bool,
}

pub struct Pool {
    threads: Vec<Thread>,
    submitted: usize,
    taken: usize,
}

/// It ends when its queues are dropped.
struct Thread {
    jobs: SyncSender<Vec<u8>>,
    results: Receiver<io::Result<Run>>,
}

impl Pool {
    /// One thread a processor, or as many as the host has room for.
    pub fn start() -> io::Result<Self> {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Self::with_threads(processors.min(MAX_THREADS))
    }

    fn with_threads(count: usize) -> io::Result<Self> {
        let mut threads = vec![Thread::start()?];
        let more = (1..count).map_while(|_| Thread::start().ok());
        threads.extend(more);
        Ok(Self {
            threads,
            submitted: 0,
            taken: 0,
        })
    }

    /// A result has to be taken before more pages are submitted.
    pub fn is_full(&self) -> bool {
        self.submitted - self.taken == QUEUE * self.threads.len()
    }

    /// Whole pages, of which there is a result later.
    pub fn submit(&mut self, pages: Vec<u8>) -> io::Result<()> {
        let thread = &self.threads[self.submitted % self.threads.len()];
        thread.jobs.send(pages).map_err(io::Error::other)?;
        self.submitted += 1;
        Ok(())
    }

    /// The pages that were submitted first, once they are compressed.
    pub fn take(&mut self) -> Option<io::Result<Run>> {
        if self.taken == self.submitted {
            return None;
        }
        let thread = &self.threads[self.taken % self.threads.len()];
        self.taken += 1;
        Some(thread.results.recv().map_err(io::Error::other).flatten())
    }
}

impl Thread {
    fn start() -> io::Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE);
        let (finished, results) = sync_channel(QUEUE);
        thread::Builder::new()
            .name("dump-zlib".into())
            .spawn(move || work(&queue, &finished))?;
        Ok(Self { jobs, results })
    }
}

fn work(jobs: &Receiver<Vec<u8>>, results: &SyncSender<io::Result<Run>>) {
    let mut compress = Compress::new(Compression::fast(), true);
    for pages in jobs {
        // An error means that the dump has failed.
        if results.send(compress_run(&mut compress, &pages)).is_err() {
            return;
        }
    }
}

fn compress_run(compress: &mut Compress, bytes: &[u8]) -> io::Result<Run> {
    let mut run = Run::default();
    let mut buffer = [0; PAGE];
    for page in bytes.chunks(PAGE) {
        compress.reset();
        // What is no shorter does not end within a page.
        let end = compress.compress(page, &mut buffer, FlushCompress::Finish);
        let is_compressed = end.map_err(io::Error::other)? == Status::StreamEnd;
        let contents = match is_compressed {
            true => &buffer[..compress.total_out() as usize],
            false => page,
        };
        run.contents.extend_from_slice(contents);
        run.pages.push(Page {
            len: contents.len(),
            is_compressed,
        });
    }
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of one to three pages that a number can be told by.
    fn run(number: usize) -> Vec<u8> {
        vec![number as u8; PAGE * (1 + number % 3)]
    }

    #[test]
    fn results_come_in_order_whatever_the_number_of_threads() {
        for count in [1, 2, 5] {
            let mut pool = Pool::with_threads(count).unwrap();
            let mut results = Vec::new();
            for number in 0..100 {
                if pool.is_full() {
                    results.push(pool.take().unwrap().unwrap());
                }
                pool.submit(run(number)).unwrap();
            }
            results.extend(std::iter::from_fn(|| pool.take()).map(Result::unwrap));
            let mut compress = Compress::new(Compression::fast(), true);
            let expected = (0..100).map(|number| compress_run(&mut compress, &run(number)));
            let expected: Vec<_> = expected.map(Result::unwrap).collect();
            assert!(results == expected, "{count} threads");
        }
    }

    #[test]
    fn a_dump_that_is_given_up_ends_the_threads() {
        let (jobs, queue) = sync_channel(QUEUE);
        let (finished, results) = sync_channel(0);
        let thread = thread::spawn(move || work(&queue, &finished));
        jobs.send(run(1)).unwrap();
        drop((jobs, results));
        thread.join().unwrap();
    }
}
