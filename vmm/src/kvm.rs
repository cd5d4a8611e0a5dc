//! The virtual machine as KVM knows it: memory slots, interrupt chips, clock,
//! and the event descriptors that join it to backends.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use devices::file_mapping::FileMapping;
use devices::hypervisor::Hypervisor;
use devices::virtio::GuestMemory;
use devices::virtio::page::{PAGE_SIZE, RegisterPage};
use kvm_bindings::{
    KVM_CAP_X86_USER_SPACE_MSR, KVM_CLOCK_HOST_TSC, KVM_CLOCK_REALTIME, KVM_IRQCHIP_IOAPIC,
    KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_MEM_READONLY, KVM_PIT_SPEAKER_DUMMY, KVMIO,
    kvm_clock_data, kvm_enable_cap, kvm_irqchip, kvm_pit_config, kvm_pit_state2,
    kvm_reinject_control, kvm_userspace_memory_region,
};
use kvm_ioctls::{
    Cap, IoEventAddress, Kvm, MsrExitReason, MsrFilterDefaultAction, MsrFilterRange,
    MsrFilterRangeFlags, VcpuFd, VmFd,
};
use vm_memory::{Address, GuestAddress};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_io_nr;

use crate::guest_mapping::GuestMapping;
use crate::layout;
use crate::vcpu::x86_64::instructions::rdtsc;

/// A call into KVM that the host refused.
#[derive(Debug, thiserror::Error)]
#[error("{call} failed")]
pub struct Error {
    pub call: &'static str,
    #[source]
    pub source: io::Error,
}

/// Names the KVM call that failed.
pub fn failed<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error {
        call,
        source: source.into(),
    }
}

/// The guest's clock and the host's at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The paravirtual clock, in nanoseconds since the VM's start.
    pub guest: u64,
    /// The host's time-stamp counter.
    pub tsc: u64,
    /// The host's CLOCK_REALTIME in nanoseconds.
    pub realtime: u64,
}

fn realtime() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

ioctl_io_nr!(KVM_REINJECT_CONTROL, KVMIO, 0x71);

/// One KVM virtual machine with its in-kernel interrupt chips and RAM slots.
pub struct Vm {
    fd: VmFd,
    next_slot: AtomicU32,
    /// KVM_CLOCK_REALTIME, where KVM has it (Linux 5.16).
    clock_flags: u32,
    drops_late_ticks: AtomicBool,
    memory: Arc<GuestMemory>,
    /// Mappings behind memory slots; alive as long as the VM can access them.
    mapping: GuestMapping,
    pages: Mutex<Vec<Arc<RegisterPage>>>,
    files: Mutex<Files>,
}

/// Files in the guest's address space.
#[derive(Default)]
struct Files {
    /// By guest address: the slot and the mapping in it.
    mapped: BTreeMap<u64, (u32, FileMapping)>,
    /// Slots that had a file once.
    free: Vec<u32>,
}

impl Vm {
    /// Creates the VM with interrupt chips and `memory` in its slots.
    pub fn new(kvm: &Kvm, memory: Arc<GuestMemory>) -> Result<Self, Error> {
        let fd = kvm.create_vm().map_err(failed("KVM_CREATE_VM"))?;
        fd.set_identity_map_address(layout::KVM_IDENTITY_MAP)
            .map_err(failed("KVM_SET_IDENTITY_MAP_ADDR"))?;
        fd.set_tss_address(layout::KVM_TSS as usize)
            .map_err(failed("KVM_SET_TSS_ADDR"))?;
        fd.create_irq_chip().map_err(failed("KVM_CREATE_IRQCHIP"))?;
        let mapping = GuestMapping::new(&memory).map_err(failed("mapping RAM for the guest"))?;
        let clock_flags = fd.check_extension_int(Cap::AdjustClock) as u32 & KVM_CLOCK_REALTIME;
        let vm = Self {
            fd,
            next_slot: AtomicU32::new(0),
            clock_flags,
            drops_late_ticks: AtomicBool::new(false),
            memory,
            mapping,
            pages: Mutex::default(),
            files: Mutex::default(),
        };
        vm.add_ram()?;
        Ok(vm)
    }

