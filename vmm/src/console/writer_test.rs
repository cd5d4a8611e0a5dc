use std::io::{PipeReader, PipeWriter, Read, Write};

use devices::serial::Line;
use rustix::fs::{OFlags, fcntl_setfl};

use super::super::outbox::{Output, outbox};
use super::*;

/// A console on a pipe.
struct Bench {
    output: Output,
    writer: Writer,
    pipe: PipeWriter,
    reader: PipeReader,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let (output, outbox) = outbox().unwrap();
        let (reader, pipe) = io::pipe().unwrap();
        fcntl_setfl(&pipe, OFlags::NONBLOCK).unwrap();
        fcntl_setfl(&reader, OFlags::NONBLOCK).unwrap();
        Self {
            output,
            writer: Writer::new(outbox, "the test".into(), Reader::Awake),
            pipe,
            reader,
            now: Instant::now(),
        }
    }

    /// What the event loop does, `time` later; whether the line has changed.
    fn turn(&mut self, time: Duration) -> bool {
        self.now += time;
        if is_readable(self.writer.event()) {
            self.writer.gather(self.now);
        }
        self.writer.write(self.pipe.as_fd(), self.now).unwrap()
    }

    /// Turns until there is nothing to do but wait.
    fn settle(&mut self) {
        while is_readable(self.writer.event()) || self.writer.deadline().is_some() {
            self.turn(GATHER);
            if self.writer.is_blocked() {
                return;
            }
        }
    }

    /// Sends until the port would be busy; returns how much.
    fn fill(&mut self) -> usize {
        let mut sent = 0;
        while !self.output.is_busy() {
            self.output.write_all(&[b'x'; 4096]).unwrap();
            sent += 4096;
            if !self.writer.is_blocked() {
                self.settle();
            }
        }
        sent
    }

    /// Takes what is in the pipe.
    fn read(&mut self) -> usize {
        let mut bytes = Vec::new();
        // At the end there is WouldBlock.
        let _ = self.reader.read_to_end(&mut bytes);
        bytes.len()
    }

    /// Reads, and lets the rest be written, until there is no more.
    fn read_all(&mut self) -> usize {
        let mut read = 0;
        loop {
            self.turn(GATHER);
            self.settle();
            match self.read() {
                0 => return read,
                taken => read += taken,
            }
        }
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
}

#[test]
fn bytes_that_come_one_by_one_are_written_together_a_moment_later() {
    let mut bench = Bench::new();
    for byte in b"guest" {
        bench.output.write_all(&[*byte]).unwrap();
        bench.turn(Duration::ZERO);
    }
    assert_eq!(bench.read(), 0);
    assert_eq!(bench.writer.deadline(), Some(bench.now + GATHER));
    assert!(bench.turn(GATHER));
    assert_eq!(bench.read(), 5);
    bench.settle();
    assert_eq!(bench.writer.deadline(), None);
}

#[test]
fn a_slow_reader_holds_the_guest_up_and_loses_nothing() {
    let mut bench = Bench::new();
    let mut sent = bench.fill();
    let mut read = 0;
    for _ in 0..20 {
        // A driver may not ask before each FIFO.
        bench.output.write_all(&[b'x'; 16]).unwrap();
        bench.turn(PATIENCE / 2);
        assert!(bench.output.is_busy());
        let taken = bench.read();
        assert!(taken > 0);
        read += taken;
        assert!(bench.turn(PATIENCE / 4), "the line has room again");
        assert!(!bench.output.is_busy());
        sent += 16 + bench.fill();
    }
    read += bench.read_all();
    assert_eq!(read, sent);
    assert_eq!(bench.writer.outbox.take_lost(), 0);
}

#[test]
fn a_reader_that_is_asleep_holds_nobody_up_and_hears_again_when_it_has_caught_up() {
    let mut bench = Bench::new();
    let mut sent = bench.fill();
    assert!(!bench.turn(PATIENCE / 2));
    assert!(bench.output.is_busy());
    assert!(bench.turn(PATIENCE), "the guest is to run on");
    assert!(!bench.output.is_busy());
    assert_eq!(
        bench.writer.deadline(),
        None,
        "nothing to wait for but room"
    );
    for _ in 0..1000 {
        bench.output.write_all(&[b'x'; 16]).unwrap();
        sent += 16;
        assert!(!bench.output.is_busy());
    }
    let read = bench.read_all();
    assert!(read < sent);
    assert_eq!(bench.writer.reader, Reader::Awake);
    // Told of loss a moment after the reader fell asleep is too much.
    assert_eq!(bench.writer.lost, (sent - read) as u64);
    bench.output.write_all(b"again").unwrap();
    assert_eq!(bench.read_all(), 5);
}

#[test]
fn nothing_is_kept_for_nobody() {
    let mut bench = Bench::new();
    bench.output.write_all(b"for the one before").unwrap();
    bench.writer.restart(Reader::Absent);
    bench.output.write_all(b"for nobody").unwrap();
    assert!(!bench.output.is_busy());
    bench.writer.restart(Reader::Awake);
    assert!(!is_readable(bench.writer.event()));
    bench.output.write_all(b"hi").unwrap();
    assert_eq!(bench.read_all(), 2);
    assert_eq!(bench.writer.outbox.take_lost(), 0);
}

#[test]
fn what_cannot_be_written_is_lost_and_the_rest_tried_again() {
    let mut bench = Bench::new();
    let (gone, closed) = io::pipe().unwrap();
    drop(gone);
    bench.output.write_all(b"lost").unwrap();
    bench.writer.gather(bench.now);
    bench.now += GATHER;
    let error = bench.writer.write(closed.as_fd(), bench.now).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(bench.writer.lost, 4);
    bench.output.write_all(b"not lost").unwrap();
    assert_eq!(bench.read_all(), 8);
}

#[test]
fn the_end_waits_for_a_reader_but_not_for_one_that_sleeps() {
    let mut bench = Bench::new();
    let sent = bench.fill();
    let mut reader = bench.reader.try_clone().unwrap();
    // Both have the flags.
    fcntl_setfl(&reader, OFlags::empty()).unwrap();
    let reading = std::thread::spawn(move || {
        let mut bytes = vec![0; sent];
        reader.read_exact(&mut bytes).unwrap();
    });
    bench.writer.finish(bench.pipe.as_fd());
    reading.join().unwrap();
    fcntl_setfl(&bench.reader, OFlags::NONBLOCK).unwrap();
    assert_eq!(bench.writer.told, None, "nothing was lost");

    let sent = bench.fill();
    let begun = Instant::now();
    bench.writer.finish(bench.pipe.as_fd());
    assert!(begun.elapsed() < LAST_PATIENCE);
    assert!(bench.read() < sent);
    assert_eq!(bench.writer.outbox.take_all(), 0);
}
