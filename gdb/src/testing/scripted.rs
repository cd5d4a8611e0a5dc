//! A target that does nothing by itself: the test moves its vCPUs and makes its
//! events, so that what happens at once is exact.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};

use super::ALL_TRAPS;
use crate::arch::Registers;
use crate::inspect::*;
use crate::symbol_file::SymbolFile;
use crate::target::*;

/// What the test sets up and looks at.
#[derive(Default)]
pub struct Script {
    /// Physical memory from 0; paging is off.
    pub ram: Vec<u8>,
    pub registers: Vec<Registers>,
    pub events: VecDeque<Event>,
    /// Events that come while the guest is being paused.
    pub late: VecDeque<Event>,
    /// Every resume.
    pub resumed: Vec<Vec<Resume>>,
    pub injected: Vec<VcpuId>,
    pub attachments: Vec<Attachment>,
    pub slots: HwSlots,
    pub int3: bool,
    /// The guest's own, on every vCPU.
    pub dr7: u64,
    pub watched: Vec<std::ops::Range<PhysAddr>>,
    /// All, unless the test says otherwise.
    pub traps: Option<HostTraps>,
    pub symbols: Option<Arc<SymbolFile>>,
    /// Whether GS_BASE is trapped.
    pub gs_base: bool,
    pub fail_resume: bool,
    pub fail_pause: bool,
}

/// The target over a script.
pub struct Scripted {
    script: Arc<Mutex<Script>>,
    fd: UnixStream,
}

/// The test's side.
#[derive(Clone)]
pub struct Hand(Arc<Mutex<Script>>);

impl Hand {
    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    /// The vCPU has come to `rip` and stopped there.
    pub fn stops(&self, vcpu: usize, rip: u64, reason: StopReason) {
        let mut script = self.script();
        script.registers[vcpu].rip = rip;
        script
            .events
            .push_back(Event::Stopped(VcpuId(vcpu), reason));
    }

    /// The last resume.
    pub fn resumed(&self) -> Vec<Resume> {
        self.script().resumed.last().unwrap().clone()
    }
}

impl SharedMemory for Hand {
    fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<()> {
        let start = addr.0 as usize;
        let script = self.script();
        let bytes = script.ram.get(start..start + buf.len());
        buf.copy_from_slice(bytes.ok_or(TargetError::NoRam(addr))?);
        Ok(())
    }
}

impl Scripted {
    pub fn new(rips: &[u64]) -> (Self, Hand) {
        let registers = |&rip| Registers {
            rip,
            ..Registers::default()
        };
        let script = Arc::new(Mutex::new(Script {
            ram: vec![0x90; 0x1_0000],
            registers: rips.iter().map(registers).collect(),
            ..Script::default()
        }));
        let (fd, _) = UnixStream::pair().unwrap();
        let target = Self {
            script: script.clone(),
            fd,
        };
        (target, Hand(script))
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }
}

fn refused(what: &'static str) -> TargetError {
    let source = io::ErrorKind::Other.into();
    TargetError::Host { what, source }
}

impl Inspect for Scripted {
    fn trap_gs_base(&mut self, wanted: bool) -> Result<()> {
        self.script().gs_base = wanted;
        Ok(())
    }

    fn debug_registers(&mut self, _vcpu: VcpuId) -> Result<DebugRegisters> {
        Ok(DebugRegisters {
            dr7: self.script().dr7,
            ..DebugRegisters::default()
        })
    }
}

impl Target for Scripted {
    fn vcpu_count(&self) -> usize {
        self.script().registers.len()
    }

    fn pause(&mut self) -> Result<()> {
        let mut script = self.script();
        let late = std::mem::take(&mut script.late);
        script.events.extend(late);
        if script.fail_pause {
            return Err(refused("pause refused"));
        }
        Ok(())
    }

    fn resume(&mut self, actions: &[Resume]) -> Result<()> {
        let mut script = self.script();
        if script.fail_resume {
            return Err(refused("resume refused"));
        }
        script.resumed.push(actions.to_vec());
        Ok(())
    }

    fn registers(&mut self, vcpu: VcpuId) -> Result<Registers> {
        Ok(self.script().registers[vcpu.0])
    }

    fn set_registers(&mut self, vcpu: VcpuId, registers: &Registers) -> Result<()> {
        self.script().registers[vcpu.0] = *registers;
        Ok(())
    }

    fn read_physical(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<()> {
        Hand(self.script.clone()).read(addr, buf)
    }

    fn memory(&self) -> Arc<dyn SharedMemory> {
        Arc::new(Hand(self.script.clone()))
    }

    fn write_physical(&mut self, addr: PhysAddr, data: &[u8]) -> Result<()> {
        let start = addr.0 as usize;
        let mut script = self.script();
        let bytes = script.ram.get_mut(start..start + data.len());
        bytes.ok_or(TargetError::NoRam(addr))?.copy_from_slice(data);
        Ok(())
    }

    fn arm(&mut self, slots: &HwSlots, int3: bool) -> Result<()> {
        let mut script = self.script();
        (script.slots, script.int3) = (*slots, int3);
        Ok(())
    }

    fn watch(&mut self, ranges: &[std::ops::Range<PhysAddr>]) -> Result<()> {
        self.script().watched = ranges.to_vec();
        Ok(())
    }

    fn inject_int3(&mut self, vcpu: VcpuId) -> Result<()> {
        self.script().injected.push(vcpu);
        Ok(())
    }

    fn host_traps(&mut self) -> HostTraps {
        self.script().traps.unwrap_or(ALL_TRAPS)
    }

    fn attachment(&mut self, attachment: Attachment) {
        self.script().attachments.push(attachment);
    }

    fn symbols(&self) -> Option<Arc<SymbolFile>> {
        self.script().symbols.clone()
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn next_event(&mut self) -> Option<Event> {
        self.script().events.pop_front()
    }
}
