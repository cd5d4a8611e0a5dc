//! The threads of a backend, as `/proc` shows them.
//!
//! Reading it neither stops a process nor waits for one. Where a file cannot be read, because the
//! process has ended or is somebody else's, what it would have said is left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::picture::Thread;

/// Most threads that are looked at.
const MOST: usize = 256;
/// Most descriptors of a process that are looked at.
const MOST_DESCRIPTORS: usize = 4096;
/// Of epoll_ctl(2).
const EPOLLET: u32 = 1 << 31;

/// The eventfds that an epoll of a process watches, by their numbers, and whether it does so
/// edge-triggered.
pub type Watches = BTreeMap<u64, bool>;

/// The threads of process `pid`. With `group`, those of all processes in its group.
pub fn threads(pid: u32, group: bool) -> Vec<Thread> {
    let processes = if group { members(pid) } else { vec![pid] };
    let tasks = processes.into_iter().flat_map(|pid| {
        let tasks = format!("/proc/{pid}/task");
        numbers(&tasks).map(move |task| format!("{tasks}/{task}"))
    });
    tasks
        .take(MOST)
        .filter_map(|task| thread(Path::new(&task)))
        .collect()
}

/// What process `pid`, or with `group` any process in its group, watches by epoll, as
/// proc_pid_fdinfo(5) says.
pub fn watches(pid: u32, group: bool) -> Watches {
    let processes = if group { members(pid) } else { vec![pid] };
    processes.into_iter().flat_map(watches_of).collect()
}

fn watches_of(pid: u32) -> Vec<(u64, bool)> {
    let directory = format!("/proc/{pid}/fdinfo");
    let (mut eventfds, mut watched) = (BTreeMap::new(), Vec::new());
    for fd in numbers(&directory).take(MOST_DESCRIPTORS) {
        let info = fs::read_to_string(format!("{directory}/{fd}")).unwrap_or_default();
        for line in info.lines() {
            if let Some(id) = line.strip_prefix("eventfd-id:") {
                eventfds.extend(id.trim().parse::<u64>().ok().map(|id| (fd, id)));
            }
            watched.extend(target(line));
        }
    }
    let known = |(fd, edge): (u32, bool)| Some((*eventfds.get(&fd)?, edge));
    watched.into_iter().filter_map(known).collect()
}

/// A line of an epoll's: `tfd: 5 events: 80000019 data: …`.
fn target(line: &str) -> Option<(u32, bool)> {
    let mut words = line.strip_prefix("tfd:")?.split_whitespace();
    let fd = words.next()?.parse().ok()?;
    let events = words.nth(1)?;
    let events = u32::from_str_radix(events, 16).ok()?;
    Some((fd, events & EPOLLET != 0))
}

/// The entries of `path` whose names are numbers.
fn numbers(path: &str) -> impl Iterator<Item = u32> + use<> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The processes of a group, its leader first.
fn members(leader: u32) -> Vec<u32> {
    let is_member = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| group(&stat) == Some(leader)) && *pid != leader
    };
    let others = numbers("/proc").filter(is_member);
    [leader].into_iter().chain(others).collect()
}

fn thread(task: &Path) -> Option<Thread> {
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    let (id, name, state) = parse(&stat)?;
    // Without the right to see it, and while the thread runs, it reads 0.
    let place = fs::read_to_string(task.join("wchan")).ok();
    Some(Thread {
        id,
        name: name.to_owned(),
        state,
        waits_in: place.filter(|place| !place.is_empty() && place != "0"),
    })
}

/// Number, name and state. A name may have blanks and brackets.
fn parse(stat: &str) -> Option<(u32, &str, char)> {
    let (id, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    Some((id.parse().ok()?, name, rest.chars().next()?))
}

/// Behind the state and the parent.
fn group(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_name_may_look_like_the_rest_of_the_line() {
        let stat = "12 (a) S (b) T 1 7 7 0 -1";
        assert_eq!(parse(stat), Some((12, "a) S (b", 'T')));
        assert_eq!(group(stat), Some(7));
        for stat in ["", "12", "12 (", "x (a) S 1", "12 (a) "] {
            assert_eq!(parse(stat), None, "{stat:?}");
        }
    }

    #[test]
    fn the_threads_of_this_process_are_seen_and_those_of_none_are_not() {
        let own = std::process::id();
        let names: Vec<_> = threads(own, false).into_iter().map(|t| t.state).collect();
        assert!(names.contains(&'R'), "{names:?}");
        assert_eq!(threads(u32::MAX, true), []);
    }

    #[test]
    fn what_an_epoll_watches_and_how_is_seen() {
        let line = "tfd:       12 events: 80000019 data:                0  pos:0 ino:2 sdev:d";
        assert_eq!(target(line), Some((12, true)));
        assert_eq!(
            target(&line.replace("80000019", "      19")),
            Some((12, false))
        );
        for line in ["", "tfd:", "tfd: 1", "tfd: 1 events:", "pos: 1 events: 19"] {
            assert_eq!(target(line), None, "{line:?}");
        }
        assert_eq!(watches(u32::MAX, true), Watches::new());
    }

    #[test]
    fn the_processes_that_a_wrapper_starts_are_seen_with_it() {
        use std::os::unix::process::CommandExt;
        let mut wrapper = Command::new("sh")
            .args(["-c", "cat; true"])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let names = || -> Vec<_> {
            let threads = threads(wrapper.id(), true).into_iter();
            threads.map(|thread| thread.name).collect()
        };
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while names() != ["sh", "cat"] {
            assert!(std::time::Instant::now() < end, "{:?}", names());
            std::thread::yield_now();
        }
        drop(wrapper.stdin.take());
        wrapper.wait().unwrap();
    }
}
