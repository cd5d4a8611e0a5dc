//! A tap that somebody else has opened, as a descriptor that this process was started with.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use thiserror::Error;

use super::tap_name::TapName;

/// Why a descriptor cannot be used. The user's doing.
#[derive(Debug, Error)]
pub enum TapFdError {
    /// It is closed, or something else.
    #[error(
        "descriptor {fd} is no attached tap; open it with TUNSETIFF, and hand it to this process"
    )]
    NoTap {
        /// The number asked for.
        fd: RawFd,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is a tap without the headers that packets have here, or with others, or a tun.
    #[error(
        "descriptor {fd} lacks {flag}, with which this program uses a tap; it was opened without"
    )]
    Flag {
        /// The number asked for.
        fd: RawFd,
        /// The kernel's name of it.
        flag: &'static str,
    },
    /// There is none.
    #[error("no descriptor was given")]
    None,
    /// One was given several times.
    #[error("descriptor {0} was given twice; each pair of queues needs its own")]
    Twice(RawFd),
    /// They are of different interfaces.
    #[error("descriptors are of several taps, {0} and {1}; they have to be queues of one")]
    Several(TapName, TapName),
}

/// Takes queues of one tap over. Nothing else may use these descriptors.
pub fn take(fds: &[RawFd]) -> Result<(TapName, Vec<File>), TapFdError> {
    let mut files = Vec::new();
    let mut name: Option<TapName> = None;
    let mut numbers = fds.iter().enumerate();
    if let Some((_, fd)) = numbers.find(|(i, fd)| fds[..*i].contains(fd)) {
        return Err(TapFdError::Twice(*fd));
    }
    for &fd in fds {
        let (file, its) = take_one(fd, fds.len() > 1)?;
        match name.take() {
            Some(first) if first != its => return Err(TapFdError::Several(first, its)),
            _ => name = Some(its),
        }
        files.push(file);
    }
    let name = name.ok_or(TapFdError::None)?;
    Ok((name, files))
}

fn take_one(fd: RawFd, is_one_of_many: bool) -> Result<(File, TapName), TapFdError> {
    let no_tap = |source| TapFdError::NoTap { fd, source };
    // SAFETY: `ifreq` is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: TUNGETIFF fills in an `ifreq`; any other file refuses it.
    check(unsafe { libc::ioctl(fd, libc::TUNGETIFF as libc::Ioctl, &mut request) })
        .map_err(no_tap)?;
    // SAFETY: the call above has stored the flags.
    let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
    let wanted = [
        (libc::IFF_TAP, "IFF_TAP"),
        (libc::IFF_NO_PI, "IFF_NO_PI"),
        (libc::IFF_VNET_HDR, "IFF_VNET_HDR"),
        (libc::IFF_MULTI_QUEUE, "IFF_MULTI_QUEUE"),
    ];
    let count = if is_one_of_many { 4 } else { 3 };
    for (bit, flag) in wanted.into_iter().take(count) {
        if flags & bit == 0 {
            return Err(TapFdError::Flag { fd, flag });
        }
    }
    let name = TapName::of_request(&request);
    let name = name.ok_or_else(|| no_tap(io::ErrorKind::InvalidData.into()))?;
    for (command, value) in [
        (libc::F_SETFD, libc::FD_CLOEXEC),
        (libc::F_SETFL, libc::O_RDWR | libc::O_NONBLOCK),
    ] {
        // SAFETY: takes no pointer.
        check(unsafe { libc::fcntl(fd, command, value) }).map_err(no_tap)?;
    }
    // SAFETY: it is open, and the caller says that nobody else uses it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok((file, name))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
