//! A tap interface of the host (Linux `Documentation/networking/tuntap.rst`).

#![allow(unsafe_code)]

use std::ffi::c_char;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::str::FromStr;

use thiserror::Error;

use super::link::Link;

const NO_OFFLOADS: libc::c_ulong = 0;

const TUN_DEVICE: &str = "/dev/net/tun";

/// Why a tap cannot be used. The user's doing, or the host's.
#[derive(Debug, Error)]
pub enum TapError {
    /// `/dev/net/tun` cannot be opened.
    #[error("{TUN_DEVICE} cannot be opened; is the tun module loaded?")]
    Device(#[source] io::Error),
    /// The interface belongs to another process or user, or may not be created.
    #[error(
        "tap {name} cannot be used; if it exists, nobody else may have it open; \
         if it does not, create it with: sudo ip tuntap add {name} mode tap user $USER"
    )]
    Attach {
        /// The name asked for.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A setting was refused.
    #[error("tap {name}: {what} cannot be set")]
    Set {
        /// The name asked for.
        name: String,
        /// Which setting.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A name that an interface can have: 1 to 15 bytes without `/` and blanks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapName(String);

impl FromStr for TapName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let usable = |b: u8| !b.is_ascii_whitespace() && b != b'/' && b != 0;
        let valid = (1..libc::IFNAMSIZ).contains(&name.len()) && name.bytes().all(usable);
        if !valid || name == "." || name == ".." {
            return Err("an interface's name has 1 to 15 bytes without '/' and blanks".into());
        }
        Ok(TapName(name.to_owned()))
    }
}

impl fmt::Display for TapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An attached tap interface. One that this process created goes with it.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: TapName,
}

impl Tap {
    /// Attaches to tap `name`, which is created if it does not exist and the user may.
    pub fn open(name: &TapName) -> Result<Self, TapError> {
        let mut request = interface_request(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(TUN_DEVICE)
            .map_err(TapError::Device)?;
        let attach = |source| TapError::Attach {
            name: name.to_string(),
            source,
        };
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        match set_interface(&file, &mut request, flags) {
            // An existing tap must be asked for with the flags it was created with.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                set_interface(&file, &mut request, flags | libc::IFF_MULTI_QUEUE)
                    .map_err(attach)?;
            }
            result => result.map_err(attach)?,
        }
        let tap = Tap {
            file,
            name: name.clone(),
        };
        tap.clear_offloads().map_err(|e| tap.set("offloads", e))?;
        Ok(tap)
    }

    /// The interface's name.
    pub fn name(&self) -> &TapName {
        &self.name
    }

    /// Sets the interface's MTU in bytes. Needs CAP_NET_ADMIN.
    pub fn set_mtu(&self, mtu: u16) -> Result<(), TapError> {
        let mut request = interface_request(&self.name);
        request.ifr_ifru.ifru_mtu = libc::c_int::from(mtu);
        // SAFETY: SIOCSIFMTU takes an `ifreq` with name and MTU, which `request` is.
        unsafe { interface_ioctl(libc::SIOCSIFMTU, &mut request) }.map_err(|e| self.set("MTU", e))
    }

    /// Brings the interface up if it is down. Needs CAP_NET_ADMIN unless it is up already.
    pub fn bring_up(&self) -> Result<(), TapError> {
        let mut request = interface_request(&self.name);
        // SAFETY: SIOCGIFFLAGS takes an `ifreq` with a name and fills in the flags.
        unsafe { interface_ioctl(libc::SIOCGIFFLAGS, &mut request) }
            .map_err(|e| self.set("its state", e))?;
        // SAFETY: the call above has stored the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        if i32::from(flags) & libc::IFF_UP != 0 {
            return Ok(());
        }
        request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
        // SAFETY: SIOCSIFFLAGS takes an `ifreq` with name and flags, which `request` is.
        unsafe { interface_ioctl(libc::SIOCSIFFLAGS, &mut request) }
            .map_err(|e| self.set("its state", e))
    }

    fn set(&self, what: &'static str, source: io::Error) -> TapError {
        TapError::Set {
            name: self.name.to_string(),
            what,
            source,
        }
    }

    /// Asks the kernel for whole packets with complete checksums only.
    fn clear_offloads(&self) -> io::Result<()> {
        // SAFETY: TUNSETOFFLOAD takes its flags by value.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, NO_OFFLOADS) })
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Link for Tap {
    fn set_header_size(&self, bytes: usize) -> io::Result<()> {
        let bytes = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: TUNSETVNETHDRSZ reads an `int`, which `bytes` is.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &bytes) })
    }
}

/// An `ifreq` that names an interface and says nothing else.
fn interface_request(name: &TapName) -> libc::ifreq {
    // SAFETY: `ifreq` is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.0.bytes()) {
        *to = from as c_char;
    }
    request
}

fn set_interface(file: &File, request: &mut libc::ifreq, flags: libc::c_int) -> io::Result<()> {
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF takes an `ifreq` with name and flags, which `request` is.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request) })
}

/// An ioctl about an interface, for which any socket will do.
///
/// # Safety
///
/// `operation` must be one that reads and writes an `ifreq` and nothing else.
unsafe fn interface_ioctl(operation: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    // SAFETY: the caller vouches for the operation; `request` outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), operation as libc::Ioctl, request) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for name in ["", ".", "..", "a/b", "a b", "sixteen-bytes-xx", "nul\0"] {
            assert!(name.parse::<TapName>().is_err(), "{name:?}");
        }
        let request = interface_request(&"fifteen-bytes-x".parse().unwrap());
        assert_eq!(request.ifr_name[15], 0);
    }
}
