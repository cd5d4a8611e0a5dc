//! Registers, memory and threads, as gdbstub asks for them.

use std::convert::Infallible;

use gdbstub::common::Tid;
use gdbstub::target::ext::base::multithread::{MultiThreadBase, MultiThreadResumeOps};
use gdbstub::target::ext::base::single_register_access::{
    SingleRegisterAccess, SingleRegisterAccessOps,
};
use gdbstub::target::ext::target_description_xml_override::TargetDescriptionXmlOverride;
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{TargetError, TargetResult};

use super::{Session, tid};
use crate::arch::{Register, Registers, Served, rflags, target_xml};
use crate::server::PACKET_SIZE;
use crate::target::{Activity, PhysAddr, VcpuId, VirtAddr};

/// Error numbers as gdb's `E` answers carry them (gdb manual, "Errno Values").
pub(super) mod errno {
    pub const ENOENT: u8 = 2;
    pub const EFAULT: u8 = 14;
    pub const EBUSY: u8 = 16;
    pub const EINVAL: u8 = 22;
}

/// Most bytes of one memory read: gdb asks for no more, since their hex form must
/// fit a packet. gdbstub would cut a longer one into pieces and, after a piece
/// that came back short, put the next in the wrong place.
const MAX_READ: usize = PACKET_SIZE / 2;

impl Session<'_> {
    /// The stopped vCPU that gdb means.
    fn stopped(&self, tid: Tid) -> TargetResult<VcpuId, Self> {
        if self.is_running() {
            return Err(TargetError::Errno(errno::EBUSY));
        }
        let vcpu = self.vcpu(tid).ok_or(TargetError::Errno(errno::EINVAL))?;
        self.asked_for.set(Some(vcpu));
        Ok(vcpu)
    }

    /// The same, to be changed: what a trace frame holds is the past.
    fn writable(&self, tid: Tid) -> TargetResult<VcpuId, Self> {
        match self.trace.frame() {
            Some(_) => Err(TargetError::Errno(errno::EBUSY)),
            None => self.stopped(tid),
        }
    }

    fn get_registers(&self, tid: Tid) -> TargetResult<Registers, Self> {
        let vcpu = self.stopped(tid)?;
        self.machine.registers(vcpu).map_err(refused)
    }

    /// What gdb sees: the guest's, or those of the trace frame that it has selected.
    fn served_registers(&self, tid: Tid) -> TargetResult<Served, Self> {
        match self.trace.frame() {
            Some(frame) => {
                let (registers, known) = frame.registers();
                let known = Some(known);
                Ok(Served { registers, known })
            }
            None => self.get_registers(tid).map(Served::from),
        }
    }

    fn put_registers(&mut self, tid: Tid, registers: &Registers) -> TargetResult<(), Self> {
        let vcpu = self.writable(tid)?;
        self.machine
            .set_registers(vcpu, registers)
            .map_err(refused)?;
        // Whatever it died of, the user has given it another state.
        self.mend(vcpu);
        Ok(())
    }
}

/// gdb 13 shows an error number at best; the log says more.
fn refused<E>(error: impl std::error::Error) -> TargetError<E> {
    tracing::debug!("gdb: {}", super::chain(&error));
    TargetError::Errno(errno::EINVAL)
}

