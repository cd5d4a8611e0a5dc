//! Which descriptors are for the same thing.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::fstat;

use super::record::Descriptor;

/// All eventfds share an inode; the kernel numbers them apart (proc_pid_fdinfo(5), `eventfd-id`).
/// An object is known as long as it lives: when all its descriptors are closed, the kernel may
/// give its numbers to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    eventfd: Option<u64>,
}

/// Numbers objects in the order in which they are first seen.
#[derive(Debug, Default)]
pub struct Descriptors {
    numbers: HashMap<Identity, u32>,
}

impl Descriptors {
    pub fn describe(&mut self, fd: BorrowedFd<'_>) -> Descriptor {
        let kind = kind(fd);
        let eventfd = (kind == "eventfd").then(|| eventfd_id(fd)).flatten();
        // A descriptor that is open has a file to tell of.
        let stat = fstat(fd).ok();
        let identity = Identity {
            device: stat.map_or(0, |stat| stat.st_dev),
            inode: stat.map_or(0, |stat| stat.st_ino),
            eventfd,
        };
        let next = self.numbers.len() as u32 + 1;
        let number = *self.numbers.entry(identity).or_insert(next);
        Descriptor { number, kind }
    }
}

/// `/proc/self/fd` says `anon_inode:[eventfd]`, `socket:[INODE]`, `/memfd:NAME (deleted)` or a
/// path.
fn kind(fd: BorrowedFd<'_>) -> String {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let link = link.map(|link| link.to_string_lossy().into_owned());
    let link = link.unwrap_or_else(|_| "unknown".into());
    if let Some(name) = link.strip_prefix("anon_inode:") {
        return name.trim_matches(['[', ']']).to_owned();
    }
    if let Some(memfd) = link.strip_prefix("/memfd:") {
        let name = memfd.strip_suffix(" (deleted)").unwrap_or(memfd);
        return format!("memfd:{name}");
    }
    match link.split_once(':') {
        Some((kind @ ("socket" | "pipe"), _)) => kind.to_owned(),
        _ => link,
    }
}

fn eventfd_id(fd: BorrowedFd<'_>) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("eventfd-id:"));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    #[test]
    fn the_same_eventfd_has_the_same_number() {
        let new = || eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let (a, b) = (new(), new());
        let copy = a.try_clone().unwrap();
        let mut known = Descriptors::default();
        let mut number = |fd: BorrowedFd<'_>| known.describe(fd).number;
        assert_eq!(
            [&a, &b, &copy, &b].map(|fd| number(fd.as_fd())),
            [1, 2, 1, 2]
        );
    }

    #[test]
    fn descriptors_say_what_they_are_for() {
        let memory = memfd_create("guest-ram", MemfdFlags::CLOEXEC).unwrap();
        let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let mut known = Descriptors::default();
        let mut kind = |fd: BorrowedFd<'_>| known.describe(fd).kind;
        assert_eq!(kind(memory.as_fd()), "memfd:guest-ram");
        assert_eq!(kind(event.as_fd()), "eventfd");
        assert_eq!(kind(socket.as_fd()), "socket");
        assert!(kind(file.as_fd()).starts_with('/'));
    }
}
