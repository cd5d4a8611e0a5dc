//! Processors that queues' threads are kept on.

#![allow(unsafe_code)]

use std::io;
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::str::FromStr;

use thiserror::Error;

/// Processors by their numbers in Linux, of which each queue in turn gets one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processors(Vec<usize>);

/// One that a thread cannot be kept on.
#[derive(Debug, Error)]
#[error("processor {processor} is not there, or this process may not use it (taskset -p)")]
pub struct Unusable {
    processor: usize,
    #[source]
    source: io::Error,
}

impl Processors {
    /// The one for a queue: they are dealt out in turn.
    pub fn of_queue(&self, queue: u16) -> Option<usize> {
        self.0.iter().cycle().nth(queue.into()).copied()
    }
}

/// Linux's format of lists, such as `0-3,6` (cpuset(7), "List format").
impl FromStr for Processors {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ranges = text.split(',').map(|part| {
            range(part).ok_or_else(|| {
                format!("{part:?} is no processor's number and no range; a list is 0-3,6")
            })
        });
        let ranges = ranges.collect::<Result<Vec<_>, _>>()?;
        Ok(Processors(ranges.into_iter().flatten().collect()))
    }
}

fn range(text: &str) -> Option<RangeInclusive<usize>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    let range = number(first)?..=number(last)?;
    let can_exist = *range.end() < libc::CPU_SETSIZE as usize;
    (can_exist && !range.is_empty()).then_some(range)
}

/// How many processors the host has in use.
pub fn online() -> usize {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/online");
    let online = list.ok().and_then(|list| list.trim().parse().ok());
    match online {
        Some(Processors(numbers)) => numbers.len(),
        // Those that this process may use are the best guess.
        None => std::thread::available_parallelism().map_or(1, NonZero::get),
    }
}

/// Keeps the calling thread on one processor.
pub fn keep_on(processor: usize) -> Result<(), Unusable> {
    let unusable = |source| Unusable { processor, source };
    if processor >= libc::CPU_SETSIZE as usize {
        return Err(unusable(io::ErrorKind::InvalidInput.into()));
    }
    // SAFETY: `cpu_set_t` is plain data for which all zeroes is valid: no processor.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set has room for the number, as checked above.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: 0 is the calling thread, and the set has the size that is said.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } {
        0 => Ok(()),
        _ => Err(unusable(io::Error::last_os_error())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_get_them_in_turn() {
        let processors: Processors = "2-3,7".parse().unwrap();
        let dealt: Vec<_> = (0..5).filter_map(|n| processors.of_queue(n)).collect();
        assert_eq!(dealt, [2, 3, 7, 2, 3]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in [
            "",
            "a",
            "1,",
            "3-1",
            "-1",
            "1-",
            "1-2-3",
            "+1",
            "0-4000000000",
            "1024",
        ] {
            let error = text.parse::<Processors>().unwrap_err();
            assert!(error.contains("0-3,6"), "{text}: {error}");
        }
    }

    #[test]
    fn a_thread_stays_where_it_is_kept_and_others_are_left_alone() {
        // The main thread's, which has what the process may use.
        let allowed = || std::thread::available_parallelism().unwrap().get();
        let before = allowed();
        let first = (0..1024).find(|processor| {
            let kept = std::thread::spawn({
                let processor = *processor;
                move || keep_on(processor).map(|()| allowed())
            });
            match kept.join().unwrap() {
                Ok(count) => {
                    assert_eq!(count, 1);
                    true
                }
                Err(_) => false,
            }
        });
        assert!(first.is_some());
        assert_eq!(allowed(), before);
    }

    #[test]
    fn a_processor_that_is_not_there_is_named() {
        for processor in [1023, 1 << 20] {
            let error = keep_on(processor).unwrap_err().to_string();
            assert!(
                error.contains(&format!("processor {processor} is not there")),
                "{error}"
            );
        }
    }
}
