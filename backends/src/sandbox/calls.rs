//! The system calls of each kind of threads, besides those of every thread
//! ([`host_io::sandbox::common`]). They were measured with `strace -f` under the tests.

use host_io::sandbox::calls::Argument::Is;
use host_io::sandbox::calls::{Calls, Sysno};

/// The session with the frontend: it accepts connections, has records of requests in flight, and
/// removes its socket at the end.
pub(super) const SESSION: Calls = Calls {
    any: &[
        Sysno::accept4,
        Sysno::memfd_create,
        Sysno::ftruncate,
        Sysno::fallocate,
        Sysno::unlinkat,
        Sysno::signalfd4,
    ],
    with: &[],
};

/// The same purposes under the older names that x86 has besides.
#[cfg(target_arch = "x86_64")]
pub(super) const OLDER_SESSION: Calls = Calls {
    any: &[Sysno::accept, Sysno::unlink],
    with: &[],
};
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OLDER_SESSION: Calls = Calls {
    any: &[Sysno::accept],
    with: &[],
};

/// What threads do with an image that is open.
pub const DISK: Calls = Calls {
    any: &[
        Sysno::fsync,
        Sysno::fdatasync,
        Sysno::sync_file_range,
        Sysno::fallocate,
        Sysno::ftruncate,
        Sysno::flock,
    ],
    with: &[],
};

/// The peer listens, or is connected to: both by Unix sockets.
pub(super) const PEER: Calls = Calls {
    any: &[Sysno::accept4, Sysno::connect],
    with: &[(Sysno::socket, &[Is(0, libc::AF_UNIX as u32)])],
};

/// Requests by io_uring. What is done by it no filter sees; Landlock holds for it.
pub const URING: Calls = Calls {
    any: &[
        Sysno::io_uring_setup,
        Sysno::io_uring_enter,
        Sysno::io_uring_register,
    ],
    with: &[],
};

/// `SIOCETHTOOL` of linux/sockios.h.
const SIOCETHTOOL: u32 = 0x8946;

/// A tap that is open: its queues and offloads are set, and its state is asked for, by a socket
/// that is connected to nothing.
pub const TAP: Calls = Calls {
    any: &[],
    with: &[
        (Sysno::socket, &[Is(0, libc::AF_UNIX as u32)]),
        (Sysno::ioctl, &[Is(1, libc::TUNSETQUEUE as u32)]),
        (Sysno::ioctl, &[Is(1, libc::TUNSETOFFLOAD as u32)]),
        (Sysno::ioctl, &[Is(1, libc::TUNSETVNETHDRSZ as u32)]),
        (Sysno::ioctl, &[Is(1, libc::SIOCGIFFLAGS as u32)]),
        (Sysno::ioctl, &[Is(1, SIOCETHTOOL)]),
    ],
};
