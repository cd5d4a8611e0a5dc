//! A machine without a processor: guest RAM, a hypervisor that only notes what
//! it is told, and a driver that does by hand what a guest's would.
#![allow(dead_code)] // Each test uses its part.

pub mod blk;
pub mod packed;
pub mod requests;
pub mod scripted;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use devices::bus::BusDevice;
use devices::file_mapping::FileMapping;
use devices::hypervisor::Hypervisor;
use devices::vhost_user::{self, Frontend, Handle};
use devices::virtio::page::RegisterPage;
use devices::virtio::spec::{CONFIG_OFFSET, Register};
use devices::virtio::status::Status;
use devices::virtio::{DeviceError, DeviceEvent, GuestMemory, MmioTransport, mmio};
use vm_memory::{Bytes, FileOffset, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

pub const RAM: u64 = 4 << 20;
pub const BASE: GuestAddress = GuestAddress(0xd000_0000);
pub const GSI: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(20);

/// Guest RAM that can be shared, in two regions.
pub fn shared_memory() -> Arc<GuestMemory> {
    let file: File = tempfile::tempfile().unwrap();
    file.set_len(RAM).unwrap();
    let file = Arc::new(file);
    let part = |at, offset| {
        let file = FileOffset::from_arc(file.clone(), offset);
        (GuestAddress(at), (RAM / 2) as usize, Some(file))
    };
    let parts = [part(0, 0), part(1 << 32, RAM / 2)];
    Arc::new(GuestMemory::from_ranges_with_files(parts).unwrap())
}

/// Notes the wiring, so that a test can play the kernel's part.
#[derive(Default)]
pub struct Wiring {
    pub ioeventfds: Mutex<Vec<(GuestAddress, u32, EventFd)>>,
    pub irqfds: Mutex<Vec<(u32, EventFd)>>,
    /// Files in the guest's address space, by where they are.
    pub mapped: Mutex<BTreeMap<u64, FileMapping>>,
}

impl Hypervisor for Wiring {
    fn add_ioeventfd(&self, addr: GuestAddress, value: u32, fd: &EventFd) -> io::Result<()> {
        let entry = (addr, value, fd.try_clone()?);
        self.ioeventfds.lock().unwrap().push(entry);
        Ok(())
    }

    fn remove_ioeventfd(&self, addr: GuestAddress, value: u32, _fd: &EventFd) -> io::Result<()> {
        let mut fds = self.ioeventfds.lock().unwrap();
        fds.retain(|(at, datamatch, _)| (*at, *datamatch) != (addr, value));
        Ok(())
    }

    fn add_irqfd(&self, gsi: u32, fd: &EventFd) -> io::Result<()> {
        self.irqfds.lock().unwrap().push((gsi, fd.try_clone()?));
        Ok(())
    }

    fn map_read_only(&self, _addr: GuestAddress, _page: &Arc<RegisterPage>) -> io::Result<()> {
        Ok(())
    }

    fn map(&self, addr: GuestAddress, mapping: FileMapping) -> io::Result<()> {
        let old = self.mapped.lock().unwrap().insert(addr.0, mapping);
        assert!(old.is_none(), "something is mapped at {:#x}", addr.0);
        Ok(())
    }

    fn replace_if_cut(&self, addr: GuestAddress) {
        let mapped = self.mapped.lock().unwrap();
        mapped[&addr.0].replace_if_cut().unwrap();
    }

    fn unmap(&self, addr: GuestAddress) -> io::Result<()> {
        let old = self.mapped.lock().unwrap().remove(&addr.0);
        old.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }
}

/// A transport and the guest's side of it.
pub struct Machine {
    pub memory: Arc<GuestMemory>,
    pub wiring: Arc<Wiring>,
    pub transport: MmioTransport,
    pub backend: Handle,
}

impl Machine {
    pub fn new(frontend: Frontend, memory: Arc<GuestMemory>) -> Self {
        Self::try_new(frontend, memory).unwrap()
    }

    /// For a device that may not be fit for a driver.
    pub fn try_new(frontend: Frontend, memory: Arc<GuestMemory>) -> Result<Self, mmio::Error> {
        let wiring = Arc::new(Wiring::default());
        let (device, backend) = vhost_user::share(frontend);
        let (id, kernel) = ("test".into(), wiring.clone());
        let transport = MmioTransport::new(id, device, memory.clone(), BASE, GSI, kernel)?;
        Ok(Self {
            memory,
            wiring,
            transport,
            backend,
        })
    }

    pub fn pause(&mut self) {
        self.backend.pause(&mut self.transport);
    }

    pub fn unpause(&mut self) {
        self.backend.unpause(&mut self.transport);
    }

    pub fn replace_backend(&mut self) -> Result<(), DeviceError> {
        self.backend.replace_backend(&mut self.transport)
    }

    pub fn set_dirty_log(&mut self, wanted: bool) -> Result<(), DeviceError> {
        self.backend.set_dirty_log(&mut self.transport, wanted)
    }

    pub fn read(&mut self, register: Register) -> u32 {
        let mut data = [0; 4];
        let offset = register.offset() as u64;
        self.transport.read(offset, &mut data).unwrap();
        u32::from_le_bytes(data)
    }

    /// Writes as the guest does: what an ioeventfd matches goes no further.
    pub fn write(&mut self, register: Register, value: u32) {
        let offset = register.offset() as u64;
        let address = GuestAddress(BASE.0 + offset);
        let eventfds = self.wiring.ioeventfds.lock().unwrap();
        let matching = eventfds
            .iter()
            .find(|(a, v, _)| (*a, *v) == (address, value));
        if let Some((_, _, fd)) = matching {
            return fd.write(1).unwrap();
        }
        drop(eventfds);
        self.transport.write(offset, &value.to_le_bytes()).unwrap();
    }

    pub fn read_config(&mut self, offset: usize, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        let offset = (CONFIG_OFFSET + offset) as u64;
        self.transport.read(offset, &mut data).unwrap();
        data
    }

    pub fn has_status(&mut self, status: Status) -> bool {
        self.read(Register::Status) & status.bits() != 0
    }

    fn add_status(&mut self, status: Status) {
        let old = self.read(Register::Status);
        self.write(Register::Status, old | status.bits());
    }

    pub fn write_config(&mut self, offset: usize, data: &[u8]) {
        let offset = (CONFIG_OFFSET + offset) as u64;
        self.transport.write(offset, data).unwrap();
    }

    /// A whole handshake: takes `features` as far as they are offered, and
    /// makes `queues` ready.
    pub fn bring_up(&mut self, features: u64, queues: &mut [Ring]) {
        self.negotiate(features);
        for ring in queues {
            self.set_up(ring);
        }
        self.driver_ok();
    }

    /// Resets the device and takes `features` as far as they are offered.
    pub fn negotiate(&mut self, features: u64) {
        self.write(Register::Status, 0);
        self.add_status(Status::ACKNOWLEDGE);
        self.add_status(Status::DRIVER);
        for half in [0, 1] {
            self.write(Register::DeviceFeaturesSel, half);
            let offered = self.read(Register::DeviceFeatures);
            let take = offered & (features >> (32 * half)) as u32;
            self.write(Register::DriverFeaturesSel, half);
            self.write(Register::DriverFeatures, take);
        }
        self.add_status(Status::FEATURES_OK);
        assert!(self.has_status(Status::FEATURES_OK));
    }

    pub fn driver_ok(&mut self) {
        self.add_status(Status::DRIVER_OK);
    }

    /// Empties a queue and makes it ready.
    pub fn set_up(&mut self, ring: &mut Ring) {
        self.write(Register::QueueSel, ring.index);
        assert_eq!(self.read(Register::QueueReady), 0);
        assert!(self.read(Register::QueueSizeMax) >= Ring::SIZE.into());
        self.try_set_up(ring);
        assert_eq!(self.read(Register::QueueReady), 1);
    }

    /// The same, where the device may not want it.
    pub fn try_set_up(&mut self, ring: &mut Ring) {
        ring.clear(&self.memory);
        self.write(Register::QueueSel, ring.index);
        self.write(Register::QueueSize, Ring::SIZE.into());
        for (low, high, address) in [
            (Register::QueueDescLow, Register::QueueDescHigh, ring.base),
            (
                Register::QueueDriverLow,
                Register::QueueDriverHigh,
                ring.available(),
            ),
            (
                Register::QueueDeviceLow,
                Register::QueueDeviceHigh,
                ring.used(),
            ),
        ] {
            self.write(low, address as u32);
            self.write(high, (address >> 32) as u32);
        }
        self.write(Register::QueueReady, 1);
    }

    /// Adds a request, kicks, and waits for the interrupt of its completion.
    pub fn request(&mut self, ring: &mut Ring, buffers: &[Buffer]) {
        ring.add(&self.memory, buffers);
        self.write(Register::QueueNotify, ring.index);
        self.complete(ring);
    }

    /// Waits until all requests of a queue are complete.
    pub fn complete(&mut self, ring: &Ring) {
        let call = self.call(ring.index as usize);
        while ring.is_behind(&self.memory) {
            assert!(wait(&call), "no completion within {PATIENCE:?}");
            // An interrupt may be for an earlier request: look again.
            let _ = call.read();
        }
        self.write(Register::InterruptAck, 1);
    }

    /// Has the device's events handled until `done`.
    pub fn handle_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let events = self.transport.event_fd().unwrap();
        let events = events.try_clone_to_owned().unwrap();
        while !done(self) {
            assert!(wait(&events), "{what}: nothing happens");
            self.transport.handle_event();
        }
    }

    /// Has the device notice that the backend has gone, and wait for it.
    pub fn notice_loss(&mut self) {
        assert!(wait(&self.transport.event_fd().unwrap()));
        let event = self.transport.handle_event();
        assert!(matches!(event, DeviceEvent::Nothing), "{event:?}");
        assert!(!self.has_status(Status::NEEDS_RESET));
        // What was signalled before does not count.
        for (_, call) in self.wiring.irqfds.lock().unwrap().iter() {
            let _ = call.read();
        }
    }

    /// Has the device's events handled until all requests of a queue are
    /// complete.
    pub fn handle_until_complete(&mut self, ring: &Ring) {
        // The completion itself is no event of the device's.
        let call = self.call(ring.index as usize);
        let memory = self.memory.clone();
        self.handle_until("the backend is back", |_| {
            !ring.is_behind(&memory) || call.read().is_ok()
        });
        self.complete(ring);
    }

    /// The descriptor behind the kicks of queue `index`, as it is now.
    pub fn kick(&self, index: u32) -> EventFd {
        let register = GuestAddress(BASE.0 + Register::QueueNotify.offset() as u64);
        let ioeventfds = self.wiring.ioeventfds.lock().unwrap();
        let mut ioeventfds = ioeventfds.iter();
        let is_it =
            |(at, queue, _): &&(GuestAddress, u32, EventFd)| (*at, *queue) == (register, index);
        ioeventfds.find(is_it).unwrap().2.try_clone().unwrap()
    }

    /// The descriptor behind the interrupt of queue `index`; the last is for
    /// configuration changes.
    pub fn call(&self, index: usize) -> EventFd {
        let irqfds = self.wiring.irqfds.lock().unwrap();
        irqfds[index].1.try_clone().unwrap()
    }

    pub fn config_call(&self) -> EventFd {
        let irqfds = self.wiring.irqfds.lock().unwrap();
        irqfds.last().unwrap().1.try_clone().unwrap()
    }
}

