//! A driver's write to a register of virtio-mmio: QueueSel, after which the registers of the
//! queue are published.

use std::io;
use std::sync::Arc;

use devices::bus::BusDevice;
use devices::deadline::Deadline;
use devices::file_mapping::FileMapping;
use devices::hypervisor::Hypervisor;
use devices::virtio::page::RegisterPage;
use devices::virtio::{
    Device, DeviceError, DeviceType, GuestMemory, Kick, MmioTransport, QueueConfig,
};
use vm_memory_0_18::GuestAddress;
use vmm_sys_util_0_15::eventfd::EventFd;

/// A disk that does nothing.
struct Nothing;

impl Device for Nothing {
    fn device_type(&self) -> DeviceType {
        DeviceType::BLK
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[256, 256]
    }

    fn features(&self) -> u64 {
        // VIRTIO_F_VERSION_1.
        1 << 32
    }

    fn activate(&mut self, _features: u64, _deadline: &Deadline) -> Result<(), DeviceError> {
        Ok(())
    }

    fn start_queue(
        &mut self,
        _index: u16,
        _queue: &QueueConfig,
        _kick: &Arc<Kick>,
        _call: &EventFd,
        _deadline: &Deadline,
    ) -> Result<(), DeviceError> {
        Ok(())
    }

    fn stop_queues(&mut self, _queues: &[u16], _deadline: &Deadline) -> Result<(), DeviceError> {
        Ok(())
    }

    fn read_config(&mut self, _deadline: &Deadline) -> Result<Vec<u8>, DeviceError> {
        Ok(vec![0; 60])
    }

    fn write_config(
        &mut self,
        _offset: u32,
        _data: &[u8],
        _deadline: &Deadline,
    ) -> Result<(), DeviceError> {
        Ok(())
    }

    fn reset(&mut self, _deadline: &Deadline) {}
}

impl Hypervisor for Nothing {
    fn add_ioeventfd(&self, _addr: GuestAddress, _value: u32, _fd: &EventFd) -> io::Result<()> {
        Ok(())
    }

    fn remove_ioeventfd(&self, _addr: GuestAddress, _value: u32, _fd: &EventFd) -> io::Result<()> {
        Ok(())
    }

    fn add_irqfd(&self, _gsi: u32, _fd: &EventFd) -> io::Result<()> {
        Ok(())
    }

    fn map_read_only(&self, _addr: GuestAddress, _page: &Arc<RegisterPage>) -> io::Result<()> {
        Ok(())
    }

    fn map(&self, _addr: GuestAddress, _mapping: FileMapping) -> io::Result<()> {
        Ok(())
    }

    fn replace_if_cut(&self, _addr: GuestAddress) {}

    fn unmap(&self, _addr: GuestAddress) -> io::Result<()> {
        Ok(())
    }
}

const QUEUE_SEL: u64 = 0x30;

pub fn prepare() -> Box<dyn FnMut()> {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("1 MiB of RAM");
    let transport = MmioTransport::new(
        "nothing".into(),
        Box::new(Nothing),
        Arc::new(memory),
        GuestAddress(0xd000_0000),
        5,
        Arc::new(Nothing),
    );
    let mut transport = transport.expect("nothing that can fail");
    let mut queue = 0;
    Box::new(move || {
        queue ^= 1;
        let written = transport.write(QUEUE_SEL, &u32::to_le_bytes(queue));
        written.expect("a register that can be written to");
    })
}
