//! A small driver for the tests: guest memory in a memfd, one split ring in it, and the `vhost`
//! crate's frontend to set both up.

#![allow(dead_code)]

pub mod program;
pub mod requests;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use backends::daemon::Daemon;
use backends::listener::Listener;
use backends::shutdown::{Shutdown, ShutdownHandle};
use backends::virtio::{PumpBackend, VirtioDevice};
use rustix::fs::{MemfdFlags, memfd_create};
use tempfile::TempDir;
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vhost_user_backend::VhostUserBackend;
use virtio_bindings::virtio_config::VIRTIO_F_RING_PACKED;
use vm_memory::mmap::NewBitmap;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// No answer may take longer.
pub const DEADLINE: Duration = Duration::from_secs(10);

pub const MEMORY_SIZE: usize = 16 << 20;
pub const QUEUE_SIZE: u16 = 64;

/// Where a ring's parts are; each ring has a page-aligned area of its own.
const RING_AREA: u64 = 0x4000;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;

/// First byte of memory that tests may use for buffers.
pub const BUFFERS: u64 = 0x10_0000;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// An anonymous file of `len` bytes.
pub fn memfd(len: u64) -> File {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(len).unwrap();
    file
}

/// Guest memory from guest address 0.
pub fn guest_memory() -> GuestMemoryMmap {
    let file = FileOffset::new(memfd(MEMORY_SIZE as u64), 0);
    GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), MEMORY_SIZE, Some(file))]).unwrap()
}

/// Waits until `fd` can be read.
pub fn readable(fd: &impl AsRawFd, timeout: Duration) -> bool {
    let epoll = Epoll::new().unwrap();
    epoll
        .ctl(
            ControlOperation::Add,
            fd.as_raw_fd(),
            EpollEvent::new(EventSet::IN, 0),
        )
        .unwrap();
    wait(&epoll, timeout)
}

/// Waits until something is ready in `epoll`. The kernel interrupts it for the requests of an
/// io_uring that this thread has had.
pub fn wait(epoll: &Epoll, timeout: Duration) -> bool {
    let end = Instant::now() + timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut events = [EpollEvent::default()];
        match epoll.wait(left.as_millis() as i32, &mut events) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
            count => return count.unwrap() == 1,
        }
    }
}

/// A descriptor to be put into a ring.
#[derive(Clone, Copy)]
pub struct Desc {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
}

pub fn r(addr: u64, len: u32) -> Desc {
    Desc {
        addr,
        len,
        flags: 0,
    }
}

pub fn w(addr: u64, len: u32) -> Desc {
    Desc {
        addr,
        len,
        flags: WRITE,
    }
}

/// One ring, driver side.
pub struct Ring {
    pub index: usize,
    pub base: u64,
    pub kick: EventFd,
    pub call: EventFd,
    pub err: EventFd,
    next_desc: u16,
    avail: u16,
    used: u16,
}

impl Ring {
    fn new(index: usize) -> Self {
        Ring {
            index,
            base: 0x1000 + RING_AREA * index as u64,
            kick: EventFd::new(libc::EFD_NONBLOCK).unwrap(),
            call: EventFd::new(libc::EFD_NONBLOCK).unwrap(),
            err: EventFd::new(libc::EFD_NONBLOCK).unwrap(),
            next_desc: 0,
            avail: 0,
            used: 0,
        }
    }

    pub fn write_desc(&self, memory: &GuestMemoryMmap, i: u16, desc: Desc, next: u16) {
        let at = GuestAddress(self.base + 16 * u64::from(i));
        memory.write_obj(desc.addr, at).unwrap();
        memory.write_obj(desc.len, GuestAddress(at.0 + 8)).unwrap();
        memory
            .write_obj(desc.flags, GuestAddress(at.0 + 12))
            .unwrap();
        memory.write_obj(next, GuestAddress(at.0 + 14)).unwrap();
    }

