//! Whether threads wait for a processor.
//!
//! The kernel's pressure stall information tells (Linux `Documentation/accounting/psi.rst`): the
//! total of "some" is how long there has been a thread that could run and did not, weighted by
//! processors that are in use. Where a kernel lacks it, or a distribution has it off (`psi=1` on
//! the kernel's command line turns it on), the number of threads that can run is looked at
//! (proc_loadavg(5)), which is true for a moment only.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::processors;

/// Time between two looks, which take 10 µs each.
const INTERVAL: Duration = Duration::from_millis(20);

/// Processors are busy where threads wait for longer than one part of so many of the time. Two
/// threads that wake each other on one processor of several that are idle wait less than that.
const MUCH: u32 = 2;

/// The pressure on the processors.
#[derive(Debug, Default)]
pub struct Pressure {
    source: Source,
    last: Option<Instant>,
    is_high: bool,
}

/// Where the kernel tells of it.
#[derive(Debug, Default)]
enum Source {
    /// The total of the waits, and what it was at the last look.
    Stalls(File, Duration),
    /// Threads that can run, on so many processors.
    Runnable(File, usize),
    #[default]
    Nowhere,
}

impl Pressure {
    /// That of the whole host.
    pub fn of_host() -> Self {
        let open = |path| File::open(path).ok();
        Pressure::from(
            open("/proc/pressure/cpu"),
            open("/proc/loadavg"),
            processors::online(),
        )
    }

    /// By what the kernel has of the two, the better one first.
    fn from(stalls: Option<File>, load: Option<File>, processors: usize) -> Self {
        // Where it is off there may still be a file, which cannot be read.
        let stalls = stalls.and_then(|file| total(&file).map(|total| (file, total)));
        let source = match (stalls, load) {
            (Some((file, total)), _) => Source::Stalls(file, total),
            (None, Some(file)) => Source::Runnable(file, processors),
            (None, None) => Source::Nowhere,
        };
        Pressure {
            source,
            ..Pressure::default()
        }
    }

    /// Whether the processors are busy. Until it has looked twice, they are taken to be.
    pub fn is_high(&mut self, now: Instant) -> bool {
        let since = self.last.map(|then| now.duration_since(then));
        if since.is_none_or(|since| since >= INTERVAL) {
            self.is_high = self.look(since);
            self.last = Some(now);
        }
        self.is_high
    }

    /// Looks once more, after so much time.
    fn look(&mut self, since: Option<Duration>) -> bool {
        match &mut self.source {
            Source::Stalls(file, last) => {
                let Some(total) = total(file) else {
                    self.source = Source::Nowhere;
                    return false;
                };
                let waited = total.saturating_sub(std::mem::replace(last, total));
                since.is_none_or(|since| MUCH * waited > since)
            }
            Source::Runnable(file, processors) => {
                let is_crowded = runnable(file).is_some_and(|count| count > *processors);
                since.is_none() || is_crowded
            }
            Source::Nowhere => false,
        }
    }
}

/// How long threads have waited since the host was started.
fn total(file: &File) -> Option<Duration> {
    let mut bytes = [0; 256];
    let text = read(file, &mut bytes)?;
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let (_, micros) = some.split_once("total=")?;
    micros.trim().parse().ok().map(Duration::from_micros)
}

/// How many threads can run now, with the one that asks: the part of `0.20 0.18 0.12 1/80 11206`
/// before the slash.
fn runnable(file: &File) -> Option<usize> {
    let mut bytes = [0; 256];
    let text = read(file, &mut bytes)?;
    let (count, _) = text.split_whitespace().nth(3)?.split_once('/')?;
    count.parse().ok()
}

fn read<'b>(file: &File, bytes: &'b mut [u8]) -> Option<&'b str> {
    let len = file.read_at(bytes, 0).ok()?;
    std::str::from_utf8(&bytes[..len]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &File, total: u64) {
        let text = format!(
            "some avg10=0.00 avg60=0.00 avg300=0.00 total={total:09}\n\
             full avg10=0.00 avg60=0.00 avg300=0.00 total=000000000\n"
        );
        file.write_all_at(text.as_bytes(), 0).unwrap();
    }

    fn write_load(file: &File, runnable: usize) {
        let text = format!("0.20 0.18 0.12 {runnable:02}/80 11206\n");
        file.write_all_at(text.as_bytes(), 0).unwrap();
    }

    #[test]
    fn threads_that_wait_most_of_the_time_are_pressure() {
        let file = tempfile::tempfile().unwrap();
        write(&file, 1000);
        let mut pressure = Pressure::from(Some(file.try_clone().unwrap()), None, 2);
        let mut now = Instant::now();
        assert!(pressure.is_high(now), "nothing is known yet");
        write(&file, 1000 + 9_000);
        assert!(pressure.is_high(now), "it is not time to look");
        now += INTERVAL;
        assert!(!pressure.is_high(now), "9 of 20 ms");
        write(&file, 10_000 + 11_000);
        now += INTERVAL;
        assert!(pressure.is_high(now), "11 of 20 ms");
    }

    #[test]
    fn without_a_total_more_threads_than_processors_are_pressure() {
        let off = tempfile::tempfile().unwrap();
        for stalls in [None, Some(off)] {
            let load = tempfile::tempfile().unwrap();
            write_load(&load, 2);
            let mut pressure = Pressure::from(stalls, Some(load.try_clone().unwrap()), 2);
            let mut now = Instant::now();
            assert!(pressure.is_high(now), "nothing is known yet");
            now += INTERVAL;
            assert!(!pressure.is_high(now), "one for each");
            write_load(&load, 3);
            assert!(!pressure.is_high(now), "it is not time to look");
            now += INTERVAL;
            assert!(pressure.is_high(now), "one waits");
        }
    }

    #[test]
    fn a_kernel_that_does_not_tell_has_no_pressure() {
        assert!(!Pressure::from(None, None, 2).is_high(Instant::now()));
        let empty = tempfile::tempfile().unwrap();
        let mut pressure = Pressure::from(None, Some(empty), 2);
        let mut now = Instant::now();
        pressure.is_high(now);
        now += INTERVAL;
        assert!(!pressure.is_high(now));
    }
}
