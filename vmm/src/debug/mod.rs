//! The machine as the debugger sees it: the gdb crate's target over vCPU handles.

mod handles;
mod inspect;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::thread;

use devices::virtio::GuestMemory;
use gdb::arch::Registers;
use gdb::symbol_file::SymbolFile;
use gdb::target::{
    Activity, Attachment, Event, HostTraps, HwSlots, PhysAddr, Result, Resume, SharedMemory,
    Target, TargetError, VcpuId,
};
use vm_memory::{Bytes, GuestAddress};

use crate::events::{Inbox, Notifier};
use crate::host::{self, Debugging};
use crate::kvm;
use crate::vcpu::debug_events::control::{HostDebug, Step};
use crate::vcpu::{DebugControl, Handle, Vcpu};
use crate::vcpus::{self, Vcpus};

pub use handles::MachineHandles;

/// Owned by the gdb thread.
pub struct DebugTarget {
    vcpus: Arc<Vcpus>,
    memory: Ram,
    events: Inbox<Event>,
    slots: HwSlots,
    int3: bool,
    /// Probed while the first packets of a gdb are answered: a probe costs tens of
    /// milliseconds, on an emulated host seconds.
    host: Arc<OnceLock<Debugging>>,
    /// Tells the event loop whether a crashed guest is worth keeping.
    attachments: Notifier<Attachment>,
    symbols: Option<Arc<SymbolFile>>,
    /// How often other files had been taken for the boot when they were opened.
    reloads: u64,
    /// Where the event loop says that a reset is done.
    resets: Inbox<()>,
    machine: MachineHandles,
}

impl DebugTarget {
    pub fn new(
        vcpus: Arc<Vcpus>,
        memory: Arc<GuestMemory>,
        events: Inbox<Event>,
        attachments: Notifier<Attachment>,
        symbols: Option<SymbolFile>,
        resets: Inbox<()>,
        machine: MachineHandles,
    ) -> Self {
        let slots = HwSlots::default();
        Self {
            vcpus,
            memory: Ram(memory),
            events,
            slots,
            int3: false,
            host: Arc::default(),
            attachments,
            symbols: symbols.map(Arc::new),
            reloads: machine.boot.reloads(),
            resets,
            machine,
        }
    }

    fn handle(&self, vcpu: VcpuId) -> Result<&Handle> {
        self.vcpus
            .handles()
            .get(vcpu.0)
            .ok_or_else(|| TargetError::Unreachable(vcpu, "there is no such vCPU".into()))
    }

    /// Runs `f` on the vCPU's thread.
    fn on_vcpu<R: Send + 'static>(
        &self,
        vcpu: VcpuId,
        f: impl FnOnce(&mut Vcpu) -> std::result::Result<R, kvm::Error> + Send + 'static,
    ) -> Result<R> {
        self.handle(vcpu)?
            .request(f)
            .map_err(|error| TargetError::Unreachable(vcpu, error.to_string()))?
            .map_err(host_error)
    }

    /// The kernel that boots may be another one now.
    fn reopen_symbols(&mut self) {
        let reloads = self.machine.boot.reloads();
        if std::mem::replace(&mut self.reloads, reloads) == reloads {
            return;
        }
        let new = self
            .symbols
            .as_ref()
            .map(|old| SymbolFile::open(old.path()));
        match new {
            Some(Ok(new)) => self.symbols = Some(Arc::new(new)),
            Some(Err(error)) => tracing::warn!("gdb keeps the symbols it has: {error}"),
            None => {}
        }
    }

    /// Begins to probe what the host traps. gdb needs that with its first
    /// breakpoint, and does not wait long for an answer.
    fn probe_host(&self) {
        if self.host.get().is_none() {
            let host = self.host.clone();
            // Without a thread, the first caller that needs the result runs the probe.
            let _ = thread::Builder::new()
                .name("gdb probe".into())
                .spawn(move || {
                    host.get_or_init(host::debugging);
                });
        }
    }

    fn control(&self, resume: Resume) -> Option<DebugControl> {
        let step = match resume {
            Resume::Continue => None,
            Resume::Step => Some(Step::Begin),
            Resume::FinishStep => Some(Step::Finish),
            Resume::Hold => return None,
        };
        Some(DebugControl {
            slots: self.slots,
            int3: self.int3,
            step,
            host: self.host_debug(step.is_some()),
        })
    }

    /// Resuming the guest, or leaving it, waits for no probe.
    fn host_debug(&self, steps: bool) -> HostDebug {
        let is_used = steps || self.int3 || self.slots.iter().any(Option::is_some);
        let host = match is_used {
            true => Some(self.host.get_or_init(host::debugging)),
            false => self.host.get(),
        };
        host.map_or_else(HostDebug::default, |host| host.events)
    }
}

