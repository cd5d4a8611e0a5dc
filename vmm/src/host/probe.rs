//! One probe VM: flat paging, no descriptor tables, a handful of instructions.

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use devices::virtio::GuestMemory;
use gdb::arch::rflags;
use kvm_bindings::{kvm_regs, kvm_segment};
use vm_memory::{Bytes, GuestAddress};

use crate::kvm::{Error, Vm, failed};
use crate::kvm_device;
use crate::memory;
use crate::vcpu::Vcpu;
use crate::vcpu::cpuid::CpuModel;
use crate::vcpu::debug_events::control::{Facilities, Int3Delivery};
use crate::vcpu::debug_events::deliver::{self, Owed};
use crate::vcpu::debug_events::place::Place;
use crate::vcpu::debug_events::set_guest_debug;
use crate::vcpu::exit::Exit;
use crate::vcpu::kick::{self, ImmediateExit};
use crate::vcpu::x86_64::tsc::Tsc;

const RAM: u64 = 4 << 20;
const CODE: u64 = 0x10_0000;
const STACK: u64 = 0x20_0000;
const PAGE_TABLES: u64 = 0x1_0000;
const GDT: u64 = 0x1_3000;
const IDT: u64 = 0x1_4000;
/// The first instruction.
pub const START: u64 = CODE;
/// The instruction that an execute breakpoint is set on.
pub const NOP: u64 = CODE + INT3_OFFSET;
/// The address that the code stores to.
pub const DATA: u64 = 0x30_0000;
/// Far more than the emulators need for a dozen instructions.
const DEADLINE: Duration = Duration::from_secs(2);
const INT3_OFFSET: u64 = 2;
const INT3: u8 = 0xcc;
/// Vector of #BP.
const BREAKPOINT: u64 = 3;
/// The RIP that the handler of an int3 should find saved.
pub const BEHIND_INT3: u64 = CODE + INT3_OFFSET + 1;

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

