//! Registers, memory and threads, as gdbstub asks for them.

use std::convert::Infallible;
use std::sync::Arc;

use gdbstub::common::Tid;
use gdbstub::target::ext::base::multithread::{MultiThreadBase, MultiThreadResumeOps};
use gdbstub::target::ext::base::single_register_access::{
    SingleRegisterAccess, SingleRegisterAccessOps,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{TargetError, TargetResult};
use host_io::errors::chain;

use super::Session;
use super::guest::Guest;
use super::stop::tid;
use crate::address::{PhysAddr, VcpuId, VirtAddr};
use crate::arch::{Register, RegisterNumber, Registers, SegmentError, Served, rflags};
use crate::limits::PACKET_SIZE;
use crate::target::Activity;

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
pub(super) const MAX_READ: usize = PACKET_SIZE / 2;

/// The registers that a trace frame has.
type Known = Arc<[Register]>;

impl Session<'_> {
    /// The stopped vCPU that gdb means.
    fn stopped(&self, tid: Tid) -> TargetResult<VcpuId, Self> {
        if self.is_running() {
            return Err(TargetError::Errno(errno::EBUSY));
        }
        let vcpu = self.vcpu(tid).ok_or(TargetError::Errno(errno::EINVAL))?;
        self.selection.ask_for(vcpu);
        Ok(vcpu)
    }

    /// The same, to be changed: a trace frame is the past and cannot be.
    fn writable(&self, tid: Tid) -> TargetResult<VcpuId, Self> {
        match self.trace.frame() {
            Some(_) => Err(TargetError::Errno(errno::EBUSY)),
            None => self.stopped(tid),
        }
    }

    fn get_registers(&self, tid: Tid) -> TargetResult<Registers, Self> {
        let vcpu = self.stopped(tid)?;
        self.guest.machine.registers(vcpu).map_err(refused)
    }

    /// The registers that gdb sees: the guest's, or those of the trace frame that it
    /// has selected, where some are not known.
    fn seen_registers(&self, tid: Tid) -> TargetResult<(Registers, Option<Known>), Self> {
        match self.trace.frame() {
            Some(frame) => {
                let (registers, known) = frame.registers();
                Ok((registers, Some(known)))
            }
            None => Ok((self.get_registers(tid)?, None)),
        }
    }

    /// Changes one of a vCPU's registers to the value that gdb has sent.
    fn change(
        &mut self,
        vcpu: VcpuId,
        registers: &mut Registers,
        (register, value): (Register, &[u8]),
    ) -> TargetResult<(), Self> {
        if let Register::Selector(number) = register {
            return self.change_selector(vcpu, registers, number, value);
        }
        let description = self.described.now();
        description
            .set_bytes(register, registers, value)
            .map_err(refused)
    }

    /// Loads a segment register, unless it has this selector already: gdb may write
    /// all registers where the user has changed one.
    fn change_selector(
        &mut self,
        vcpu: VcpuId,
        registers: &mut Registers,
        number: u8,
        value: &[u8],
    ) -> TargetResult<(), Self> {
        let value = <[u8; 4]>::try_from(value).map(u32::from_le_bytes);
        let value = value.map_err(|_| TargetError::Errno(errno::EINVAL))?;
        if value == u32::from(registers.segment(number).selector) {
            return Ok(());
        }
        let read = |addr, buf: &mut [u8]| self.guest.read_virtual(vcpu, addr, buf) == buf.len();
        let loaded = match u16::try_from(value) {
            Ok(selector) => registers.load_segment(number, selector, read),
            Err(_) => Err(SegmentError::Wide),
        };
        loaded.map_err(|error| {
            let name = Register::Selector(number).name();
            // gdb shows a number.
            self.notice(format!(
                "selector {value:#x} is not loaded into {name}: {error}"
            ));
            TargetError::Errno(errno::EINVAL)
        })
    }

    fn put_registers(&mut self, tid: Tid, registers: &Registers) -> TargetResult<(), Self> {
        let vcpu = self.writable(tid)?;
        self.guest
            .machine
            .set_registers(vcpu, registers)
            .map_err(refused)?;
        // Whatever the cause of the crash, the user has given it another state.
        self.vcpus[vcpu].mend();
        Ok(())
    }
}

