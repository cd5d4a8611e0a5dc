//! Errors between a device and its backend.

use std::io;
use std::time::Duration;

use host_io::sockets::BindError;
use vhost::vhost_user::message::MAX_ATTACHED_FD_ENTRIES;
use vhost_user_wire::WireError;

use crate::vhost_user::Address;
use crate::vhost_user::session::channel_error::ChannelError;
use crate::virtio::{DeviceError, DeviceType};

/// A backend failed its device.
#[derive(Debug, thiserror::Error)]
#[error("device {id}: vhost-user backend {address}")]
pub struct Error {
    pub id: String,
    pub address: Address,
    #[source]
    pub problem: Problem,
}

/// How it failed.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error(
        "cannot connect within {waited:?}; start the backend first, and check that socket= is the path it listens on"
    )]
    Connect { waited: Duration, source: io::Error },
    #[error("no backend has connected within {waited:?}; start it with the path of listen=")]
    Accept { waited: Duration, source: io::Error },
    #[error("its command failed")]
    Command(#[source] DeviceError),
    #[error("{0}")]
    NotReady(&'static str),
    #[error("it was not started by this program (exec=), and is to be restarted by whoever did")]
    NotSupervised,
    #[error("cannot take the backend's own state over to its successor")]
    State(#[source] io::Error),
    #[error("the backend refused to save or load its own state (it answered {code:#x})")]
    StateRefused { code: u64 },
    #[error(
        "the backend that came back cannot load the state that its predecessor has saved (VHOST_USER_PROTOCOL_F_DEVICE_STATE)"
    )]
    StateLost,
    #[error(
        "the backend takes {found} memory regions (VHOST_USER_GET_MAX_MEM_SLOTS), and guest RAM has {needed}; a smaller --memory may have fewer"
    )]
    TooFewMemorySlots { needed: usize, found: u64 },
    #[error(
        "the backend that came back has other shared memory regions than the machine was made with"
    )]
    SharedMemoryChanged,
    #[error("cannot take back what it has mapped into the guest")]
    SharedMemory(#[source] io::Error),
    #[error(
        "the backend has cut a file short that it has mapped into the guest, and the guest has accessed what is missing; it has to keep a file as long as it is mapped (SHMEM_UNMAP)"
    )]
    CutFile,
    #[error(
        "the backend cannot log the pages that it writes: it does not offer VHOST_F_LOG_ALL with VHOST_USER_PROTOCOL_F_LOG_SHMFD"
    )]
    NoLog,
    #[error("cannot make a log of the pages that the backend writes")]
    PageLog(#[source] io::Error),
    #[error("the backend is being replaced")]
    Replaced,
    #[error("it was disconnected by a command, and waits for one to connect again")]
    Disconnected,
    #[error("the backend has not been disconnected by a command")]
    NotDisconnected,
    #[error("cannot listen for the backend")]
    Listen(#[source] BindError),
    #[error("the socket path has {len} bytes, more than the {max} that a Unix socket can have")]
    PathTooLong { len: usize, max: usize },
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the connection was lost before")]
    Lost,
    #[error("the backend went away and was not back within {waited:?}")]
    NotBack { waited: Duration },
    #[error("the backend is away")]
    Away,
    #[error(
        "the backend that came back has not got what the driver relies on: {}; the driver can reset the device and do without", .0.join(", ")
    )]
    FeaturesLost(Vec<String>),
    #[error("the driver uses queue {queue}, and the backend has only {found} queues now")]
    QueueLost { queue: u16, found: u16 },
    #[error(
        "queue {queue} had requests in flight when the backend was lost: which of them were done cannot be known, because the backend did not track them (VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) and a {device_type} device may finish them in any order"
    )]
    InFlight { queue: u16, device_type: DeviceType },
    #[error(
        "how far the lost backend had got in queue {queue} cannot be known, because the queue is packed and the backend did not track its requests (VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD); with features=-packed the queues tell"
    )]
    PositionLost { queue: u16 },
    #[error("cannot make event descriptors for queue {queue}")]
    EventFd { queue: u16, source: io::Error },
    #[error("the backend closed the connection; its own log may say why")]
    Closed,
    #[error(
        "the backend sent something that was not asked for, and cannot be trusted to be in step"
    )]
    Unasked,
    #[error(
        "the backend says that it needs a reset (DEVICE_NEEDS_RESET in its status); its own log may say why"
    )]
    NeedsReset,
    #[error(
        "the backend reports an error on queue {queue}, and has no status to say whether it still works (VHOST_USER_PROTOCOL_F_STATUS), so it is taken to have stopped there; its own log may say why"
    )]
    RingBroken { queue: u16 },
    #[error(
        "a GPU's backend draws on a display that it expects from its frontend (VHOST_USER_GPU_SET_SOCKET), and there is none here; without it the backend never answers the driver"
    )]
    NoDisplay,
    #[error("cannot wait for the backend's socket")]
    Events(#[source] io::Error),
    #[error("cannot stand between the device and its backend")]
    Between(#[source] io::Error),
    #[error("cannot read from the backend's socket")]
    Socket(#[source] WireError),
    #[error("{asked} queues were asked for and the backend has {found}")]
    TooManyQueues { asked: u16, found: u64 },
    #[error("queues={0} is not possible: a network device has pairs of queues")]
    OddQueues(u16),
    #[error(
        "it does not offer VIRTIO_F_VERSION_1, and devices from before virtio 1.0 (legacy) are not supported"
    )]
    Legacy,
    #[error("it says that it has no queues")]
    NoQueues,
    #[error(
        "a {device_type} device needs a configuration space, and the backend {}{}",
        if *.offered { "refuses to read any" } else { "does not offer VHOST_USER_PROTOCOL_F_CONFIG" },
        config_hint(*.device_type, *.offered)
    )]
    NoConfig {
        device_type: DeviceType,
        offered: bool,
    },
    #[error("guest RAM at {start:#x} is not backed by a file, so that it cannot be shared")]
    MemoryNotShared { start: u64 },
    #[error("guest RAM has {0} regions, more than the {MAX_ATTACHED_FD_ENTRIES} of one message")]
    TooManyRegions(usize),
    #[error("queue {queue} lies at {address:#x}, outside the memory shared with the backend")]
    OutsideMemory { queue: u16, address: u64 },
    #[error("the backend stopped queue {found} when asked to stop queue {asked}")]
    WrongQueue { asked: u16, found: u32 },
}

