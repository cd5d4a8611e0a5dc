//! A machine that executes a few x86 instructions, as a [`Target`].
//!
//! It is as unforgiving as the contract allows: registers of a running vCPU are
//! refused, a resume of a running one panics, and an execution breakpoint at RIP
//! fires every time, as on hardware without RFLAGS.RF.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::arch::{Registers, Segment, Table, cr0, cr4, efer};
use crate::inspect::*;
use crate::paging::AddressSpace;
use crate::target::*;

/// Guest RAM from physical 0; all of it mapped at 0 and at [`HIGH`].
pub const RAM: usize = 1 << 20;
/// The second place that RAM is mapped at.
pub const HIGH: u64 = 0xffff_ffff_8000_0000;
/// A write to this port puts a vCPU into long mode.
pub const LONG_MODE: u8 = 0x92;
const TABLES: usize = 0xf_0000;
/// Where the segment descriptors are: none, code of 64 bits, data, code of ring 3,
/// code of 32 bits.
const GDT_AT: usize = 0xe_0000;
const GDT: [u64; 5] = [
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00af_fb00_0000_ffff,
    0x00cf_9b00_0000_ffff,
];
/// Indices into [`Registers::gpr`].
const RBX: usize = 1;
const RSP: usize = 7;

/// Every wait of a test ends with a failure after this.
const PATIENCE: Duration = Duration::from_secs(20);

pub const ALL_TRAPS: HostTraps = {
    let ring = Traps {
        step: true,
        int3: Int3::Trapped,
        hw_breakpoint: true,
        watchpoint: true,
    };
    HostTraps {
        ring0: ring,
        ring3: ring,
    }
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Stopped,
    Running,
    Stepping,
}

#[derive(Clone, Debug)]
pub struct Cpu {
    pub registers: Registers,
    pub mode: Mode,
    pub halted: bool,
    crashed: bool,
    /// int3s that the guest got to see.
    pub own_int3: u64,
    inject: bool,
}

pub struct State {
    pub ram: Vec<u8>,
    pub cpus: Vec<Cpu>,
    pub slots: HwSlots,
    pub int3: bool,
    /// Writes to the pages of these do not happen.
    pub watched: Vec<std::ops::Range<PhysAddr>>,
    pub traps: Vec<Trap>,
    /// The driver took VIRTIO_F_EVENT_IDX.
    pub event_idx: bool,
    /// What the device writes is noted.
    pub noted: bool,
    pub attached: bool,
    /// What the target does not do as long as it is in here.
    pub held: Held,
    /// Instructions executed.
    pub executed: u64,
    initial: (Vec<u8>, Vec<Cpu>),
    events: VecDeque<Event>,
    event_in: UnixStream,
    quit: bool,
}

/// The operations that take long, as on a slow host: until the test lets them continue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Stopping the vCPUs.
    pub pause: bool,
    /// Reading RAM from other threads.
    pub memory: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The target; the machine runs until it is dropped.
pub struct Toy {
    shared: Arc<Shared>,
    event_out: UnixStream,
    traps: HostTraps,
    executor: Option<JoinHandle<()>>,
}

/// The machine as the test sees it.
#[derive(Clone)]
pub struct Watcher(Arc<Shared>);