/// The answer while the guest runs.
pub(super) fn busy<E>() -> TargetError<E> {
    TargetError::Errno(errno::EBUSY)
}

/// gdb 13 shows an error number at best; the log says more.
pub(super) fn refused<E>(error: impl std::error::Error + 'static) -> TargetError<E> {
    tracing::debug!("gdb: {}", chain(&error));
    TargetError::Errno(errno::EINVAL)
}

impl MultiThreadBase for Session<'_> {
    fn read_registers(&mut self, registers: &mut Served, tid: Tid) -> TargetResult<(), Self> {
        let (seen, known) = self.seen_registers(tid)?;
        *registers = Served::new(self.described.use_now(), &seen, known.as_deref());
        Ok(())
    }

    fn write_registers(&mut self, registers: &Served, tid: Tid) -> TargetResult<(), Self> {
        let bytes = registers.bytes().unwrap_or_default();
        let values = self.described.now().split(&bytes);
        let mut values = values.ok_or(TargetError::Errno(errno::EINVAL))?;
        // The program counter is relative to the code segment.
        values.sort_by_key(|(register, _)| !matches!(register, Register::Selector(_)));
        // Parts that gdb does not know (limits, bases) stay as they are.
        let vcpu = self.writable(tid)?;
        let mut merged = self.get_registers(tid)?;
        for value in values {
            self.change(vcpu, &mut merged, value)?;
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
            None if self.selection.is_physical() => {
                self.guest.read_physical_hidden(PhysAddr(start), data)
            }
            None => self.guest.read_virtual(vcpu, VirtAddr(start), data),
        };
        match count {
            0 if !data.is_empty() => Err(TargetError::Errno(errno::EFAULT)),
            count => Ok(count),
        }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let vcpu = self.writable(tid)?;
        let written = match self.selection.is_physical() {
            true => self.guest.write_physical_around(PhysAddr(start), data),
            false => self.guest.write_virtual(vcpu, VirtAddr(start), data),
        };
        written.map_err(|error| {
            tracing::debug!("gdb: {}", chain(&error));
            TargetError::Errno(errno::EFAULT)
        })
    }

    fn list_active_threads(&mut self, active: &mut dyn FnMut(Tid)) -> Result<(), Infallible> {
        // The first one listed is the one that `?` reports.
        let first = self.selection.focus();
        active(tid(first));
        for vcpu in self.guest.machine.vcpus().filter(|&vcpu| vcpu != first) {
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
        RegisterNumber(number): RegisterNumber,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        let (registers, known) = self.seen_registers(tid)?;
        let description = self.described.use_now();
        let register = description
            .register(number)
            .filter(|register| known.is_none_or(|known| known.contains(register)))
            .ok_or(TargetError::NonFatal)?;
        let value = description.bytes(register, &registers);
        buf.get_mut(..value.len())
            .ok_or(TargetError::NonFatal)?
            .copy_from_slice(&value);
        Ok(value.len())
    }

    fn write_register(
        &mut self,
        tid: Tid,
        RegisterNumber(number): RegisterNumber,
        value: &[u8],
    ) -> TargetResult<(), Self> {
        let register = self.described.now().register(number);
        let register = register.ok_or(TargetError::NonFatal)?;
        let vcpu = self.writable(tid)?;
        let mut registers = self.get_registers(tid)?;
        self.change(vcpu, &mut registers, (register, value))?;
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
    /// The line of `info threads` for a vCPU.
    pub(crate) fn describe(&self, vcpu: VcpuId) -> String {
        let activity = match self.guest.machine.activity(vcpu) {
            _ if self.crash(vcpu).is_some() => "crashed",
            Ok(Activity::Running) => "running",
            Ok(Activity::Halted) => "halted",
            Ok(Activity::NotStarted) => "not started",
            Err(_) => "unreachable",
        };
        match self.guest.machine.registers(vcpu) {
            Ok(registers) => {
                let task = self.guest.describe_task(&registers).unwrap_or_default();
                format!("CPU {}, {activity}, CPL {}{task}", vcpu.0, registers.cpl())
            }
            Err(_) => format!("CPU {}, {activity}", vcpu.0),
        }
    }
}

impl Guest<'_> {
    /// Under Linux: the task that runs, and the context that keeps it from being interrupted.
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
