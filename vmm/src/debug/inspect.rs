//! The machine's part of gdb's monitor commands.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use devices::vhost_user::{Backend, Handle, QueueHealth};
use devices::virtio::Format;
use devices::virtio::counters::{QueueInfo, TransportInfo};
use devices::virtio::features::EVENT_IDX;
use devices::virtio::spec::Register;
use gdb::inspect::{
    DebugRegisters, Device, DumpFormat, Inspect, Queue, RecentExit, Trap, Virtqueue, Window,
};
use gdb::target::{PhysAddr, Result, TargetError, VcpuId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::DebugTarget;
use crate::dump::Snapshot;
use crate::explain::explain;
use crate::layout;
use crate::power::PowerRequest;
use crate::transports::SharedTransport;
use crate::vcpu::exit::Reason;
use crate::vcpu::traps::{MSR_GS_BASE, Range, Space};
use crate::windows;

/// How long a reset may take. The main thread may wait for a backend.
const RESET_DEADLINE: Duration = Duration::from_secs(15);

impl Inspect for DebugTarget {
    fn windows(&self) -> Result<Vec<Window>> {
        Ok(windows::memory(&self.memory.0, &self.machine.buses))
    }

    fn host_address(&self, addr: PhysAddr) -> Option<u64> {
        windows::host_address(&self.memory.0, addr)
    }

    fn ports(&self) -> Result<Vec<Window>> {
        Ok(windows::ports(&self.machine.buses))
    }

    fn msr(&mut self, vcpu: VcpuId, index: u32) -> Result<u64> {
        self.on_vcpu(vcpu, move |vcpu| vcpu.msr(index))
    }

    fn set_msr(&mut self, vcpu: VcpuId, index: u32, value: u64) -> Result<()> {
        self.on_vcpu(vcpu, move |vcpu| vcpu.set_msr(index, value))
    }

    fn debug_registers(&mut self, vcpu: VcpuId) -> Result<DebugRegisters> {
        self.on_vcpu(vcpu, |vcpu| vcpu.debug_registers())
    }

    fn nmi(&mut self, vcpu: VcpuId) -> Result<()> {
        self.on_vcpu(vcpu, |vcpu| vcpu.nmi())
    }

    /// The main thread does it, as it does the guest's own resets.
    fn reset(&mut self) -> Result<()> {
        // A report that came too late for an earlier request does not answer this one.
        while self.resets.take().is_some() {}
        self.machine.power.request(PowerRequest::UserReset);
        let deadline = Instant::now() + RESET_DEADLINE;
        let late = || TargetError::Host {
            what: "the main thread has not reset the guest yet",
            source: io::ErrorKind::TimedOut.into(),
        };
        let resets = self.resets.as_fd();
        let mut fds = [PollFd::from_borrowed_fd(resets, PollFlags::IN)];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|_| late())?;
            match poll(&mut fds, Some(&left)) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(1) => break,
                _ => return Err(late()),
            }
        }
        self.resets.take();
        Ok(())
    }

    fn devices(&mut self) -> Result<Vec<Device>> {
        let transports = (0..).zip(&self.machine.transports);
        let device = |(slot, shared): (u64, &SharedTransport)| {
            let mut transport = shared.lock();
            device(slot, transport.info(), shared.backend())
        };
        Ok(transports.map(device).collect())
    }

    fn explain(&mut self) -> Result<Vec<diagnosis::Device>> {
        Ok(explain(&self.machine.transports, &self.memory.0))
    }

    fn read_mmio(&mut self, addr: PhysAddr, data: &mut [u8]) -> Result<()> {
        self.machine.buses.mmio.read(addr.0, data).map_err(|error| {
            let why = error.to_string();
            TargetError::NoDevice { addr, why }
        })
    }

    fn set_traps(&mut self, traps: &[Trap]) -> Result<()> {
        let mut ranges = Vec::new();
        for (number, transport) in self.machine.transports.iter().enumerate() {
            let mut transport = transport.lock();
            let base = window_of(number as u64);
            let info = transport.info();
            for queue in 0..info.queues.len() {
                let device = number;
                let trap = traps.contains(&Trap::Kick { device, queue });
                let value = queue as u16;
                transport
                    .trap_kicks(value, trap)
                    .map_err(|source| TargetError::Host {
                        what: "kicks cannot be trapped, or no longer be",
                        source,
                    })?;
                if trap {
                    let first = base + Register::QueueNotify.offset() as u64;
                    let what = format!("kick of {} queue {queue}", info.id);
                    ranges.push(Range {
                        space: Space::Physical,
                        first,
                        last: first + 3,
                        write: Some((value.into(), what)),
                    });
                }
            }
        }
        ranges.extend(traps.iter().filter_map(accesses));
        let msrs = traps.iter().filter_map(|trap| match trap {
            Trap::Msr { index } => Some(*index),
            _ => None,
        });
        self.filter_msrs(&msrs.collect::<Vec<_>>(), self.machine.traps.gs_base())?;
        self.machine.traps.set(ranges);
        Ok(())
    }

    fn trap_gs_base(&mut self, wanted: bool) -> Result<()> {
        self.filter_msrs(&self.machine.traps.msrs(), wanted)?;
        self.machine.traps.set_gs_base(wanted);
        Ok(())
    }

    fn pause_devices(&mut self, pause: bool) -> Result<()> {
        for shared in &self.machine.transports {
            let mut transport = shared.lock();
            match pause {
                true => shared.backend().pause(&mut transport),
                false => shared.backend().unpause(&mut transport),
            }
        }
        Ok(())
    }

    fn set_dirty_log(&mut self, device: usize, wanted: bool) -> Result<()> {
        let shared = self.transport(device)?;
        let what = "what the device writes cannot be noted";
        let failed = |source| TargetError::Device { what, source };
        let done = shared.backend().set_dirty_log(&mut shared.lock(), wanted);
        done.map_err(failed)
    }

    fn dirty_pages(&mut self, device: usize) -> Result<Option<Vec<std::ops::Range<u64>>>> {
        let shared = self.transport(device)?;
        let _locked = shared.lock();
        Ok(shared.backend().dirty_pages())
    }

    fn dump(
        &mut self,
        path: &Path,
        format: DumpFormat,
        hide: &dyn Fn(PhysAddr, &mut [u8]),
    ) -> Result<String> {
        let hide = |at, bytes: &mut [u8]| hide(PhysAddr(at), bytes);
        let snapshot = Snapshot::new(&self.memory.0, self.vcpus.handles());
        let saved = snapshot.and_then(|snapshot| snapshot.hiding(&hide).save(path, format));
        let saved = saved.map_err(|error| TargetError::Host {
            what: "the guest is not dumped",
            source: io::Error::other(error),
        })?;
        Ok(saved.to_string())
    }

    fn exits(&self, vcpu: VcpuId) -> Result<Vec<(&'static str, u64)>> {
        let counts = self.handle(vcpu)?.counters().exits();
        Ok(Reason::NAMES.into_iter().zip(counts).collect())
    }

    fn recent_exits(&self, vcpu: VcpuId) -> Result<Vec<RecentExit>> {
        Ok(self.handle(vcpu)?.counters().recent().list())
    }
}