/// An option that known backends need in order to offer a configuration space.
fn config_hint(device_type: DeviceType, offered: bool) -> &'static str {
    // Users of QEMU give the tag to QEMU, and none to virtiofsd.
    if device_type == DeviceType::FS && !offered {
        "; virtiofsd offers it when it is started with --tag TAG"
    } else {
        ""
    }
}

impl Problem {
    /// Whether there may be a connection later: nobody is there yet, nobody
    /// listens yet, or nobody has accepted the ones before us.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connect { source, .. } | Self::Accept { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::WouldBlock
            ),
            Self::NotReady(_) => true,
            _ => false,
        }
    }

    /// The same, having waited.
    pub(super) fn after(self, waited: Duration) -> Self {
        match self {
            Self::Connect { source, .. } => Self::Connect { waited, source },
            Self::Accept { source, .. } => Self::Accept { waited, source },
            problem => problem,
        }
    }

    /// Whether the backend ended the connection. After any other problem it may
    /// still be at work.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Closed | Self::Replaced | Self::Disconnected => true,
            Self::Channel(error) => error.is_closed(),
            _ => false,
        }
    }

    /// Whether the two sides are out of step, or the connection is closed.
    pub(super) fn ends_connection(&self) -> bool {
        match self {
            Self::Channel(error) => !error.is_refusal(),
            // Half of it has been said.
            Self::State(_) => true,
            _ => false,
        }
    }
}