impl Watcher {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// Waits until the machine is in a state.
    pub fn until(&self, what: &str, reached: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state();
        while !reached(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain: {what}");
            state = self.0.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Has the target take long, or no longer.
    pub fn hold(&self, held: Held) {
        self.state().held = held;
        self.0.changed.notify_all();
    }

    /// Lets a vCPU out of HLT, as an interrupt would.
    pub fn wake(&self, cpu: usize) {
        self.state().cpus[cpu].halted = false;
        self.0.changed.notify_all();
    }
}

impl State {
    /// Running, with the code as loaded and nothing armed.
    pub fn is_undisturbed(&self) -> bool {
        let code = 0x1000..0x4000;
        self.cpus.iter().all(|cpu| cpu.mode == Mode::Running)
            && self.is_let_go()
            && self.ram[code.clone()] == self.initial.0[code]
    }

    /// Nobody attached, nothing armed, and no vCPU stopped that could run.
    pub fn is_let_go(&self) -> bool {
        let runs = |cpu: &Cpu| cpu.mode == Mode::Running || cpu.crashed;
        let armed = self.slots != HwSlots::default()
            || self.int3
            || !self.traps.is_empty()
            || self.noted
            || !self.watched.is_empty();
        self.cpus.iter().all(runs) && !armed && !self.attached
    }

    fn emit(&mut self, event: Event) {
        self.events.push_back(event);
        self.event_in.write_all(b"!").unwrap();
    }

    fn stop(&mut self, cpu: usize, reason: StopReason) {
        self.cpus[cpu].crashed = matches!(reason, StopReason::Crashed(_));
        self.cpus[cpu].mode = Mode::Stopped;
        self.emit(Event::Stopped(VcpuId(cpu), reason));
    }

    fn physical(&self, cpu: usize, addr: u64) -> Option<usize> {
        let space = AddressSpace::of(&self.cpus[cpu].registers);
        let read = |at: PhysAddr, buf: &mut [u8]| read(&self.ram, at, buf);
        let phys = space.translate(VirtAddr(addr), read).ok()?.phys.0;
        (phys < RAM as u64).then_some(phys as usize)
    }

    fn fetch(&self, cpu: usize, addr: u64) -> Option<[u8; 3]> {
        let mut bytes = [0; 3];
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = self.ram[self.physical(cpu, addr + n as u64)?];
        }
        Some(bytes)
    }

    /// Slots of a kind that cover `addr`, as a mask.
    fn hit(&self, addr: u64, kinds: &[HwKind]) -> u8 {
        let covers = |slot: &HwBreakpoint| {
            kinds.contains(&slot.kind)
                && (slot.addr.0..slot.addr.0 + u64::from(slot.len)).contains(&addr)
        };
        let fired = |n: &usize| self.slots[*n].as_ref().is_some_and(covers);
        (0..HW_SLOTS).filter(fired).fold(0, |hit, n| hit | 1 << n)
    }

    /// One instruction of a vCPU that is not stopped.
    fn execute(&mut self, cpu: usize) {
        self.executed += 1;
        let rip = self.cpus[cpu].registers.rip;
        if std::mem::take(&mut self.cpus[cpu].inject) {
            return self.guest_takes_int3(cpu);
        }
        let hit = self.hit(rip, &[HwKind::Execute]);
        if hit != 0 {
            return self.stop(cpu, StopReason::Hardware { hit });
        }
        let Some(code) = self.fetch(cpu, rip) else {
            return self.stop(cpu, StopReason::Crashed(format!("page fault at {rip:#x}")));
        };
        let is_trapped = self.is_trapped(code[1]);
        let registers = &mut self.cpus[cpu].registers;
        match code {
            [0x90, ..] => registers.rip += 1,
            [0xcc, ..] if self.int3 => return self.stop(cpu, StopReason::Int3),
            [0xcc, ..] => return self.guest_takes_int3(cpu),
            [0xeb, offset, _] => {
                registers.rip = rip.wrapping_add_signed(2 + i64::from(offset as i8))
            }
            [0x48, 0xff, 0xc0] => {
                registers.gpr[0] = registers.gpr[0].wrapping_add(1);
                registers.rip += 3;
            }
            [0x88, 0x03, _] | [0x8a, 0x03, _] => return self.access(cpu, code[0] == 0x88),
            [0xf4, ..] => {
                registers.rip += 1;
                self.cpus[cpu].halted = true;
                return;
            }
            [0xe6, port, _] if is_trapped => {
                registers.rip += 2;
                let text = format!("write at port {port:#x}");
                return self.stop(cpu, StopReason::Trap(text));
            }
            [0xe6, 0x10, _] => registers.rip += 2,
            [0xe6, LONG_MODE, _] => {
                registers.rip += 2;
                enter_long_mode(registers);
            }
            [0xe6, 0xf4, _] => return self.emit_exit(cpu),
            [0xe6, 0xfe, _] => return self.reset(),
            _ => {
                let text = format!("triple fault at {rip:#x}: {code:02x?}");
                return self.stop(cpu, StopReason::Crashed(text));
            }
        }
        self.end_step(cpu);
    }

    fn is_trapped(&self, port: u8) -> bool {
        let covers = |trap: &Trap| match trap {
            Trap::Ports { first, last } => (*first..=*last).contains(&port.into()),
            _ => false,
        };
        self.traps.iter().any(covers)
    }

    fn end_step(&mut self, cpu: usize) {
        if self.cpus[cpu].mode == Mode::Stepping {
            self.stop(cpu, StopReason::Step);
        }
    }

    fn guest_takes_int3(&mut self, cpu: usize) {
        self.cpus[cpu].own_int3 += 1;
        self.cpus[cpu].registers.rip += 1;
        self.end_step(cpu);
    }

    /// `mov %al,(%rbx)` or `mov (%rbx),%al`.
    fn access(&mut self, cpu: usize, write: bool) {
        let addr = self.cpus[cpu].registers.gpr[RBX];
        let Some(phys) = self.physical(cpu, addr) else {
            let text = format!("page fault at {addr:#x}");
            return self.stop(cpu, StopReason::Crashed(text));
        };
        if write && self.is_protected(phys) {
            return self.stop(cpu, StopReason::Protected);
        }
        let registers = &mut self.cpus[cpu].registers;
        registers.rip += 2;
        let kinds: &[_] = if write {
            self.ram[phys] = registers.gpr[0] as u8;
            &[HwKind::Write, HwKind::Access]
        } else {
            registers.gpr[0] = registers.gpr[0] & !0xff | u64::from(self.ram[phys]);
            &[HwKind::Access]
        };
        match self.hit(addr, kinds) {
            0 => self.end_step(cpu),
            hit => self.stop(cpu, StopReason::Hardware { hit }),
        }
    }

    fn is_protected(&self, phys: usize) -> bool {
        let page = phys as u64 / 0x1000;
        let touches = |range: &std::ops::Range<PhysAddr>| {
            (range.start.0 / 0x1000..=(range.end.0 - 1) / 0x1000).contains(&page)
        };
        self.watched.iter().any(touches)
    }

    fn emit_exit(&mut self, cpu: usize) {
        let status = self.cpus[cpu].registers.gpr[0] as u8;
        self.cpus
            .iter_mut()
            .for_each(|cpu| cpu.mode = Mode::Stopped);
        self.emit(Event::Exited(status));
    }

    fn reset(&mut self) {
        (self.ram, self.cpus) = self.initial.clone();
        self.slots = HwSlots::default();
        self.int3 = false;
        self.emit(Event::Reset);
    }
}

fn read(ram: &[u8], at: PhysAddr, buf: &mut [u8]) -> Result<()> {
    let start = usize::try_from(at.0).map_err(|_| TargetError::NoRam(at))?;
    let bytes = start
        .checked_add(buf.len())
        .and_then(|end| ram.get(start..end));
    buf.copy_from_slice(bytes.ok_or(TargetError::NoRam(at))?);
    Ok(())
}

/// Page tables that map RAM at 0 and at [`HIGH`], for ring 0.
fn map(ram: &mut [u8]) {
    let mut put = |at: usize, entry: usize| {
        ram[at..at + 8].copy_from_slice(&(entry as u64 | 3).to_le_bytes());
    };
    let [pml4, low, high, directory, table] = [0, 1, 2, 3, 4].map(|n| TABLES + n * 0x1000);
    put(pml4, low);
    put(pml4 + 511 * 8, high);
    put(low, directory);
    put(high + 510 * 8, directory);
    put(directory, table);
    for page in 0..RAM / 0x1000 {
        put(table + page * 8, page * 0x1000);
    }
}

impl SharedMemory for Watcher {
    fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<()> {
        self.until("memory is held", |state| !state.held.memory);
        read(&self.state().ram, addr, buf)
    }
}

impl Toy {
    /// A running machine with `code` at 0x1000 and vCPUs whose RIP is given; rbx
    /// points at 0x8000 plus the vCPU's index.
    pub fn start(code: &[u8], rips: &[u64], traps: HostTraps) -> Self {
        let mut ram = vec![0; RAM];
        ram[0x1000..0x1000 + code.len()].copy_from_slice(code);
        map(&mut ram);
        for (n, descriptor) in GDT.iter().enumerate() {
            ram[GDT_AT + n * 8..][..8].copy_from_slice(&descriptor.to_le_bytes());
        }
        let cpus: Vec<_> = rips
            .iter()
            .enumerate()
            .map(|(n, &rip)| cpu(n, rip))
            .collect();
        let (event_in, event_out) = UnixStream::pair().unwrap();
        event_out.set_nonblocking(true).unwrap();
        let state = State {
            initial: (ram.clone(), cpus.clone()),
            ram,
            cpus,
            slots: HwSlots::default(),
            int3: false,
            watched: Vec::new(),
            traps: Vec::new(),
            event_idx: false,
            noted: false,
            attached: false,
            held: Held::default(),
            executed: 0,
            events: VecDeque::new(),
            event_in,
            quit: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let executor = std::thread::spawn({
            let shared = shared.clone();
            move || execute(&shared)
        });
        Self {
            shared,
            event_out,
            traps,
            executor: Some(executor),
        }
    }

    pub fn watcher(&self) -> Watcher {
        Watcher(self.shared.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

/// What a kernel needs a page of code for.
fn enter_long_mode(registers: &mut Registers) {
    registers.cr0 = cr0::PE | cr0::PG;
    registers.efer = efer::LME | efer::LMA | efer::NXE;
    registers.cs.long = true;
    registers.cs.big = false;
}

fn cpu(index: usize, rip: u64) -> Cpu {
    let mut registers = Registers {
        rip,
        rflags: 2,
        cr3: TABLES as u64,
        cr4: cr4::PAE,
        ..Registers::default()
    };
    enter_long_mode(&mut registers);
    registers.gpr[RBX] = 0x8000 + index as u64;
    registers.gpr[RSP] = 0x9000;
    registers.cs.selector = 0x10;
    registers.fs.base = 0xf5f5;
    registers.gdt = Table {
        base: GDT_AT as u64,
        limit: 8 * GDT.len() as u32 - 1,
    };
    registers.idt = Table {
        base: 0xffff_fe00_0000_0000,
        limit: 0xfff,
    };
    registers.cs.access = 0x9b;
    registers.cs.limit = 0xffff_ffff;
    registers.tr = Segment {
        selector: 0x40,
        base: 0xffff_fe00_0000_3000,
        limit: 0x4087,
        access: 0x8b,
        ..Segment::default()
    };
    Cpu {
        registers,
        mode: Mode::Running,
        halted: false,
        crashed: false,
        own_int3: 0,
        inject: false,
    }
}

fn execute(shared: &Shared) {
    let mut state = shared.state.lock().unwrap();
    while !state.quit {
        let mut idle = true;
        for cpu in 0..state.cpus.len() {
            if state.cpus[cpu].mode != Mode::Stopped && !state.cpus[cpu].halted {
                idle = false;
                state.execute(cpu);
            }
        }
        if idle {
            state = shared.changed.wait(state).unwrap();
        } else {
            shared.changed.notify_all();
            drop(state);
            std::thread::yield_now();
            state = shared.state.lock().unwrap();
        }
    }
}

impl Drop for Toy {
    fn drop(&mut self) {
        self.state().quit = true;
        self.shared.changed.notify_all();
        let _ = self.executor.take().unwrap().join();
    }
}

/// Its only device: an empty queue of the sizes and places that virtqueues have.
impl Inspect for Toy {
    /// No instruction of its writes it.
    fn trap_gs_base(&mut self, _: bool) -> Result<()> {
        Ok(())
    }

    fn windows(&self) -> Result<Vec<Window>> {
        let window = |start, len, what: &str| Window {
            start: PhysAddr(start),
            len,
            what: what.to_owned(),
            is_ram: what == "RAM",
        };
        Ok(vec![
            window(0xd000_0000, 0x1000, "toy0"),
            window(0, RAM as u64, "RAM"),
        ])
    }

    fn host_address(&self, addr: PhysAddr) -> Option<u64> {
        (addr.0 < RAM as u64).then(|| 0x7f00_0000_0000 + addr.0)
    }

    fn ports(&self) -> Result<Vec<Window>> {
        Ok(Vec::new())
    }

    fn msr(&mut self, vcpu: VcpuId, index: u32) -> Result<u64> {
        let registers = &self.state().cpus[vcpu.0].registers;
        match index {
            0xc000_0080 => Ok(registers.efer),
            0xc000_0102 => Ok(registers.k_gs_base),
            _ => Err(TargetError::Host {
                what: "MSR",
                source: std::io::ErrorKind::InvalidInput.into(),
            }),
        }
    }

    fn debug_registers(&mut self, vcpu: VcpuId) -> Result<DebugRegisters> {
        Ok(DebugRegisters {
            addrs: [0x1000 + vcpu.0 as u64, 0, 0, 0],
            dr6: 0xffff_0ff0,
            dr7: 0x400,
        })
    }

    fn set_msr(&mut self, vcpu: VcpuId, _index: u32, value: u64) -> Result<()> {
        self.state().cpus[vcpu.0].registers.k_gs_base = value;
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        let mut state = self.state();
        state.reset();
        // Stopped, as the VMM leaves it.
        state
            .cpus
            .iter_mut()
            .for_each(|cpu| cpu.mode = Mode::Stopped);
        Ok(())
    }

    fn devices(&mut self) -> Result<Vec<Device>> {
        let ready = Virtqueue {
            packed: false,
            size: 4,
            descriptors: PhysAddr(0x5100),
            available: PhysAddr(0x5200),
            used: PhysAddr(0x5300),
        };
        let queue = |ready: Option<Virtqueue>| Queue {
            max_size: 8,
            running: ready.is_some(),
            errors: if ready.is_some() { 2 } else { 0 },
            ready,
        };
        Ok(vec![Device {
            id: "toy0".to_owned(),
            device_type: "toy".to_owned(),
            addr: PhysAddr(0xd000_0000),
            interrupt: 16,
            status: "ACKNOWLEDGE DRIVER".to_owned(),
            features: vec!["VERSION_1".to_owned()],
            event_idx: self.state().event_idx,
            queues: vec![queue(Some(ready)), queue(None)],
            backend: Some("toy.sock, connected".to_owned()),
            counters: vec![("resets", 1)],
        }])
    }

    fn set_traps(&mut self, traps: &[Trap]) -> Result<()> {
        self.state().traps = traps.to_vec();
        Ok(())
    }

    fn set_dirty_log(&mut self, _: usize, wanted: bool) -> Result<()> {
        self.state().noted = wanted;
        Ok(())
    }

    fn dump(
        &mut self,
        path: &std::path::Path,
        format: DumpFormat,
        _: &dyn Fn(PhysAddr, &mut [u8]),
    ) -> Result<String> {
        Ok(format!("{format:?} in {}", path.display()))
    }

    fn dirty_pages(&mut self, _: usize) -> Result<Option<Vec<Range<u64>>>> {
        let runs = || vec![0x1000..0x3000, 0xf_f000..0x10_0000];
        Ok(self.state().noted.then(runs))
    }

    fn exits(&self, _: VcpuId) -> Result<Vec<(&'static str, u64)>> {
        Ok(vec![("HLT", 3), ("INTR", 0), ("IO_OUT", 1)])
    }

    fn recent_exits(&self, vcpu: VcpuId) -> Result<Vec<RecentExit>> {
        let exit = |reason, addr, time| RecentExit {
            reason,
            addr,
            rip: addr,
            time: time + 500 * vcpu.0 as u64,
        };
        Ok(vec![
            exit("HLT", None, 1_000),
            exit("IO_OUT", Some(0x3f8), 12_000),
        ])
    }
}

impl Target for Toy {
    fn vcpu_count(&self) -> usize {
        self.state().cpus.len()
    }

    fn pause(&mut self) -> Result<()> {
        self.watcher()
            .until("pausing is held", |state| !state.held.pause);
        self.state()
            .cpus
            .iter_mut()
            .for_each(|cpu| cpu.mode = Mode::Stopped);
        self.shared.changed.notify_all();
        Ok(())
    }

    fn resume(&mut self, actions: &[Resume]) -> Result<()> {
        let mut state = self.state();
        assert_eq!(actions.len(), state.cpus.len());
        for (cpu, action) in state.cpus.iter_mut().zip(actions) {
            assert_eq!(cpu.mode, Mode::Stopped, "resumed while running");
            cpu.mode = match action {
                Resume::Continue => Mode::Running,
                Resume::Step | Resume::FinishStep => Mode::Stepping,
                Resume::Hold => Mode::Stopped,
            };
        }
        drop(state);
        self.shared.changed.notify_all();
        Ok(())
    }

    fn registers(&mut self, vcpu: VcpuId) -> Result<Registers> {
        let state = self.state();
        let cpu = &state.cpus[vcpu.0];
        if cpu.mode != Mode::Stopped {
            return Err(TargetError::Unreachable(vcpu, "it runs".to_owned()));
        }
        Ok(cpu.registers)
    }

    fn activity(&mut self, vcpu: VcpuId) -> Result<Activity> {
        let halted = self.state().cpus[vcpu.0].halted;
        Ok(if halted {
            Activity::Halted
        } else {
            Activity::Running
        })
    }

    fn set_registers(&mut self, vcpu: VcpuId, registers: &Registers) -> Result<()> {
        self.state().cpus[vcpu.0].registers = *registers;
        Ok(())
    }

    fn read_physical(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<()> {
        read(&self.state().ram, addr, buf)
    }

    fn memory(&self) -> Arc<dyn SharedMemory> {
        Arc::new(self.watcher())
    }

    fn write_physical(&mut self, addr: PhysAddr, data: &[u8]) -> Result<()> {
        let mut state = self.state();
        let start = addr.0 as usize;
        let range = start
            ..start
                .checked_add(data.len())
                .ok_or(TargetError::NoRam(addr))?;
        let bytes = state.ram.get_mut(range).ok_or(TargetError::NoRam(addr))?;
        bytes.copy_from_slice(data);
        Ok(())
    }

    fn arm(&mut self, slots: &HwSlots, int3: bool) -> Result<()> {
        let mut state = self.state();
        (state.slots, state.int3) = (*slots, int3);
        Ok(())
    }

    fn watch(&mut self, ranges: &[std::ops::Range<PhysAddr>]) -> Result<()> {
        self.state().watched = ranges.to_vec();
        Ok(())
    }

    fn inject_int3(&mut self, vcpu: VcpuId) -> Result<()> {
        self.state().cpus[vcpu.0].inject = true;
        Ok(())
    }

    fn host_traps(&mut self) -> HostTraps {
        self.traps
    }

    fn attachment(&mut self, attachment: Attachment) {
        self.state().attached = attachment == Attachment::Attached;
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.event_out.as_fd()
    }

    fn next_event(&mut self) -> Option<Event> {
        let event = self.state().events.pop_front()?;
        self.event_out.read_exact(&mut [0]).unwrap();
        Some(event)
    }
}