/// Handles an int3 of ring 0: mov (%rsp), %rax; movabs %rax, DATA; out %al, $0x10; hlt
const HANDLER: u64 = CODE + 0x200;
const HANDLER_CODE: [u8; 17] = [
    0x48, 0x8b, 0x04, 0x24, 0x48, 0xa3, 0x00, 0x00, 0x30, 0x00, 0x00, 0x00, 0x00, 0x00, 0xe6, 0x10,
    0xf4,
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

/// The outcome of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Debug,
    EmulationFailure,
    RanOn,
    Hung,
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

    /// Builds one of ring 0 that begins with RF set.
    pub fn with_rf() -> Result<Self, Error> {
        let probe = Self::new(Ring::Kernel, false)?;
        probe.change(|regs| regs.rflags |= rflags::RF)?;
        Ok(probe)
    }

    fn change(&self, change: impl FnOnce(&mut kvm_regs)) -> Result<(), Error> {
        let fd = self.vcpu.fd();
        let mut regs = fd.get_regs().map_err(failed("KVM_GET_REGS"))?;
        change(&mut regs);
        fd.set_regs(&regs).map_err(failed("KVM_SET_REGS"))
    }

    /// The value that the guest reads from its TSC when that is `cycles` ahead.
    pub fn tsc_ahead(ring: Ring, cycles: u64) -> Result<u64, Error> {
        let probe = Self::new(ring, false)?;
        probe.change(|regs| regs.rip = RDTSC)?;
        let tsc = Tsc::of(probe.vcpu.fd()).map_err(failed("duplicating a vCPU"))?;
        tsc.take_back(cycles.wrapping_neg())?;
        let ram = probe.vm.memory().clone();
        probe.run(&Facilities::default())?;
        stored(&ram)
    }

    /// Runs with `facilities` armed until the first exit that says something.
    pub fn run(self, facilities: &Facilities) -> Result<Outcome, Error> {
        self.arm(facilities, 0)?;
        self.within_deadline(Self::next)
    }

    /// Runs into an int3, gives it to the guest in this way, and returns what its handler
    /// finds as RIP.
    pub fn deliver_int3(
        self,
        facilities: &Facilities,
        delivery: Int3Delivery,
    ) -> Result<u64, Error> {
        let facilities = *facilities;
        self.arm(&facilities, 0)?;
        let ram = self.vm.memory().clone();
        self.within_deadline(move |probe| {
            let mut outcome = probe.next()?;
            if matches!(outcome, Outcome::Debug | Outcome::EmulationFailure) {
                let place = Place {
                    fd: probe.vcpu.fd(),
                    memory: probe.vm.memory(),
                };
                let inject = deliver::prepare(place, Owed::Breakpoint, delivery)?;
                probe.arm(&facilities, inject)?;
                outcome = probe.next()?;
            }
            Ok(outcome)
        })?;
        stored(&ram)
    }

    fn arm(&self, facilities: &Facilities, inject: u32) -> Result<(), Error> {
        let mut debug = facilities.guest_debug(0);
        debug.control |= inject;
        set_guest_debug(self.vcpu.fd(), &debug)
    }

    /// Enters the guest until an exit tells the outcome.
    fn next(&mut self) -> Result<Outcome, Error> {
        loop {
            let exit = self.vcpu.run().map_err(failed("KVM_RUN"))?;
            if let Some(outcome) = judge(&exit) {
                return Ok(outcome);
            }
        }
    }

    /// Runs a step that may hang on a thread.
    fn within_deadline(
        mut self,
        act: impl FnOnce(&mut Self) -> Result<Outcome, Error> + Send + 'static,
    ) -> Result<Outcome, Error> {
        kick::install_handler().map_err(failed("sigaction"))?;
        let immediate_exit =
            Arc::new(ImmediateExit::new(self.vcpu.fd()).map_err(failed("mapping the run page"))?);
        let (sender, outcome) = mpsc::channel();
        let thread = thread::spawn(move || {
            // The receiver waits for the thread, whatever it has heard.
            let _ = sender.send(act(&mut self));
        });
        let result = outcome.recv_timeout(DEADLINE).unwrap_or_else(|_| {
            immediate_exit.set(true);
            kick::signal(&thread);
            Ok(Outcome::Hung)
        });
        // A panic on the thread was printed when it happened.
        let _ = thread.join();
        result
    }
}

/// The outcome that an exit of a probe means.
fn judge(exit: &Exit<'_>) -> Option<Outcome> {
    match exit {
        Exit::Debug(_) => Some(Outcome::Debug),
        Exit::InternalError(error) if error.is_emulation() => Some(Outcome::EmulationFailure),
        Exit::Interrupted => Some(Outcome::Hung),
        Exit::Again => None,
        // The guest reached its end, or died of an exception it had no handler for.
        _ => Some(Outcome::RanOn),
    }
}

/// The value that the program has stored.
fn stored(ram: &GuestMemory) -> Result<u64, Error> {
    ram.read_obj(GuestAddress(DATA))
        .map_err(io::Error::other)
        .map_err(failed("reading probe RAM"))
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
        // An interrupt gate to HANDLER.
        (
            IDT + BREAKPOINT * 16,
            HANDLER & 0xffff | 0x08 << 16 | 0x8e << 40 | HANDLER >> 16 << 48,
        ),
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
        .and_then(|()| allocation.write_slice(&RDTSC_PROGRAM, GuestAddress(RDTSC)))
        .and_then(|()| allocation.write_slice(&HANDLER_CODE, GuestAddress(HANDLER)));
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
    sregs.idt.base = IDT;
    sregs.idt.limit = BREAKPOINT as u16 * 16 + 15;
    let regs = kvm_regs {
        rip: CODE,
        rsp: STACK,
        rflags: 2,
        ..Default::default()
    };
    vcpu.set_boot_state(&regs, &sregs)
}