    /// Adds the PIT, which a machine has and a probe has no use for.
    pub fn add_pit(&self) -> Result<(), Error> {
        // The dummy speaker answers port 0x61, by which guests time the PIT.
        let pit = kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..Default::default()
        };
        self.fd.create_pit2(pit).map_err(failed("KVM_CREATE_PIT2"))
    }

    fn add_ram(&self) -> Result<(), Error> {
        for piece in self.mapping.pieces() {
            // SAFETY: the piece is mapped in all its size, and `self.mapping` keeps it until
            // the VM is gone.
            unsafe { self.add_slot(piece.start(), piece.size(), piece.host_address(), 0) }
                .map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;
        }
        Ok(())
    }

    /// # Safety
    /// `host` must map `size` bytes for as long as the VM exists.
    unsafe fn add_slot(
        &self,
        addr: GuestAddress,
        size: u64,
        host: *mut u8,
        flags: u32,
    ) -> io::Result<()> {
        let slot = self.next_slot.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the mapping alive; the slot number is fresh.
        unsafe { self.set_slot(slot, addr, size, host, flags) }
    }

    /// Fills a slot, or empties it with a size of 0.
    ///
    /// # Safety
    /// `host` must map `size` bytes until the slot is filled again or the VM is
    /// gone.
    unsafe fn set_slot(
        &self,
        slot: u32,
        addr: GuestAddress,
        size: u64,
        host: *mut u8,
        flags: u32,
    ) -> io::Result<()> {
        let region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: addr.raw_value(),
            memory_size: size,
            userspace_addr: host as u64,
        };
        // SAFETY: the caller keeps the mapping alive.
        unsafe { self.fd.set_user_memory_region(region) }.map_err(io::Error::from)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces files in the guest's address space that have been cut short by zeros:
    /// KVM_RUN fails with EFAULT when a vCPU accesses the missing part. Returns whether
    /// there were any.
    pub fn replace_cut_files(&self) -> bool {
        let files = self.files();
        let replaced = files.mapped.iter().filter(|(at, (_, mapping))| {
            let replaced = mapping.replace_if_cut().inspect_err(|error| {
                tracing::error!(%error, "a file that is mapped at {at:#x} cannot be looked at");
            });
            replaced.unwrap_or(false)
        });
        replaced.count() != 0
    }

    /// Guest RAM.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// RAM as the guest accesses it.
    pub fn mapping(&self) -> &GuestMapping {
        &self.mapping
    }

    pub fn create_vcpu(&self, index: u8) -> Result<VcpuFd, Error> {
        self.fd
            .create_vcpu(index.into())
            .map_err(failed("KVM_CREATE_VCPU"))
    }

    /// The clocks now.
    pub fn now(&self) -> Result<Moment, Error> {
        const HOSTS: u32 = KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;
        let data = self.fd.get_clock().map_err(failed("KVM_GET_CLOCK"))?;
        // Linux before 5.16, or one that does not take the time from the TSC itself, tells
        // the guest's clock alone.
        let (tsc, realtime) = if data.flags & HOSTS == HOSTS {
            (data.host_tsc, data.realtime)
        } else {
            (rdtsc(), realtime())
        };
        Ok(Moment {
            guest: data.clock,
            tsc,
            realtime,
        })
    }

    /// Sets the guest's clock so that it was `guest` at `realtime`, which is now: KVM makes
    /// up for the time that the call takes.
    pub fn set_clock(&self, guest: u64, realtime: u64) -> Result<(), Error> {
        let clock = kvm_clock_data {
            clock: guest,
            flags: self.clock_flags,
            realtime,
            ..Default::default()
        };
        self.fd.set_clock(&clock).map_err(failed("KVM_SET_CLOCK"))
    }

    /// KVM keeps ticks of the PIT that the guest has not taken yet, and raises them later, one
    /// behind the other: after a stop, all that were due meanwhile. From now on it drops
    /// them. The call takes milliseconds and is made once.
    pub fn drop_late_ticks(&self) -> Result<(), Error> {
        if self.drops_late_ticks.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let control = kvm_reinject_control::default();
        // SAFETY: KVM reads the structure.
        match unsafe { ioctl_with_ref(&self.fd, KVM_REINJECT_CONTROL(), &control) } {
            0 => Ok(()),
            _ => Err(failed("KVM_REINJECT_CONTROL")(io::Error::last_os_error())),
        }
    }

    /// Makes guest accesses to exactly these model-specific registers exit
    /// (KVM_X86_SET_MSR_FILTER). No vCPU may run meanwhile.
    pub fn trap_msrs(&self, msrs: &[u32]) -> io::Result<()> {
        let has = |cap| self.fd.check_extension(cap);
        if !has(Cap::X86UserSpaceMsr) || !has(Cap::X86MsrFilter) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut exits = kvm_enable_cap {
            cap: KVM_CAP_X86_USER_SPACE_MSR,
            ..Default::default()
        };
        exits.args[0] = MsrExitReason::Filter.bits().into();
        self.fd.enable_cap(&exits)?;
        let ranges = msrs.iter().map(|msr| MsrFilterRange {
            flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
            base: *msr,
            msr_count: 1,
            // A bit that is clear denies, which is what exits. KVM reads whole longs.
            bitmap: &[0; size_of::<u64>()],
        });
        let ranges: Vec<_> = ranges.collect();
        let filtered = self
            .fd
            .set_msr_filter(MsrFilterDefaultAction::ALLOW, &ranges);
        filtered.map_err(io::Error::from)
    }

    /// State of the chips that all vCPUs share.
    pub fn chips(&self) -> Result<Chips, Error> {
        let chip = |chip_id| {
            let mut chip = kvm_irqchip {
                chip_id,
                ..Default::default()
            };
            self.fd
                .get_irqchip(&mut chip)
                .map_err(failed("KVM_GET_IRQCHIP"))?;
            Ok(chip)
        };
        Ok(Chips {
            irqchips: [
                chip(KVM_IRQCHIP_PIC_MASTER)?,
                chip(KVM_IRQCHIP_PIC_SLAVE)?,
                chip(KVM_IRQCHIP_IOAPIC)?,
            ],
            pit: self.fd.get_pit2().map_err(failed("KVM_GET_PIT2"))?,
        })
    }

    /// Puts the chips back as [`Vm::chips`] found them.
    pub fn set_chips(&self, chips: &Chips) -> Result<(), Error> {
        for chip in &chips.irqchips {
            self.fd
                .set_irqchip(chip)
                .map_err(failed("KVM_SET_IRQCHIP"))?;
        }
        self.fd.set_pit2(&chips.pit).map_err(failed("KVM_SET_PIT2"))
    }
}

