//! One probe VM: flat paging, no descriptor tables, a handful of instructions.

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use devices::virtio::GuestMemory;
use gdb::target::Activity;
use kvm_bindings::{kvm_regs, kvm_segment};
use vm_memory::{Bytes, GuestAddress};

use super::judge;
use crate::kvm::{Error, Vm, failed};
use crate::kvm_device;
use crate::memory;
use crate::vcpu::cpuid::CpuModel;
use crate::vcpu::kick::{self, ImmediateExit};
use crate::vcpu::x86_64::tsc::Tsc;
use crate::vcpu::{DebugControl, Vcpu};

const RAM: u64 = 4 << 20;
const CODE: u64 = 0x10_0000;
const STACK: u64 = 0x20_0000;
const PAGE_TABLES: u64 = 0x1_0000;
const GDT: u64 = 0x1_3000;
/// The instruction that an execute breakpoint is set on.
pub const NOP: u64 = CODE + INT3_OFFSET;
/// What the code stores to.
pub const DATA: u64 = 0x30_0000;
/// Far more than the emulators need for a dozen instructions.
const DEADLINE: Duration = Duration::from_secs(2);
const INT3_OFFSET: u64 = 2;
const INT3: u8 = 0xcc;

/// Where the `hlt` is.
const HLT: u64 = CODE + PROGRAM.len() as u64 - 1;

/// Where the other program is, and its own: rdtsc; shl $32, %rdx; or %rdx, %rax;
/// movabs %rax, DATA; out %al, $0x10; hlt
const RDTSC: u64 = CODE + 0x100;
const RDTSC_PROGRAM: [u8; 22] = [
    0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0x48, 0xa3, 0x00, 0x00, 0x30, 0x00, 0x00,
    0x00, 0x00, 0x00, 0xe6, 0x10, 0xf4,
];

/// nop x4; movabs %rax, DATA; nop x2; out %al, $0x10; hlt
const PROGRAM: [u8; 19] = [
    0x90, 0x90, 0x90, 0x90, 0x48, 0xa3, 0x00, 0x00, 0x30, 0x00, 0x00, 0x00, 0x00, 0x00, 0x90, 0x90,
    0xe6, 0x10, 0xf4,
];

/// Privilege level that a probe runs at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    Kernel,
    User,
}

impl Ring {
    fn level(self) -> u8 {
        match self {
            Ring::Kernel => 0,
            Ring::User => 3,
        }
    }
}

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Debug,
    EmulationFailure,
    RanOn,
    Hung,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub outcome: Outcome,
    /// What the vCPU does then.
    pub activity: Activity,
}

/// A VM that is ready to run the program.
pub struct Probe {
    vcpu: Vcpu,
    /// Keeps RAM mapped.
    vm: Vm,
}

impl Probe {
    /// Builds the VM; with `int3` the third instruction is one.
    pub fn new(ring: Ring, int3: bool) -> Result<Self, Error> {
        let kvm = kvm_device::open()
            .map_err(io::Error::other)
            .map_err(failed("opening /dev/kvm"))?;
        let vm = Vm::new(&kvm, ram(ring, int3)?)?;
        let cpuid = CpuModel::of_host(&kvm)?.for_vcpu(0, 1);
        let vcpu = Vcpu::new(&kvm, vm.create_vcpu(0)?, &cpuid)?;
        set_registers(&vcpu, ring)?;
        Ok(Self { vcpu, vm })
    }

    /// Builds one that begins with `hlt`, in ring 0.
    pub fn at_hlt() -> Result<Self, Error> {
        Self::at(HLT, Ring::Kernel)
    }

    fn at(rip: u64, ring: Ring) -> Result<Self, Error> {
        let probe = Self::new(ring, false)?;
        let mut regs = probe.vcpu.fd().get_regs().map_err(failed("KVM_GET_REGS"))?;
        regs.rip = rip;
        let set = probe.vcpu.fd().set_regs(&regs);
        set.map_err(failed("KVM_SET_REGS"))?;
        Ok(probe)
    }

    /// What the guest reads from its TSC when that is `cycles` ahead.
    pub fn tsc_ahead(ring: Ring, cycles: u64) -> Result<u64, Error> {
        let probe = Self::at(RDTSC, ring)?;
        let tsc = Tsc::of(probe.vcpu.fd()).map_err(failed("duplicating a vCPU"))?;
        tsc.take_back(cycles.wrapping_neg())?;
        let ram = probe.vm.memory().clone();
        probe.run(&DebugControl::default())?;
        let read = ram.read_obj(GuestAddress(DATA));
        read.map_err(io::Error::other)
            .map_err(failed("reading probe RAM"))
    }

