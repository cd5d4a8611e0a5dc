//! Whether threads wait for a processor, by the kernel's pressure stall information.
//!
//! Linux `Documentation/accounting/psi.rst`: the total of "some" is how long there has been a
//! thread that could run and did not, weighted by processors that are in use.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Time between two looks, which take 10 µs each.
const INTERVAL: Duration = Duration::from_millis(20);

/// Processors are busy where threads wait for longer than one part of so many of the time. Two
/// threads that wake each other on one processor of several that are idle wait less than that.
const MUCH: u32 = 2;

/// The pressure on the processors.
#[derive(Debug, Default)]
pub struct Pressure {
    /// `None` where the kernel does not tell.
    file: Option<File>,
    /// The last look, and the total then.
    last: Option<(Instant, Duration)>,
    is_high: bool,
}

impl Pressure {
    /// That of the whole host.
    pub fn of_host() -> Self {
        Pressure::from(File::open("/proc/pressure/cpu").ok())
    }

    fn from(file: Option<File>) -> Self {
        Pressure {
            file,
            ..Pressure::default()
        }
    }

    /// Whether the processors are busy. Until it has looked twice, they are taken to be.
    pub fn is_high(&mut self, now: Instant) -> bool {
        let Some(file) = &self.file else {
            return false;
        };
        let since = self.last.map(|(then, _)| now.duration_since(then));
        if since.is_some_and(|since| since < INTERVAL) {
            return self.is_high;
        }
        let Some(total) = total(file) else {
            self.file = None;
            return false;
        };
        let waited = self.last.map(|(_, before)| total.saturating_sub(before));
        self.is_high = match (waited, since) {
            (Some(waited), Some(since)) => MUCH * waited > since,
            _ => true,
        };
        self.last = Some((now, total));
        self.is_high
    }
}

/// How long threads have waited since the host was started.
fn total(file: &File) -> Option<Duration> {
    let mut bytes = [0; 256];
    let len = file.read_at(&mut bytes, 0).ok()?;
    let text = std::str::from_utf8(&bytes[..len]).ok()?;
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let (_, micros) = some.split_once("total=")?;
    micros.trim().parse().ok().map(Duration::from_micros)
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

    #[test]
    fn threads_that_wait_most_of_the_time_are_pressure() {
        let file = tempfile::tempfile().unwrap();
        write(&file, 1000);
        let mut pressure = Pressure::from(Some(file.try_clone().unwrap()));
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
    fn a_kernel_that_does_not_tell_has_no_pressure() {
        assert!(!Pressure::from(None).is_high(Instant::now()));
        let empty = tempfile::tempfile().unwrap();
        assert!(!Pressure::from(Some(empty)).is_high(Instant::now()));
    }
}
