//! A read or a write on its way to the kernel, which may do it in several steps.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::direct::{Alignment, Bounce};
use super::request::{HEADER_SIZE, RequestError};
use crate::chain::BufferError;
use crate::iovec::MAX_PER_CALL;
use crate::request::Request;

/// The operation that the kernel is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// From the file into guest memory.
    Read,
    /// From guest memory into the file; with `durable` to stable storage.
    Write {
        /// Nothing of it may be lost with the host.
        durable: bool,
    },
}

impl Kind {
    /// For `pwritev2`.
    pub fn flags(self) -> libc::c_int {
        match self {
            Kind::Write { durable: true } => libc::RWF_DSYNC,
            _ => 0,
        }
    }
}

/// A request that the kernel executes. Its room describes the rest of the transfer, in the
/// memory that the request keeps.
#[derive(Debug)]
pub struct Job {
    request: Request,
    kind: Kind,
    offset: u64,
    detour: Option<Detour>,
}

/// The detour of data whose own alignment the kernel does not take, a piece at a time.
#[derive(Debug)]
struct Detour {
    bounce: Bounce,
    /// Bytes transferred, and of all.
    done: u64,
    total: u64,
}

/// Largest piece of such data, in bytes: a driver may have a thousand requests of them.
const PIECE: usize = 1 << 18;

/// A request that is finished.
#[derive(Debug)]
pub struct Done {
    /// Which one.
    pub request: Request,
    /// How it went.
    pub result: Result<(), RequestError>,
}

/// The system calls that do not wait on a file, as far as is known.
#[derive(Debug, Clone, Copy)]
pub struct Nowait {
    is_cached: bool,
    reads: bool,
    writes: bool,
}

impl Nowait {
    /// A file in the page cache, of which nothing else is known yet.
    pub const UNTRIED: Nowait = Nowait {
        is_cached: true,
        reads: true,
        writes: true,
    };

    /// A file past the page cache, of which all access waits.
    pub const DIRECT: Nowait = Nowait {
        is_cached: false,
        reads: false,
        writes: false,
    };

    /// The file system cannot tell whether it would wait.
    fn forget(&mut self, kind: Kind) {
        match kind {
            Kind::Read => self.reads = false,
            Kind::Write { .. } => self.writes = false,
        }
    }
}

impl Job {
    /// For a transfer, `request`'s room describes the rest, and `offset` is its place in the
    /// file.
    pub fn new(request: Request, kind: Kind, offset: u64) -> Self {
        Job {
            request,
            kind,
            offset,
            detour: None,
        }
    }

    /// Takes the data by way of a copy, unless it is aligned as `alignment` demands. Nothing has
    /// been transferred yet.
    pub fn align(&mut self, alignment: Alignment) -> Result<(), BufferError> {
        if alignment.fits(self.iovecs()) {
            return Ok(());
        }
        let total: usize = self.iovecs().iter().map(|iovec| iovec.iov_len).sum();
        self.detour = Some(Detour {
            bounce: alignment.bounce(total.min(PIECE)),
            done: 0,
            total: total as u64,
        });
        self.next_piece()
    }

    /// Has the room describe the next piece of a detour.
    fn next_piece(&mut self) -> Result<(), BufferError> {
        let Some(detour) = &mut self.detour else {
            return Ok(());
        };
        let left = (detour.total - detour.done).min(PIECE as u64);
        let piece = &mut detour.bounce.bytes_mut()[..left as usize];
        if let Kind::Write { .. } = self.kind {
            let (memory, chain, _) = self.request.parts();
            chain
                .readable
                .read(memory, HEADER_SIZE + detour.done, piece)?;
        }
        self.request.room.describe(piece);
        Ok(())
    }

