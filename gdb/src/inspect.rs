//! The interface of the `monitor` commands to a machine, beyond the needs of
//! debugging itself.

use std::ops::Range;
use std::path::Path;

use crate::address::{PhysAddr, VcpuId};
use crate::error::{Result, TargetError};

/// A piece of the guest-physical address space in which something answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub start: PhysAddr,
    /// In bytes; not 0.
    pub len: u64,
    /// What answers: `RAM`, or a device's name.
    pub what: String,
    pub is_ram: bool,
}

/// A virtqueue as the driver has configured it (virtio 1.3, sections 2.7 and 2.8).
/// Nothing about it is to be trusted. Of a packed one, the parts are the descriptor
/// ring and the event suppression of driver and device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Virtqueue {
    pub packed: bool,
    /// In entries.
    pub size: u16,
    pub descriptors: PhysAddr,
    pub available: PhysAddr,
    pub used: PhysAddr,
}

/// One queue of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    pub max_size: u16,
    /// `None` until the driver has made it ready.
    pub ready: Option<Virtqueue>,
    /// Whether the device works on it.
    pub running: bool,
    /// How often the device has reported an error on it since the driver started it.
    pub errors: u64,
}

/// A virtio device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub id: String,
    pub device_type: String,
    /// Its register window.
    pub addr: PhysAddr,
    /// Its interrupt's number.
    pub interrupt: u32,
    /// The status register in names.
    pub status: String,
    /// The features that the driver took, in names.
    pub features: Vec<String>,
    /// Whether VIRTIO_F_EVENT_IDX is among them.
    pub event_idx: bool,
    pub queues: Vec<Queue>,
    /// The process that serves it, in words.
    pub backend: Option<String>,
    pub counters: Vec<(&'static str, u64)>,
}

/// An access that stops the guest, once it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// An access to these physical addresses that leaves the guest.
    Mmio { first: u64, last: u64 },
    /// An access to these ports.
    Ports { first: u64, last: u64 },
    /// An access of the guest to a model-specific register.
    Msr { index: u32 },
    /// The driver's notification of a queue, of a device by its number.
    Kick { device: usize, queue: usize },
}

/// One exit from the guest to the VMM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentExit {
    /// The end of KVM's name of the reason.
    pub reason: &'static str,
    /// The port or physical address accessed, if that was it.
    pub addr: Option<u64>,
    /// Where the vCPU was, if the host tells. Behind an instruction that wrote
    /// to a device, at one that read.
    pub rip: Option<u64>,
    /// In nanoseconds, on a clock that all vCPUs have in common.
    pub time: u64,
}

/// The format of a crash dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpFormat {
    /// An ELF core file.
    Elf,
    /// kdump-compressed, by zlib.
    Kdump,
}

/// The debug registers of a vCPU as its guest has written them (SDM volume 3, 19.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DebugRegisters {
    /// DR0 to DR3.
    pub addrs: [u64; 4],
    pub dr6: u64,
    pub dr7: u64,
}

/// The machine as the monitor commands see it. Every vCPU is stopped.
///
/// A VMM returns an error for anything that it does not have.
pub trait Inspect {
    /// The pieces of the guest-physical address space, in any order; they do not
    /// overlap.
    fn windows(&self) -> Result<Vec<Window>> {
        Err(TargetError::Unsupported("the guest-physical map"))
    }

    /// The address in this process at which this byte of RAM is.
    fn host_address(&self, _addr: PhysAddr) -> Option<u64> {
        None
    }

    /// The ports that devices answer at.
    fn ports(&self) -> Result<Vec<Window>> {
        Err(TargetError::Unsupported("a list of ports"))
    }

    /// Reads a model-specific register.
    fn msr(&mut self, _vcpu: VcpuId, _index: u32) -> Result<u64> {
        Err(TargetError::Unsupported("model-specific registers"))
    }