/// Waits until `fd` is readable; `false` when patience runs out.
pub fn wait(fd: &impl std::os::fd::AsRawFd) -> bool {
    is_readable_within(fd, PATIENCE)
}

pub fn is_readable_within(fd: &impl std::os::fd::AsRawFd, time: Duration) -> bool {
    let epoll = Epoll::new().unwrap();
    let event = EpollEvent::new(EventSet::IN, 0);
    epoll
        .ctl(ControlOperation::Add, fd.as_raw_fd(), event)
        .unwrap();
    let millis = time.as_millis() as i32;
    epoll.wait(millis, &mut [EpollEvent::default()]).unwrap() == 1
}

/// One buffer of a request.
#[derive(Clone, Copy)]
pub struct Buffer {
    pub address: u64,
    pub len: u32,
    /// Whether the device writes it.
    pub writable: bool,
}

/// A split queue (virtio 1.3, section 2.7) that the driver side works on. Its
/// three parts are in one page each.
pub struct Ring {
    pub index: u32,
    pub base: u64,
    added: u16,
}

impl Ring {
    pub const SIZE: u16 = 16;
    const PAGE: u64 = 4096;

    pub fn new(index: u32, base: u64) -> Self {
        Self {
            index,
            base,
            added: 0,
        }
    }