/// Saved state of the interrupt chips and the timer.
pub struct Chips {
    irqchips: [kvm_irqchip; 3],
    pit: kvm_pit_state2,
}

impl Hypervisor for Vm {
    fn add_ioeventfd(&self, addr: GuestAddress, value: u32, fd: &EventFd) -> io::Result<()> {
        let addr = IoEventAddress::Mmio(addr.raw_value());
        self.fd
            .register_ioevent(fd, &addr, value)
            .map_err(io::Error::from)
    }

    fn remove_ioeventfd(&self, addr: GuestAddress, value: u32, fd: &EventFd) -> io::Result<()> {
        let addr = IoEventAddress::Mmio(addr.raw_value());
        self.fd
            .unregister_ioevent(fd, &addr, value)
            .map_err(io::Error::from)
    }

    fn add_irqfd(&self, gsi: u32, fd: &EventFd) -> io::Result<()> {
        self.fd.register_irqfd(fd, gsi).map_err(io::Error::from)
    }

    fn map_read_only(&self, addr: GuestAddress, page: &Arc<RegisterPage>) -> io::Result<()> {
        if !self.fd.check_extension(Cap::ReadonlyMem) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // SAFETY: the page maps PAGE_SIZE bytes, and the `pages` entry keeps it
        // alive as long as the VM.
        unsafe {
            self.add_slot(
                addr,
                PAGE_SIZE as u64,
                page.host_address(),
                KVM_MEM_READONLY,
            )
        }?;
        self.pages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(page.clone());
        Ok(())
    }

    fn map(&self, addr: GuestAddress, mapping: FileMapping) -> io::Result<()> {
        let flags = if mapping.is_writable() {
            0
        } else if self.fd.check_extension(Cap::ReadonlyMem) {
            KVM_MEM_READONLY
        } else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut files = self.files();
        let fresh = || self.next_slot.fetch_add(1, Ordering::Relaxed);
        let slot = files.free.pop().unwrap_or_else(fresh);
        let (host, len) = (mapping.host_address(), mapping.len() as u64);
        // SAFETY: `mapping` maps `len` bytes, and the entry below keeps it until
        // `unmap` has emptied the slot.
        if let Err(error) = unsafe { self.set_slot(slot, addr, len, host, flags) } {
            files.free.push(slot);
            return Err(error);
        }
        files.mapped.insert(addr.raw_value(), (slot, mapping));
        Ok(())
    }

    fn replace_if_cut(&self, addr: GuestAddress) {
        let addr = addr.raw_value();
        let files = self.files();
        let Some((at, (_, mapping))) = files.mapped.range(..=addr).next_back() else {
            return;
        };
        if addr - at < mapping.len() as u64
            && let Err(error) = mapping.replace_if_cut()
        {
            tracing::error!(%error, "a file that is mapped at {at:#x} cannot be looked at");
        }
    }

    fn unmap(&self, addr: GuestAddress) -> io::Result<()> {
        let mut files = self.files();
        let Some((slot, mapping)) = files.mapped.get(&addr.raw_value()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let (slot, host) = (*slot, mapping.host_address());
        // SAFETY: an empty slot maps nothing.
        unsafe { self.set_slot(slot, addr, 0, host, 0) }?;
        files.mapped.remove(&addr.raw_value());
        files.free.push(slot);
        Ok(())
    }
}