    /// `count` bytes of a detour have been transferred.
    fn end_piece(&mut self, count: usize) -> Result<(), BufferError> {
        let Some(detour) = &mut self.detour else {
            return Ok(());
        };
        if self.kind == Kind::Read {
            let (memory, chain, _) = self.request.parts();
            let bytes = &detour.bounce.bytes()[..count];
            chain.writable.write(memory, detour.done, bytes)?;
        }
        detour.done += count as u64;
        self.next_piece()
    }

    /// The operation asked for.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where in the file, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Where in this process.
    pub fn iovecs(&self) -> &[libc::iovec] {
        self.request.room.rest()
    }

    /// The kernel has done a step. `None` if there are more to do.
    pub fn advance(&mut self, step: io::Result<usize>) -> Option<io::Result<()>> {
        let count = match step {
            Err(error) if is_transient(&error) => return None,
            Err(error) => return Some(Err(error)),
            Ok(count) => count,
        };
        if count == 0 {
            let kind = match self.kind {
                Kind::Read => io::ErrorKind::UnexpectedEof,
                Kind::Write { .. } => io::ErrorKind::WriteZero,
            };
            return Some(Err(kind.into()));
        }
        self.offset += count as u64;
        if self.detour.is_none() {
            self.request.room.advance(count);
        } else if let Err(error) = self.end_piece(count) {
            return Some(Err(io::Error::other(error)));
        }
        let is_done = self.iovecs().iter().all(|iovec| iovec.iov_len == 0);
        is_done.then_some(Ok(()))
    }

    /// Does all of it, and waits for its end.
    pub fn execute(mut self, file: &File) -> Done {
        let result = loop {
            let step = transfer(&self.request, self.kind, self.offset, file, 0);
            if let Some(result) = self.advance(step) {
                break result;
            }
        };
        self.done(result)
    }

    /// The end of it.
    pub fn done(self, result: io::Result<()>) -> Done {
        Done {
            request: self.request,
            result: result.map_err(RequestError::from),
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

/// Transfers as much of the data in `request`'s room as the page cache can without waiting;
/// returns how many bytes that was.
///
/// A file system that cannot say whether a write would wait (ext4 cannot) gets it as it is: it is
/// a copy into the page cache.
pub fn now(
    request: &mut Request,
    kind: Kind,
    offset: u64,
    file: &File,
    nowait: &mut Nowait,
) -> io::Result<usize> {
    let flags = match kind {
        Kind::Read if nowait.reads => libc::RWF_NOWAIT,
        Kind::Write { durable: false } if nowait.writes => libc::RWF_NOWAIT,
        Kind::Write { durable: false } if nowait.is_cached => 0,
        _ => return Ok(0),
    };
    match transfer(request, kind, offset, file, flags) {
        Ok(count) => {
            request.room.advance(count);
            Ok(count)
        }
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) && flags != 0 => {
            nowait.forget(kind);
            now(request, kind, offset, file, nowait)
        }
        Err(error) if is_transient(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

/// One system call. The bytes that it has transferred are not taken off the request's room.
fn transfer(
    request: &Request,
    kind: Kind,
    offset: u64,
    file: &File,
    flags: libc::c_int,
) -> io::Result<usize> {
    let at = libc::off64_t::try_from(offset).map_err(io::Error::other)?;
    let iovecs = request.room.rest();
    let count = iovecs.len().min(MAX_PER_CALL) as libc::c_long;
    let call = match kind {
        Kind::Read => libc::SYS_preadv2,
        Kind::Write { .. } => libc::SYS_pwritev2,
    };
    let fd = libc::c_long::from(file.as_raw_fd());
    let flags = libc::c_long::from(flags | kind.flags());
    // The offset's upper half, for processors of 32 bits.
    let upper: libc::c_long = 0;
    // Not by libc's functions of these names: as points where a thread may be cancelled, they have
    // two more atomic operations.
    //
    // SAFETY: the `count` iovecs describe guest memory that `request` keeps mapped. The guest
    // expects it to be overwritten by a read; for a write the kernel only reads it.
    let done = unsafe { libc::syscall(call, fd, iovecs.as_ptr(), count, at, upper, flags) };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}
