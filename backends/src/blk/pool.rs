//! Threads for work that would make a queue wait: flushes, discards and zeroes, everything on an
//! image that is no file, and everything that takes time where io_uring is refused.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use vmm_sys_util::eventfd::EventFd;

use super::job::{Done, Job};
use super::request::{Command, Disk, Ranges, RequestError};
use crate::request::Request;
use crate::sandbox::{self, Thread};

/// Most threads of a disk: enough to keep one that has its own queue busy.
const MAX_THREADS: usize = 16;

/// The work that the threads have finished, for a queue to take.
#[derive(Debug)]
pub struct Outbox {
    done: Mutex<Vec<Done>>,
    event: Arc<EventFd>,
}

impl Outbox {
    /// One that signals `event`.
    pub fn new(event: Arc<EventFd>) -> Self {
        Outbox {
            done: Mutex::default(),
            event,
        }
    }

    /// Something is finished.
    pub fn push(&self, done: Done) {
        let mut list = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(done);
        drop(list);
        // The only failure is a counter at its maximum, which is readable as it should be.
        let _ = self.event.write(1);
    }

    /// Hands over finished work.
    pub fn drain(&self, finish: impl FnMut(Done)) {
        let mut list = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        list.drain(..).for_each(finish);
    }
}

/// Work for a thread.
pub enum Work {
    /// A read or a write.
    Job(Job),
    /// Brings all earlier writes to stable storage.
    Flush(Request),
    /// A discard, or zeroes.
    Change(Request, Ranges),
    /// Any command on an image that is no file.
    Command(Request, Command),
}

impl Work {
    fn execute(self, disk: &Disk) -> Done {
        let image = disk.image();
        let (request, result) = match (self, image.file()) {
            (Work::Job(job), Some(file)) => return job.execute(file),
            // Only a disk that is a file is given jobs.
            (Work::Job(job), None) => return job.done(Err(io::ErrorKind::Unsupported.into())),
            (Work::Flush(request), _) => (request, image.flush()),
            (Work::Change(request, ranges), _) => (request, ranges.execute(image)),
            (Work::Command(mut request, command), _) => {
                let (memory, chain, room) = request.parts();
                let result = disk.execute(&command, memory, chain, room);
                return Done { request, result };
            }
        };
        let result = result.map_err(RequestError::from);
        Done { request, result }
    }
}

struct Task {
    work: Work,
    outbox: Arc<Outbox>,
}

/// The threads of a disk. They are started when there is something to do.
pub struct Pool {
    disk: Arc<Disk>,
    tasks: Sender<Task>,
    queue: Arc<Mutex<Receiver<Task>>>,
    threads: Mutex<usize>,
    /// Tasks that are waiting or executed.
    unfinished: Arc<AtomicUsize>,
}

impl Pool {
    /// No threads yet.
    pub fn new(disk: Arc<Disk>) -> Self {
        let (tasks, queue) = channel();
        Pool {
            disk,
            tasks,
            queue: Arc::new(Mutex::new(queue)),
            threads: Mutex::new(0),
            unfinished: Arc::default(),
        }
    }

    /// Has a thread do `work`; the result goes to `outbox`.
    pub fn execute(&self, work: Work, outbox: &Arc<Outbox>) {
        let unfinished = self.unfinished.fetch_add(1, Ordering::Relaxed) + 1;
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if unfinished > *threads && *threads < MAX_THREADS {
            match self.spawn(*threads) {
                Ok(()) => *threads += 1,
                Err(error) => tracing::warn!(%error, threads = *threads, "no more threads"),
            }
        }
        let has_threads = *threads > 0;
        drop(threads);
        let task = Task {
            work,
            outbox: Arc::clone(outbox),
        };
        match self.tasks.send(task) {
            Ok(()) if has_threads => (),
            // No thread can be had: better slowly than never.
            _ => run(&self.queue, &self.disk, &self.unfinished, |queue| {
                queue.try_recv().ok()
            }),
        }
    }

    fn spawn(&self, number: usize) -> io::Result<()> {
        let (queue, disk) = (Arc::clone(&self.queue), Arc::clone(&self.disk));
        let unfinished = Arc::clone(&self.unfinished);
        let thread = thread::Builder::new().name(format!("disk-{number}"));
        thread.spawn(move || {
            sandbox::enter(Thread::Disk);
            run(&queue, &disk, &unfinished, |queue| queue.recv().ok());
        })?;
        Ok(())
    }
}

/// Executes tasks until there are none to take.
fn run(
    queue: &Mutex<Receiver<Task>>,
    disk: &Disk,
    unfinished: &AtomicUsize,
    take: impl Fn(&Receiver<Task>) -> Option<Task>,
) {
    let next = || take(&queue.lock().unwrap_or_else(PoisonError::into_inner));
    while let Some(Task { work, outbox }) = next() {
        let done = work.execute(disk);
        unfinished.fetch_sub(1, Ordering::Relaxed);
        outbox.push(done);
    }
}