    /// Makes `descs` available as one chain and returns its head.
    pub fn add(&mut self, memory: &GuestMemoryMmap, descs: &[Desc]) -> u16 {
        let head = self.next_desc % QUEUE_SIZE;
        for (i, desc) in descs.iter().enumerate() {
            let at = self.next_desc % QUEUE_SIZE;
            self.next_desc = self.next_desc.wrapping_add(1);
            let mut desc = *desc;
            if i + 1 < descs.len() {
                desc.flags |= NEXT;
            }
            self.write_desc(memory, at, desc, self.next_desc % QUEUE_SIZE);
        }
        self.publish(memory, head);
        head
    }

    /// The same from descriptor `head` on, where nothing else is.
    pub fn add_at(&mut self, memory: &GuestMemoryMmap, head: u16, descs: &[Desc]) {
        for (i, desc) in (head..).zip(descs) {
            let mut desc = *desc;
            if usize::from(i - head) + 1 < descs.len() {
                desc.flags |= NEXT;
            }
            self.write_desc(memory, i, desc, i + 1);
        }
        self.publish(memory, head);
    }

    /// Makes the chain at `head` available.
    pub fn publish(&mut self, memory: &GuestMemoryMmap, head: u16) {
        let slot = u64::from(self.avail % QUEUE_SIZE);
        let ring = self.base + AVAIL;
        memory
            .write_obj(head, GuestAddress(ring + 4 + 2 * slot))
            .unwrap();
        self.avail = self.avail.wrapping_add(1);
        memory
            .store(self.avail, GuestAddress(ring + 2), Ordering::Release)
            .unwrap();
    }

    /// How many used elements have been seen.
    pub fn seen(&self) -> u16 {
        self.used
    }

    pub fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    /// Kicks if the device wants to hear of one of the last `added` chains (EVENT_IDX).
    pub fn kick_if_wanted(&self, memory: &GuestMemoryMmap, added: u16) {
        let event = self.base + USED + 4 + 8 * u64::from(QUEUE_SIZE);
        // What was added must be visible before the device's wish is read.
        std::sync::atomic::fence(Ordering::SeqCst);
        let event: u16 = memory.read_obj(GuestAddress(event)).unwrap();
        if self.avail.wrapping_sub(event).wrapping_sub(1) < added {
            self.kick();
        }
    }

    /// Has the device interrupt at the next used element (EVENT_IDX).
    pub fn want_interrupt(&self, memory: &GuestMemoryMmap) {
        let event = self.base + AVAIL + 4 + 2 * u64::from(QUEUE_SIZE);
        memory.write_obj(self.used, GuestAddress(event)).unwrap();
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Whether there is a used element that has not been seen.
    pub fn has_used(&self, memory: &GuestMemoryMmap) -> bool {
        let index = GuestAddress(self.base + USED + 2);
        let used: u16 = memory.load(index, Ordering::Acquire).unwrap();
        used != self.used
    }

    /// The next used element, if there is one: head and length.
    pub fn poll_used(&mut self, memory: &GuestMemoryMmap) -> Option<(u16, u32)> {
        if !self.has_used(memory) {
            return None;
        }
        let ring = self.base + USED;
        let at = ring + 4 + 8 * u64::from(self.used % QUEUE_SIZE);
        self.used = self.used.wrapping_add(1);
        let head: u32 = memory.read_obj(GuestAddress(at)).unwrap();
        let len = memory.read_obj(GuestAddress(at + 4)).unwrap();
        Some((head as u16, len))
    }

    /// Waits for the next used element by waiting for interrupts.
    pub fn wait_used(&mut self, memory: &GuestMemoryMmap) -> (u16, u32) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.want_interrupt(memory);
            if let Some(used) = self.poll_used(memory) {
                return used;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                readable(&self.call, left),
                "no interrupt within the deadline"
            );
            self.call.read().unwrap();
        }
    }
}

/// A daemon in a thread, on a socket in a scratch directory.
pub struct Server {
    pub dir: TempDir,
    shutdown: ShutdownHandle,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves a device of the kit's.
    pub fn start_device<D: VirtioDevice>(dir: TempDir, device: D) -> Self {
        let backend = Arc::new(PumpBackend::new(device).unwrap());
        Server::start(dir, Arc::clone(&backend), |daemon| {
            backend.attach(daemon).unwrap();
        })
    }

