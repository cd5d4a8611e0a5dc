//! Calls that any thread makes by itself or through the standard library and the C library: for
//! memory, time, locks, its start and end, a panic, its log lines. None of them gives access to
//! anything that the process does not have.
//!
//! Libraries and kernels differ in which of several calls they use for the same purpose, so all of
//! them are here.

use super::calls::Argument::{Is, IsNot, Null, With, Without};
use super::calls::{Calls, Sysno};

const WRITING: u32 =
    (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND) as u32;
const EXEC: u32 = libc::PROT_EXEC as u32;
/// linux/prctl.h; glibc names its memory so.
const PR_SET_VMA: u32 = 0x5356_4d41;

/// For every thread.
pub const CALLS: Calls = Calls {
    any: &[
        // Descriptors that are open already.
        Sysno::read,
        Sysno::write,
        Sysno::readv,
        Sysno::writev,
        Sysno::pread64,
        Sysno::pwrite64,
        Sysno::preadv,
        Sysno::pwritev,
        Sysno::preadv2,
        Sysno::pwritev2,
        Sysno::lseek,
        Sysno::close,
        Sysno::close_range,
        Sysno::fcntl,
        Sysno::dup,
        Sysno::dup3,
        Sysno::fstat,
        Sysno::fstatfs,
        // Names: their attributes, not what is behind them.
        Sysno::statx,
        NEWFSTATAT,
        Sysno::readlinkat,
        Sysno::getcwd,
        Sysno::faccessat,
        Sysno::faccessat2,
        // Waiting.
        Sysno::ppoll,
        Sysno::pselect6,
        Sysno::epoll_create1,
        Sysno::epoll_ctl,
        Sysno::epoll_pwait,
        Sysno::epoll_pwait2,
        Sysno::eventfd2,
        Sysno::pipe2,
        Sysno::timerfd_create,
        Sysno::timerfd_settime,
        Sysno::timerfd_gettime,
        Sysno::clock_gettime,
        Sysno::clock_getres,
        Sysno::clock_nanosleep,
        Sysno::nanosleep,
        Sysno::gettimeofday,
        // Sockets that are connected already.
        Sysno::recvmsg,
        Sysno::recvfrom,
        Sysno::sendmsg,
        Sysno::sendto,
        Sysno::shutdown,
        Sysno::getsockopt,
        Sysno::setsockopt,
        Sysno::getsockname,
        Sysno::getpeername,
        // Memory.
        Sysno::munmap,
        Sysno::mremap,
        Sysno::madvise,
        Sysno::brk,
        Sysno::mincore,
        Sysno::msync,
        Sysno::membarrier,
        Sysno::mseal,
        Sysno::map_shadow_stack,
        // Locks, the scheduler.
        Sysno::futex,
        Sysno::futex_waitv,
        Sysno::futex_wait,
        Sysno::futex_wake,
        Sysno::futex_requeue,
        Sysno::set_robust_list,
        Sysno::get_robust_list,
        Sysno::rseq,
        Sysno::sched_yield,
        Sysno::sched_getaffinity,
        Sysno::sched_setaffinity,
        Sysno::getcpu,
        // Who am I.
        Sysno::getpid,
        Sysno::gettid,
        Sysno::getppid,
        Sysno::getuid,
        Sysno::geteuid,
        Sysno::getgid,
        Sysno::getegid,
        Sysno::uname,
        Sysno::sysinfo,
        Sysno::getrusage,
        Sysno::times,
        Sysno::getrandom,
        // Signals of its own, and the end.
        Sysno::rt_sigprocmask,
        Sysno::rt_sigreturn,
        Sysno::rt_sigtimedwait,
        Sysno::sigaltstack,
        Sysno::restart_syscall,
        Sysno::set_tid_address,
        Sysno::exit,
        Sysno::exit_group,
        // A thread that this one starts gives up more. `clone3` itself is answered with ENOSYS
        // (see `filter`), since a filter cannot see its arguments.
        Sysno::seccomp,
        Sysno::clone3,
    ],
    with: &[
        (Sysno::openat, &[Without(2, WRITING)]),
        (Sysno::mmap, &[Without(2, EXEC)]),
        (Sysno::mprotect, &[Without(2, EXEC)]),
        // A thread, not a process.
        (Sysno::clone, &[With(0, libc::CLONE_THREAD as u32)]),
        // The handler of `violation` stays.
        (Sysno::rt_sigaction, &[IsNot(0, libc::SIGSYS as u32)]),
        (Sysno::prlimit64, &[Null(2)]),
        (Sysno::prctl, &[Is(0, libc::PR_SET_NAME as u32)]),
        (Sysno::prctl, &[Is(0, libc::PR_GET_NAME as u32)]),
        (Sysno::prctl, &[Is(0, libc::PR_SET_NO_NEW_PRIVS as u32)]),
        (Sysno::prctl, &[Is(0, PR_SET_VMA)]),
        (Sysno::ioctl, &[Is(1, libc::FIONBIO as u32)]),
        (Sysno::ioctl, &[Is(1, libc::FIONREAD as u32)]),
        (Sysno::ioctl, &[Is(1, libc::FIOCLEX as u32)]),
        // Whether there is a terminal, and putting it back.
        (Sysno::ioctl, &[Is(1, libc::TCGETS as u32)]),
        (Sysno::ioctl, &[Is(1, libc::TCGETS2 as u32)]),
        (Sysno::ioctl, &[Is(1, libc::TCSETS as u32)]),
        (Sysno::ioctl, &[Is(1, libc::TCSETS2 as u32)]),
        (Sysno::ioctl, &[Is(1, libc::TIOCGWINSZ as u32)]),
    ],
};

#[cfg(target_arch = "x86_64")]
const NEWFSTATAT: Sysno = Sysno::newfstatat;
#[cfg(not(target_arch = "x86_64"))]
const NEWFSTATAT: Sysno = Sysno::fstatat;

/// musl's raise(3) makes a call that does not name the process.
pub const RAISE: Calls = Calls {
    any: if cfg!(target_env = "musl") {
        &[Sysno::tkill]
    } else {
        &[]
    },
    with: &[],
};

/// The same purposes under the older names that x86 has besides.
#[cfg(target_arch = "x86_64")]
pub const OLDER: Calls = Calls {
    any: &[
        Sysno::stat,
        Sysno::lstat,
        Sysno::access,
        Sysno::readlink,
        Sysno::poll,
        Sysno::select,
        Sysno::epoll_wait,
        Sysno::epoll_create,
        Sysno::eventfd,
        Sysno::pipe,
        Sysno::dup2,
        Sysno::time,
        Sysno::getrlimit,
        Sysno::arch_prctl,
    ],
    with: &[(Sysno::open, &[Without(1, WRITING)])],
};
#[cfg(not(target_arch = "x86_64"))]
pub const OLDER: Calls = Calls {
    any: &[],
    with: &[],
};