    pub fn available(&self) -> u64 {
        self.base + Self::PAGE
    }

    pub fn used(&self) -> u64 {
        self.base + 2 * Self::PAGE
    }

    fn clear(&mut self, memory: &GuestMemory) {
        self.added = 0;
        let zeros = [0; 3 * Self::PAGE as usize];
        memory.write_slice(&zeros, GuestAddress(self.base)).unwrap();
    }

    /// Puts a chain in the table, always from descriptor 0.
    pub fn add(&mut self, memory: &GuestMemory, buffers: &[Buffer]) {
        let write = |value: &[u8], at: u64| memory.write_slice(value, GuestAddress(at)).unwrap();
        for (index, buffer) in (0u16..).zip(buffers) {
            let at = self.base + 16 * u64::from(index);
            let more = usize::from(index) + 1 < buffers.len();
            let flags = u16::from(more) | u16::from(buffer.writable) << 1;
            write(&buffer.address.to_le_bytes(), at);
            write(&buffer.len.to_le_bytes(), at + 8);
            write(&flags.to_le_bytes(), at + 12);
            write(&(index + 1).to_le_bytes(), at + 14);
        }
        let slot = u64::from(self.added % Self::SIZE);
        write(&0u16.to_le_bytes(), self.available() + 4 + 2 * slot);
        self.added = self.added.wrapping_add(1);
        write(&self.added.to_le_bytes(), self.available() + 2);
    }

    /// Plays the device: `used` chains in all have been used.
    pub fn set_used(&self, memory: &GuestMemory, used: u16) {
        let at = GuestAddress(self.used() + 2);
        memory.write_obj(used.to_le(), at).unwrap();
    }

    /// Whether the device has not used all that was added.
    pub fn is_behind(&self, memory: &GuestMemory) -> bool {
        let used: u16 = memory.read_obj(GuestAddress(self.used() + 2)).unwrap();
        u16::from_le(used) != self.added
    }
}