    fn set_msr(&mut self, _vcpu: VcpuId, _index: u32, _value: u64) -> Result<()> {
        Err(TargetError::Unsupported("model-specific registers"))
    }

    /// Reads the debug registers.
    fn debug_registers(&mut self, _vcpu: VcpuId) -> Result<DebugRegisters> {
        Err(TargetError::Unsupported("debug registers"))
    }

    /// Makes a non-maskable interrupt pending; it is taken when the vCPU resumes.
    fn nmi(&mut self, _vcpu: VcpuId) -> Result<()> {
        Err(TargetError::Unsupported("non-maskable interrupts"))
    }

    /// Resets the machine, which stays stopped. The events have a
    /// [`Event::Reset`](crate::target::Event::Reset) when this returns.
    fn reset(&mut self) -> Result<()> {
        Err(TargetError::Unsupported("a reset"))
    }

    /// The virtio devices.
    fn devices(&mut self) -> Result<Vec<Device>> {
        Err(TargetError::Unsupported("a list of devices"))
    }

    /// Pictures of the virtio devices, and what is wrong with them. It takes a moment, and no
    /// device is waited for.
    fn explain(&mut self) -> Result<Vec<diagnosis::Device>> {
        Err(TargetError::Unsupported("pictures of devices"))
    }

    /// Reads 1, 2, 4 or 8 bytes of a device, as the guest would: that can change
    /// the device.
    fn read_mmio(&mut self, addr: PhysAddr, _data: &mut [u8]) -> Result<()> {
        let why = "this VMM cannot read devices".to_owned();
        Err(TargetError::NoDevice { addr, why })
    }

    /// Makes exactly these accesses stop the guest, with
    /// [`StopReason::Trap`](crate::target::StopReason::Trap).
    fn set_traps(&mut self, traps: &[Trap]) -> Result<()> {
        match traps {
            [] => Ok(()),
            _ => Err(TargetError::Unsupported("traps")),
        }
    }

    /// Makes each write of the guest to the MSR GS_BASE stop the vCPU, with
    /// [`StopReason::GsBase`](crate::target::StopReason::GsBase), or no longer.
    fn trap_gs_base(&mut self, wanted: bool) -> Result<()> {
        match wanted {
            false => Ok(()),
            true => Err(TargetError::Unsupported("traps")),
        }
    }

    /// Pauses the virtio devices, or resumes them. A device that does not pause is lost,
    /// as its driver then learns.
    fn pause_devices(&mut self, _pause: bool) -> Result<()> {
        Err(TargetError::Unsupported("devices that stand still"))
    }

    /// Has the process behind a device, which goes by its number, log which pages of
    /// guest memory it writes, from here on, or no longer.
    fn set_dirty_log(&mut self, _device: usize, _wanted: bool) -> Result<()> {
        Err(TargetError::Unsupported("notes of what devices write"))
    }

    /// The pages that it has written since this was asked last: physical addresses, in
    /// runs. `None` when they are not logged.
    fn dirty_pages(&mut self, _device: usize) -> Result<Option<Vec<Range<u64>>>> {
        Err(TargetError::Unsupported("notes of what devices write"))
    }

    /// Writes RAM and registers to a file of the VMM's machine, and tells in words what that
    /// was. `hide` takes out of memory, which was read at an address, what is not the guest's.
    fn dump(
        &mut self,
        _path: &Path,
        _format: DumpFormat,
        _hide: &dyn Fn(PhysAddr, &mut [u8]),
    ) -> Result<String> {
        Err(TargetError::Unsupported("crash dumps"))
    }

    /// How often a vCPU has left the guest, by reason.
    fn exits(&self, _vcpu: VcpuId) -> Result<Vec<(&'static str, u64)>> {
        Err(TargetError::Unsupported("counters of exits"))
    }

    /// The last exits of a vCPU, as many as are kept, the oldest first.
    fn recent_exits(&self, _vcpu: VcpuId) -> Result<Vec<RecentExit>> {
        Err(TargetError::Unsupported("a record of exits"))
    }
}