impl DebugTarget {
    fn transport(&self, device: usize) -> Result<&SharedTransport> {
        let transport = self.machine.transports.get(device);
        transport.ok_or(TargetError::Unsupported("such a device"))
    }

    /// Makes accesses to these registers exit, and those to GS_BASE if that is wanted.
    fn filter_msrs(&self, msrs: &[u32], gs_base: bool) -> Result<()> {
        let traps = &self.machine.traps;
        if msrs == traps.msrs() && gs_base == traps.gs_base() {
            return Ok(());
        }
        let gs_base = Some(MSR_GS_BASE).filter(|index| gs_base && !msrs.contains(index));
        let msrs: Vec<_> = msrs.iter().copied().chain(gs_base).collect();
        let what = "accesses to MSRs cannot be trapped";
        let failed = |source| TargetError::Host { what, source };
        self.machine.vm.trap_msrs(&msrs).map_err(failed)
    }
}

fn accesses(trap: &Trap) -> Option<Range> {
    let (space, first, last) = match *trap {
        Trap::Mmio { first, last } => (Space::Physical, first, last),
        Trap::Ports { first, last } => (Space::Ports, first, last),
        Trap::Msr { index } => (Space::Msrs, index.into(), index.into()),
        Trap::Kick { .. } => return None,
    };
    Some(Range {
        space,
        first,
        last,
        write: None,
    })
}

/// Where the registers of device `slot` are.
fn window_of(slot: u64) -> u64 {
    layout::VIRTIO_MMIO + slot * layout::VIRTIO_MMIO_STRIDE
}

fn device(slot: u64, info: TransportInfo, handle: &Handle) -> Device {
    let c = info.counters;
    let queues = (0..).zip(&info.queues);
    let queues = queues.map(|(index, info)| queue(info, handle.queue_health(index)));
    Device {
        id: info.id,
        device_type: info.device_type.to_string(),
        addr: PhysAddr(window_of(slot)),
        interrupt: layout::VIRTIO_GSIS[slot as usize],
        status: info.status,
        features: info.features_chosen,
        event_idx: info.chosen & EVENT_IDX != 0,
        queues: queues.collect(),
        backend: Some(backend(handle.backend_status().get())),
        counters: vec![
            ("read exits", c.read_exits),
            ("write exits", c.write_exits),
            ("kick exits", c.notify_exits),
            ("interrupts acknowledged", c.interrupts_acknowledged),
            ("configuration interrupts", c.config_interrupts),
            ("resets", c.resets),
        ],
    }
}

fn queue(info: &QueueInfo, health: QueueHealth) -> Queue {
    let ready = info.ready.map(|queue| Virtqueue {
        packed: queue.format == Format::Packed,
        size: queue.size,
        descriptors: PhysAddr(queue.descriptors.0),
        available: PhysAddr(queue.available.0),
        used: PhysAddr(queue.used.0),
    });
    Queue {
        max_size: info.max_size,
        ready,
        running: info.running,
        errors: health.errors,
    }
}

fn backend(backend: Backend) -> String {
    let state = if backend.connected {
        "connected"
    } else {
        "away"
    };
    let problem = backend.problem.map(|problem| format!(": {problem}"));
    format!(
        "{}, {state}, {} connections so far{}",
        backend.address,
        backend.connections,
        problem.unwrap_or_default()
    )
}
