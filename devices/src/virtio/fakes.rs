//! A device and a hypervisor that record the calls to them.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use super::kick::Kick;
use super::page::RegisterPage;
use super::{Device, DeviceError, DeviceEvent, DeviceType, QueueConfig};
use crate::deadline::Deadline;
use crate::file_mapping::FileMapping;
use crate::hypervisor::Hypervisor;

/// A call of the transport to the device, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Activate(u64),
    Start(u16, QueueConfig),
    Begin,
    Stop(u16),
    WriteConfig(u32, Vec<u8>),
    Reset,
}

/// Shared between a fake device and its test.
#[derive(Debug, Default)]
pub struct Script {
    pub calls: Vec<Call>,
    pub config: Vec<u8>,
    pub events: VecDeque<DeviceEvent>,
    /// The calls that fail next time.
    pub fail_activate: bool,
    pub fail_start: Option<u16>,
    pub fail_write_config: bool,
    pub fail_read_config: bool,
}

pub struct FakeDevice {
    pub script: Arc<Mutex<Script>>,
    pub features: u64,
    pub queue_sizes: Vec<u16>,
}

impl FakeDevice {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }
}

fn failure(fails: bool, what: &str) -> Result<(), DeviceError> {
    if fails { Err(what.into()) } else { Ok(()) }
}

impl Device for FakeDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::BLK
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn activate(&mut self, features: u64, _deadline: &Deadline) -> Result<(), DeviceError> {
        let mut script = self.script();
        script.calls.push(Call::Activate(features));
        failure(script.fail_activate, "cannot activate")
    }

    fn start_queue(
        &mut self,
        index: u16,
        queue: &QueueConfig,
        _kick: &Arc<Kick>,
        _call: &EventFd,
        _deadline: &Deadline,
    ) -> Result<(), DeviceError> {
        let mut script = self.script();
        script.calls.push(Call::Start(index, *queue));
        failure(script.fail_start == Some(index), "cannot start")
    }

    fn begin(&mut self, _deadline: &Deadline) -> Result<(), DeviceError> {
        self.script().calls.push(Call::Begin);
        Ok(())
    }

    fn stop_queues(&mut self, queues: &[u16], _deadline: &Deadline) -> Result<(), DeviceError> {
        let calls = queues.iter().copied().map(Call::Stop);
        self.script().calls.extend(calls);
        Ok(())
    }

    fn read_config(&mut self, _deadline: &Deadline) -> Result<Vec<u8>, DeviceError> {
        let script = self.script();
        failure(script.fail_read_config, "cannot read")?;
        Ok(script.config.clone())
    }

    fn write_config(
        &mut self,
        offset: u32,
        data: &[u8],
        _deadline: &Deadline,
    ) -> Result<(), DeviceError> {
        let mut script = self.script();
        failure(script.fail_write_config, "cannot write")?;
        script.calls.push(Call::WriteConfig(offset, data.to_vec()));
        let offset = offset as usize;
        script.config[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn reset(&mut self, _deadline: &Deadline) {
        self.script().calls.push(Call::Reset);
    }

    fn handle_event(&mut self, _deadline: &Deadline) -> DeviceEvent {
        let mut script = self.script();
        script.events.pop_front().unwrap_or(DeviceEvent::Nothing)
    }
}

/// The calls of the transport to the hypervisor.
#[derive(Default)]
pub struct FakeHypervisor {
    pub ioeventfds: Mutex<Vec<(GuestAddress, u32, EventFd)>>,
    pub irqfds: Mutex<Vec<(u32, EventFd)>>,
    pub mapped: Mutex<Vec<GuestAddress>>,
    /// The error that mapping a page fails with.
    pub map_error: Option<io::ErrorKind>,
    pub refuses_ioeventfds: AtomicBool,
}

impl FakeHypervisor {
    pub fn refuse_ioeventfds(&self, refuse: bool) {
        self.refuses_ioeventfds.store(refuse, Ordering::Relaxed);
    }
}

impl Hypervisor for FakeHypervisor {
    fn add_ioeventfd(&self, addr: GuestAddress, value: u32, fd: &EventFd) -> io::Result<()> {
        if self.refuses_ioeventfds.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
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

    fn map_read_only(&self, addr: GuestAddress, _page: &Arc<RegisterPage>) -> io::Result<()> {
        if let Some(kind) = self.map_error {
            return Err(kind.into());
        }
        self.mapped.lock().unwrap().push(addr);
        Ok(())
    }

    fn map(&self, _addr: GuestAddress, _mapping: FileMapping) -> io::Result<()> {
        unreachable!("transports map no files")
    }

    fn replace_if_cut(&self, _addr: GuestAddress) {
        unreachable!("transports map no files")
    }

    fn unmap(&self, _addr: GuestAddress) -> io::Result<()> {
        unreachable!("transports map no files")
    }
}
