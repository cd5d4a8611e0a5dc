//! A tap interface of the host (Linux `Documentation/networking/tuntap.rst`).

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;

use thiserror::Error;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
    VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_USO,
};

use super::link::Link;
use super::speed::Speed;
use super::tap_fd::{self, TapFdError};
use super::tap_name::{TapName, interface_request};

const TUN_DEVICE: &str = "/dev/net/tun";

/// linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// linux/ethtool.h.
const ETHTOOL_GSET: u32 = 1;

/// `struct ethtool_cmd` of linux/ethtool.h.
#[repr(C)]
#[derive(Default)]
struct Settings {
    command: u32,
    supported: u32,
    advertising: u32,
    speed: u16,
    duplex: u8,
    port: u8,
    phy_address: u8,
    transceiver: u8,
    autoneg: u8,
    mdio_support: u8,
    packets: [u32; 2],
    speed_hi: u16,
    crossover: [u8; 2],
    partner_advertising: u32,
    reserved: [u32; 2],
}

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
    /// It exists and can have one queue only.
    #[error(
        "tap {name} has one queue; remove it, or create it with: \
         sudo ip tuntap add {name} mode tap user $USER multi_queue"
    )]
    OneQueue {
        /// The name asked for.
        name: String,
    },
    /// It was to be opened already.
    #[error(transparent)]
    Fd(#[from] TapFdError),
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

/// Feature bits, and the kernel's flags (linux/if_tun.h), of the work that a driver can do on
/// received packets: incomplete checksums, segments that belong together.
const GUEST_OFFLOADS: [(u32, u32); 6] = [
    (VIRTIO_NET_F_GUEST_CSUM, 0x01),
    (VIRTIO_NET_F_GUEST_TSO4, 0x02),
    (VIRTIO_NET_F_GUEST_TSO6, 0x04),
    (VIRTIO_NET_F_GUEST_ECN, 0x08),
    (VIRTIO_NET_F_GUEST_USO4, 0x20),
    (VIRTIO_NET_F_GUEST_USO6, 0x40),
];

/// The same the other way, which the kernel always does, and for UDP since 6.2.
const HOST_OFFLOADS: [u32; 4] = [
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_ECN,
];
const UDP_OFFLOADS: u32 = 0x60;

/// An attached tap interface. One that this process created goes with it.
#[derive(Debug)]
pub struct Tap {
    /// One a queue pair.
    files: Vec<File>,
    /// How many of them receive.
    active: Mutex<u16>,
    name: TapName,
    udp_offloads: bool,
    /// Readable after a change of any interface.
    changes: OwnedFd,
}

impl Tap {
    /// Attaches to tap `name`, which is created if it does not exist and the user may, `pairs`
    /// times. Only the first receives packets until [`Link::set_pairs`].
    pub fn open(name: &TapName, pairs: u16) -> Result<Self, TapError> {
        let attach = |source| TapError::Attach {
            name: name.to_string(),
            source,
        };
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        let many = flags | libc::IFF_MULTI_QUEUE;
        let mut files = match open_queue(name, if pairs > 1 { many } else { flags })? {
            Ok(file) => vec![file],
            // An existing tap must be asked for with the flags it was created with.
            Err(e) if pairs == 1 && e.kind() == io::ErrorKind::InvalidInput => {
                vec![open_queue(name, many)?.map_err(attach)?]
            }
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                return Err(TapError::OneQueue {
                    name: name.to_string(),
                });
            }
            Err(e) => return Err(attach(e)),
        };
        for _ in 1..pairs {
            files.push(open_queue(name, many)?.map_err(attach)?);
        }
        Tap::over(name.clone(), files)
    }

    /// The tap that these descriptors are queues of. Somebody else has opened them for this
    /// process, which needs no privilege then.
    pub fn inherit(fds: &[RawFd]) -> Result<Self, TapError> {
        let (name, files) = tap_fd::take(fds)?;
        Tap::over(name, files)
    }

    /// All queues are attached.
    fn over(name: TapName, files: Vec<File>) -> Result<Self, TapError> {
        let set = |what, source| TapError::Set {
            name: name.to_string(),
            what,
            source,
        };
        let mut tap = Tap {
            active: Mutex::new(files.len() as u16),
            files,
            name: name.clone(),
            udp_offloads: false,
            changes: interface_changes().map_err(|e| set("a watch for changes", e))?,
        };
        tap.set_pairs(1).map_err(|e| set("its queues", e))?;
        tap.udp_offloads = tap.set_offloads(0x01 | 0x02 | 0x04 | UDP_OFFLOADS).is_ok();
        tap.set_offloads(0).map_err(|e| set("offloads", e))?;
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
        let flags = self.flags().map_err(|e| self.set("its state", e))?;
        if i32::from(flags) & libc::IFF_UP != 0 {
            return Ok(());
        }
        request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
        // SAFETY: SIOCSIFFLAGS takes an `ifreq` with name and flags, which `request` is.
        unsafe { interface_ioctl(libc::SIOCSIFFLAGS, &mut request) }
            .map_err(|e| self.set("its state", e))
    }

    fn flags(&self) -> io::Result<libc::c_short> {
        let mut request = interface_request(&self.name);
        // SAFETY: SIOCGIFFLAGS takes an `ifreq` with a name and fills in the flags.
        unsafe { interface_ioctl(libc::SIOCGIFFLAGS, &mut request) }?;
        // SAFETY: the call above has stored the flags.
        Ok(unsafe { request.ifr_ifru.ifru_flags })
    }

    fn settings(&self) -> io::Result<Settings> {
        let mut settings = Settings {
            command: ETHTOOL_GSET,
            ..Settings::default()
        };
        let mut request = interface_request(&self.name);
        request.ifr_ifru.ifru_data = (&raw mut settings).cast();
        // SAFETY: SIOCETHTOOL takes an `ifreq` with a name and a pointer to a command with its
        // structure: ETHTOOL_GSET fills in a `struct ethtool_cmd`, which `settings` is.
        unsafe { interface_ioctl(SIOCETHTOOL, &mut request) }?;
        Ok(settings)
    }

    fn set(&self, what: &'static str, source: io::Error) -> TapError {
        TapError::Set {
            name: self.name.to_string(),
            what,
            source,
        }
    }

    /// Sets the offloads that the guest takes for received packets: TUN_F_* flags.
    fn set_offloads(&self, flags: u32) -> io::Result<()> {
        let fd = self.files[0].as_raw_fd();
        // SAFETY: TUNSETOFFLOAD takes its flags by value.
        check(unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
    }

    /// Lets a queue receive packets, or no longer.
    fn attach_queue(&self, pair: u16, attach: bool) -> io::Result<()> {
        let mut request = interface_request(&self.name);
        let flags = if attach {
            libc::IFF_ATTACH_QUEUE
        } else {
            libc::IFF_DETACH_QUEUE
        };
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        let fd = self.files[usize::from(pair)].as_raw_fd();
        // SAFETY: TUNSETQUEUE reads an `ifreq`, which `request` is.
        check(unsafe { libc::ioctl(fd, libc::TUNSETQUEUE, &request) })
    }
}

impl Link for Tap {
    fn pairs(&self) -> u16 {
        self.files.len() as u16
    }

    fn offloads(&self) -> u64 {
        let guest = GUEST_OFFLOADS.iter();
        let guest = guest.filter(|(_, flag)| self.udp_offloads || flag & UDP_OFFLOADS == 0);
        let host = HOST_OFFLOADS.iter();
        let udp = self.udp_offloads.then_some(&VIRTIO_NET_F_HOST_USO);
        guest
            .map(|(bit, _)| bit)
            .chain(host)
            .chain(udp)
            .fold(0, |mask, bit| mask | 1 << bit)
    }

    fn configure(&self, header_size: usize, guest_offloads: u64) -> io::Result<()> {
        let bytes = libc::c_int::try_from(header_size).map_err(io::Error::other)?;
        // The size is the interface's, whichever queue sets it; a detached queue cannot.
        let fd = self.files[0].as_raw_fd();
        // SAFETY: TUNSETVNETHDRSZ reads an `int`, which `bytes` is.
        check(unsafe { libc::ioctl(fd, libc::TUNSETVNETHDRSZ, &bytes) })?;
        let has = |bit: u32| guest_offloads & (1 << bit) != 0;
        let wanted = GUEST_OFFLOADS.iter().filter(|(bit, _)| has(*bit));
        self.set_offloads(wanted.fold(0, |flags, (_, flag)| flags | flag))
    }

    fn set_pairs(&self, pairs: u16) -> io::Result<()> {
        let mut active = self.active.lock().unwrap_or_else(|e| e.into_inner());
        while *active < pairs {
            self.attach_queue(*active, true)?;
            *active += 1;
        }
        while *active > pairs.max(1) {
            self.attach_queue(*active - 1, false)?;
            *active -= 1;
        }
        Ok(())
    }

    fn ready_fd(&self, pair: u16) -> RawFd {
        self.files[usize::from(pair)].as_raw_fd()
    }

    fn receive(&self, pair: u16, _header: usize, packet: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.files[usize::from(pair)]).read(packet) {
            Ok(0) => Ok(None),
            Ok(len) => Ok(Some(len)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn packet_fd(&self, pair: u16) -> Option<BorrowedFd<'_>> {
        Some(self.files[usize::from(pair)].as_fd())
    }

    /// As the host sets it: `ip link set NAME up|down`.
    fn is_up(&self) -> bool {
        let flags = self.flags().unwrap_or_default();
        i32::from(flags) & libc::IFF_UP != 0
    }

    /// As the host sets it: `ethtool --change NAME speed N duplex full|half`.
    fn speed(&self) -> Option<Speed> {
        let settings = self.settings().ok()?;
        let megabits = u32::from(settings.speed_hi) << 16 | u32::from(settings.speed);
        Speed::new(megabits, settings.duplex)
    }

    fn change_fd(&self) -> Option<RawFd> {
        Some(self.changes.as_raw_fd())
    }

    fn changed(&self) {
        // The message's contents do not matter: the state is asked for afterwards.
        let mut message = [0; 8192];
        while matches!(rustix::io::read(&self.changes, &mut message), Ok(1..)) {}
    }
}

/// Another queue of tap `name`, or the reason why not.
fn open_queue(name: &TapName, flags: libc::c_int) -> Result<io::Result<File>, TapError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(TUN_DEVICE)
        .map_err(TapError::Device)?;
    let mut request = interface_request(name);
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF takes an `ifreq` with name and flags, which `request` is.
    let result = check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) });
    Ok(result.map(|()| file))
}

/// A socket that hears of changes of interfaces (rtnetlink(7)).
fn interface_changes() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointer.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
    check(fd)?;
    // SAFETY: just created, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: `sockaddr_nl` is plain data for which all zeroes is valid.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address.nl_groups = libc::RTMGRP_LINK as u32;
    let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    // SAFETY: `address` is a netlink address of that length and outlives the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(fd)
}

/// An ioctl about an interface, for which any socket will do.
///
/// # Safety
///
/// `operation` must be one that reads and writes an `ifreq`, what that points to if it has a
/// pointer, and nothing else.
unsafe fn interface_ioctl(operation: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    // SAFETY: the caller vouches for the operation; `request` outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), operation as libc::Ioctl, request) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