    /// Runs with `control` armed until the first exit that says something.
    pub fn run(mut self, control: &DebugControl) -> Result<End, Error> {
        kick::install_handler().map_err(failed("sigaction"))?;
        self.vcpu.arm(control)?;
        let immediate_exit =
            Arc::new(ImmediateExit::new(self.vcpu.fd()).map_err(failed("mapping the run page"))?);
        let (sender, outcome) = mpsc::channel();
        let thread = thread::spawn(move || {
            let result = loop {
                match self.vcpu.run() {
                    Ok(exit) => {
                        if let Some(outcome) = judge(&exit) {
                            break Ok(outcome);
                        }
                    }
                    Err(error) => break Err(failed("KVM_RUN")(error)),
                }
            };
            let result = result.and_then(|outcome| {
                let activity = self.vcpu.activity()?;
                Ok(End { outcome, activity })
            });
            // The receiver waits for the thread, whatever it has heard.
            let _ = sender.send(result);
        });
        let result = outcome.recv_timeout(DEADLINE).unwrap_or_else(|_| {
            immediate_exit.set(true);
            kick::signal(&thread);
            Ok(End {
                outcome: Outcome::Hung,
                activity: Activity::Running,
            })
        });
        // A panic on the thread was printed when it happened.
        let _ = thread.join();
        result
    }
}

fn ram(ring: Ring, int3: bool) -> Result<Arc<GuestMemory>, Error> {
    const WRITABLE_PRESENT: u64 = 0x3;
    const USER: u64 = 0x4;
    const LARGE: u64 = 0x80;
    let allocation = memory::allocate(RAM)
        .map_err(std::io::Error::other)
        .map_err(failed("allocating probe RAM"))?;
    let user = if ring == Ring::User { USER } else { 0 };
    let mut writes: Vec<(u64, u64)> = vec![
        (
            PAGE_TABLES,
            (PAGE_TABLES + 0x1000) | WRITABLE_PRESENT | user,
        ),
        (
            PAGE_TABLES + 0x1000,
            (PAGE_TABLES + 0x2000) | WRITABLE_PRESENT | user,
        ),
        // Flat code and data for both rings; the selectors are in `set_registers`.
        (GDT + 8, 0x00af_9b00_0000_ffff),
        (GDT + 16, 0x00cf_9300_0000_ffff),
        (GDT + 24, 0x00af_fb00_0000_ffff),
        (GDT + 32, 0x00cf_f300_0000_ffff),
    ];
    for page in 0..RAM >> 21 {
        let entry = page << 21 | WRITABLE_PRESENT | LARGE | user;
        writes.push((PAGE_TABLES + 0x2000 + page * 8, entry));
    }
    let mut program = PROGRAM;
    if int3 {
        program[INT3_OFFSET as usize] = INT3;
    }
    let written = writes
        .iter()
        .try_for_each(|(addr, value)| allocation.write_obj(*value, GuestAddress(*addr)))
        .and_then(|()| allocation.write_slice(&program, GuestAddress(CODE)))
        .and_then(|()| allocation.write_slice(&RDTSC_PROGRAM, GuestAddress(RDTSC)));
    written
        .map_err(std::io::Error::other)
        .map_err(failed("writing probe RAM"))?;
    Ok(allocation)
}

fn set_registers(vcpu: &Vcpu, ring: Ring) -> Result<(), Error> {
    const CR0_PE_PG: u64 = 1 << 31 | 1;
    const CR4_PAE: u64 = 1 << 5;
    const EFER_LMA_LME_SCE: u64 = 1 << 10 | 1 << 8 | 1;
    let (code, data) = match ring {
        Ring::Kernel => (0x08, 0x10),
        Ring::User => (0x1b, 0x23),
    };
    let segment = |selector, type_, long: bool| kvm_segment {
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        s: 1,
        g: 1,
        dpl: ring.level(),
        l: long.into(),
        db: (!long).into(),
        ..Default::default()
    };
    let mut sregs = vcpu.sregs()?;
    sregs.cs = segment(code, 0xb, true);
    for register in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *register = segment(data, 0x3, false);
    }
    sregs.cr0 |= CR0_PE_PG;
    sregs.cr3 = PAGE_TABLES;
    sregs.cr4 |= CR4_PAE;
    sregs.efer = EFER_LMA_LME_SCE;
    sregs.gdt.base = GDT;
    sregs.gdt.limit = 39;
    let regs = kvm_regs {
        rip: CODE,
        rsp: STACK,
        rflags: 2,
        ..Default::default()
    };
    vcpu.set_boot_state(&regs, &sregs)
}