    /// Serves `backend`; `attach` may register its listeners first.
    pub fn start<T>(dir: TempDir, backend: T, attach: impl FnOnce(&Daemon<T>)) -> Self
    where
        T: VhostUserBackend + Clone + 'static,
        T::Bitmap: NewBitmap + Clone + Send + Sync,
        T::Vring: Clone + Send + Sync + 'static,
    {
        let listener = Listener::bind(&dir.path().join("socket")).unwrap();
        let mut daemon = Daemon::new(backend, Shutdown::new().unwrap()).unwrap();
        attach(&daemon);
        let shutdown = daemon.shutdown_handle();
        let thread = std::thread::spawn(move || daemon.serve(&listener).unwrap());
        Server {
            dir,
            shutdown,
            thread: Some(thread),
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.shutdown();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
            assert!(!self.socket().exists(), "the socket is removed at the end");
        }
    }
}

/// Connects to a program that is about to listen.
pub fn connect_within(limit: Duration, socket: &Path, rings: usize) -> Driver {
    let end = Instant::now() + limit;
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Driver::over(stream, rings, 0),
            Err(error) => assert!(Instant::now() < end, "{}: {error}", socket.display()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A frontend with its guest memory.
pub struct Driver {
    pub memory: GuestMemoryMmap,
    pub frontend: Frontend,
    pub features: u64,
    pub rings: Vec<Ring>,
}

impl Driver {
    /// Connects and negotiates everything offered except `without`.
    pub fn connect(socket: &Path, rings: usize, without: u64) -> Self {
        Driver::over(UnixStream::connect(socket).unwrap(), rings, without)
    }

    /// The same over a connected socket.
    pub fn over(stream: UnixStream, rings: usize, without: u64) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut frontend = Frontend::from_stream(stream, rings as u64);
        frontend.set_owner().unwrap();
        // The rings here are split ones.
        let without = without | 1 << VIRTIO_F_RING_PACKED;
        let features = frontend.get_features().unwrap() & !without;
        let protocol = frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(protocol).unwrap();
        if protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        frontend.set_features(features).unwrap();
        Driver {
            memory: guest_memory(),
            frontend,
            features,
            rings: (0..rings).map(Ring::new).collect(),
        }
    }

    pub fn set_mem_table(&self) {
        let region = self.memory.iter().next().unwrap();
        let info = VhostUserMemoryRegionInfo::from_guest_region(region).unwrap();
        self.frontend.set_mem_table(&[info]).unwrap();
    }

    /// Sets up ring `i` at position `base`, not enabled yet.
    pub fn set_up_ring(&mut self, i: usize, base: u16) {
        let host = |at: u64| self.memory.get_host_address(GuestAddress(at)).unwrap() as u64;
        let ring = &self.rings[i];
        let config = VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            flags: 0,
            desc_table_addr: host(ring.base),
            used_ring_addr: host(ring.base + USED),
            avail_ring_addr: host(ring.base + AVAIL),
            log_addr: None,
        };
        self.frontend.set_vring_num(i, QUEUE_SIZE).unwrap();
        self.frontend.set_vring_addr(i, &config).unwrap();
        self.frontend.set_vring_base(i, base).unwrap();
        self.frontend.set_vring_call(i, &ring.call).unwrap();
        self.frontend.set_vring_err(i, &ring.err).unwrap();
        self.frontend.set_vring_kick(i, &ring.kick).unwrap();
    }

    /// Memory and all rings, enabled.
    pub fn start(&mut self) {
        self.set_mem_table();
        for i in 0..self.rings.len() {
            self.set_up_ring(i, 0);
            self.frontend.set_vring_enable(i, true).unwrap();
        }
    }

    /// Adds a chain to ring `i`, kicks, and waits until it comes back. Returns the used length.
    pub fn run(&mut self, i: usize, descs: &[Desc]) -> u32 {
        let ring = &mut self.rings[i];
        let head = ring.add(&self.memory, descs);
        ring.kick();
        let (used, len) = ring.wait_used(&self.memory);
        assert_eq!(used, head);
        len
    }
}