fn host_error(error: kvm::Error) -> TargetError {
    TargetError::Host {
        what: error.call,
        source: error.source,
    }
}

fn group_error(what: &'static str) -> impl FnOnce(vcpus::Error) -> TargetError {
    move |error| TargetError::Host {
        what,
        source: io::Error::other(error),
    }
}

/// RAM for the debugger.
#[derive(Clone)]
struct Ram(Arc<GuestMemory>);

impl SharedMemory for Ram {
    fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<()> {
        self.0
            .read_slice(buf, GuestAddress(addr.0))
            .map_err(|_| TargetError::NoRam(addr))
    }
}

impl Target for DebugTarget {
    fn vcpu_count(&self) -> usize {
        self.vcpus.handles().len()
    }

    fn pause(&mut self) -> Result<()> {
        self.vcpus
            .group()
            .pause()
            .map_err(group_error("cannot stop the vCPUs"))
    }

    fn resume(&mut self, actions: &[Resume]) -> Result<()> {
        let controls: Vec<_> = actions.iter().map(|action| self.control(*action)).collect();
        self.vcpus
            .group()
            .resume(&controls)
            .map_err(group_error("cannot resume the vCPUs"))
    }

    fn registers(&mut self, vcpu: VcpuId) -> Result<Registers> {
        self.on_vcpu(vcpu, |vcpu| vcpu.registers())
    }

    fn set_registers(&mut self, vcpu: VcpuId, registers: &Registers) -> Result<()> {
        let registers = *registers;
        self.on_vcpu(vcpu, move |vcpu| vcpu.set_registers(&registers))
    }

    fn read_physical(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<()> {
        self.memory.read(addr, buf)
    }

    fn memory(&self) -> Arc<dyn SharedMemory> {
        Arc::new(self.memory.clone())
    }

    fn write_physical(&mut self, addr: PhysAddr, data: &[u8]) -> Result<()> {
        self.memory
            .0
            .write_slice(data, GuestAddress(addr.0))
            .map_err(|_| TargetError::NoRam(addr))
    }

    fn arm(&mut self, slots: &HwSlots, int3: bool) -> Result<()> {
        self.slots = *slots;
        self.int3 = int3;
        Ok(())
    }

    fn watch(&mut self, ranges: &[std::ops::Range<PhysAddr>]) -> Result<()> {
        let ranges: Vec<_> = ranges
            .iter()
            .map(|range| range.start.0..range.end.0)
            .collect();
        self.machine.watched.set(&ranges).map_err(host_error)
    }

    fn inject_int3(&mut self, vcpu: VcpuId) -> Result<()> {
        self.on_vcpu(vcpu, |vcpu| {
            vcpu.debug().owe_int3();
            Ok(())
        })
    }

    fn host_traps(&mut self) -> HostTraps {
        self.host.get_or_init(host::debugging).traps
    }

    fn activity(&mut self, vcpu: VcpuId) -> Result<Activity> {
        self.on_vcpu(vcpu, |vcpu| vcpu.activity())
    }

    fn attachment(&mut self, attachment: Attachment) {
        let debugged = matches!(attachment, Attachment::Attached | Attachment::Tracing);
        self.vcpus.group().set_debugged(debugged);
        if debugged {
            self.probe_host();
        }
        self.attachments.send(attachment);
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    fn symbols(&self) -> Option<Arc<SymbolFile>> {
        self.symbols.clone()
    }

    fn next_event(&mut self) -> Option<Event> {
        let event = self.events.take();
        if event == Some(Event::Reset) {
            self.reopen_symbols();
        }
        event
    }
}