impl MultiThreadBase for Session<'_> {
    fn read_registers(&mut self, registers: &mut Served, tid: Tid) -> TargetResult<(), Self> {
        *registers = self.served_registers(tid)?;
        Ok(())
    }

    fn write_registers(&mut self, registers: &Served, tid: Tid) -> TargetResult<(), Self> {
        let registers = &registers.registers;
        // What gdb does not know of (limits, bases) stays as it is.
        let mut merged = self.get_registers(tid)?;
        for register in Register::all(registers.vectors.set) {
            let bytes = register.bytes(registers);
            register
                .set_bytes(&mut merged, &bytes[..register.size()])
                .map_err(refused)?;
        }
        self.put_registers(tid, &merged)
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let vcpu = self.stopped(tid)?;
        if data.len() > MAX_READ {
            return Err(TargetError::Errno(errno::EINVAL));
        }
        let count = match self.trace.frame() {
            Some(frame) => frame.read(VirtAddr(start), data),
            None if self.physical => self.read_physical_hidden(PhysAddr(start), data),
            None => self.read_virtual(vcpu, VirtAddr(start), data),
        };
        match count {
            0 if !data.is_empty() => Err(TargetError::Errno(errno::EFAULT)),
            count => Ok(count),
        }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let vcpu = self.writable(tid)?;
        let written = match self.physical {
            true => self.write_physical_around(PhysAddr(start), data),
            false => self.write_virtual(vcpu, VirtAddr(start), data),
        };
        written.map_err(|error| {
            tracing::debug!("gdb: {}", super::chain(&error));
            TargetError::Errno(errno::EFAULT)
        })
    }

    fn list_active_threads(&mut self, active: &mut dyn FnMut(Tid)) -> Result<(), Infallible> {
        // The first one listed is the one that `?` reports.
        active(tid(self.focus));
        for vcpu in self.machine.vcpus().filter(|&vcpu| vcpu != self.focus) {
            active(tid(vcpu));
        }
        Ok(())
    }

    fn is_thread_alive(&mut self, tid: Tid) -> Result<bool, Infallible> {
        Ok(self.vcpu(tid).is_some())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<Tid> for Session<'_> {
    fn read_register(
        &mut self,
        tid: Tid,
        register: Register,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        let Served { registers, known } = self.served_registers(tid)?;
        let known = known.is_none_or(|known| known.contains(&register));
        if !known || !register.is_in(registers.vectors.set) {
            return Err(TargetError::NonFatal);
        }
        let value = register.bytes(&registers);
        let size = register.size();
        buf.get_mut(..size)
            .ok_or(TargetError::NonFatal)?
            .copy_from_slice(&value[..size]);
        Ok(size)
    }

    fn write_register(
        &mut self,
        tid: Tid,
        register: Register,
        value: &[u8],
    ) -> TargetResult<(), Self> {
        let mut registers = self.get_registers(tid)?;
        if !register.is_in(registers.vectors.set) {
            return Err(TargetError::NonFatal);
        }
        register.set_bytes(&mut registers, value).map_err(refused)?;
        self.put_registers(tid, &registers)
    }
}

impl ThreadExtraInfo for Session<'_> {
    fn thread_extra_info(&self, tid: Tid, buf: &mut [u8]) -> Result<usize, Infallible> {
        let text = match self.vcpu(tid) {
            Some(vcpu) => self.describe(vcpu),
            None => "no such vCPU".to_owned(),
        };
        let count = text.len().min(buf.len());
        buf[..count].copy_from_slice(&text.as_bytes()[..count]);
        Ok(count)
    }
}

impl Session<'_> {
    /// What `info threads` shows of a vCPU.
    pub(crate) fn describe(&self, vcpu: VcpuId) -> String {
        let activity = match self.machine.activity(vcpu) {
            _ if self.crash(vcpu).is_some() => "crashed",
            Ok(Activity::Running) => "running",
            Ok(Activity::Halted) => "halted",
            Ok(Activity::NotStarted) => "not started",
            Err(_) => "unreachable",
        };
        match self.machine.registers(vcpu) {
            Ok(registers) => {
                let task = self.describe_task(&registers).unwrap_or_default();
                format!("CPU {}, {activity}, CPL {}{task}", vcpu.0, registers.cpl())
            }
            Err(_) => format!("CPU {}, {activity}", vcpu.0),
        }
    }

    /// Under Linux: the task that runs, and what keeps it from being interrupted.
    fn describe_task(&self, registers: &Registers) -> Option<String> {
        let current = self.linux.current(&self.machine, registers).ok()?;
        let mut text = format!(", {}[{}]", current.task.comm, current.task.pid);
        if registers.rflags & rflags::IF == 0 {
            text.push_str(", irqs off");
        }
        if current.preempt_count != 0 {
            text.push_str(&format!(", preempt count {:#x}", current.preempt_count));
        }
        Some(text)
    }
}

impl TargetDescriptionXmlOverride for Session<'_> {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::NonFatal);
        }
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        // Of all vCPUs: they have the same CPUID.
        let registers = self.machine.registers(VcpuId(0)).map_err(refused)?;
        let xml = target_xml(registers.vectors.set);
        let rest = xml.as_bytes().get(offset..).unwrap_or_default();
        let count = rest.len().min(length).min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}
