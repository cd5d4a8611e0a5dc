//! An x86-64 vCPU: registers, boot state, debug facilities.

use std::io;

use gdb::arch::{Fpu, Registers, Segment, Table, VectorSet, Vectors};
use gdb::target::{Activity, HW_SLOTS, HwKind, HwSlots};
use kvm_bindings::{
    CpuId, KVM_CAP_SET_GUEST_DEBUG2, KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE,
    KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP, KVM_MP_STATE_HALTED,
    KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_UNINITIALIZED, Msrs, kvm_debugregs, kvm_fpu,
    kvm_guest_debug, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_segment,
    kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, Kvm, SyncReg, VcpuFd};

use super::exit::{self, Exit, MsrAccess};
use super::xsave;
use crate::kvm::{Error, failed};

/// IA32_KERNEL_GS_BASE (SDM volume 4).
const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;
/// Vector of the breakpoint exception.
const BREAKPOINT_VECTOR: u8 = 3;
/// Length of int3 in bytes.
const INT3_LEN: u64 = 1;

/// Debug facilities to arm on a vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DebugControl {
    pub slots: HwSlots,
    /// Intercept int3.
    pub int3: bool,
    pub step: bool,
    /// A `hlt` is stepped over without KVM (see `hlt`).
    pub hlt_by_hand: bool,
}

impl DebugControl {
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }
}

/// A vCPU with its KVM descriptor; used by its own thread only.
pub struct Vcpu {
    fd: VcpuFd,
    reset_state: Option<Box<State>>,
    /// KVM_GUESTDBG_* bits this host takes.
    debug_flags: u32,
    armed: DebugControl,
    xsave: xsave::Layout,
    /// KVM puts the registers beside each exit.
    tells_rip: bool,
}

/// Everything that a reset must put back.
struct State {
    regs: kvm_regs,
    sregs: kvm_sregs,
    fpu: kvm_fpu,
    msrs: Msrs,
    lapic: kvm_lapic_state,
    mp_state: kvm_mp_state,
    events: kvm_vcpu_events,
    debug: kvm_debugregs,
    xcrs: kvm_xcrs,
}

impl Vcpu {
    /// Takes over a fresh vCPU and gives it its CPUID.
    pub fn new(kvm: &Kvm, fd: VcpuFd, cpuid: &CpuId) -> Result<Self, Error> {
        fd.set_cpuid2(cpuid).map_err(failed("KVM_SET_CPUID2"))?;
        let debug_flags = kvm
            .check_extension_raw(KVM_CAP_SET_GUEST_DEBUG2.into())
            .max(0) as u32;
        Ok(Self {
            fd,
            reset_state: None,
            debug_flags,
            armed: DebugControl::default(),
            xsave: xsave::Layout::of(cpuid),
            tells_rip: false,
        })
    }

    /// Enters the guest.
    pub fn run(&mut self) -> io::Result<Exit<'_>> {
        exit::run(&mut self.fd)
    }

    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Remembers the present state as the one that [`Vcpu::reset`] restores.
    pub fn save_reset_state(&mut self, kvm: &Kvm) -> Result<(), Error> {
        self.reset_state = Some(Box::new(State {
            regs: self.fd.get_regs().map_err(failed("KVM_GET_REGS"))?,
            sregs: self.fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?,
            fpu: self.fd.get_fpu().map_err(failed("KVM_GET_FPU"))?,
            msrs: self.all_msrs(kvm)?,
            lapic: self.fd.get_lapic().map_err(failed("KVM_GET_LAPIC"))?,
            mp_state: self.fd.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))?,
            events: self
                .fd
                .get_vcpu_events()
                .map_err(failed("KVM_GET_VCPU_EVENTS"))?,
            debug: self
                .fd
                .get_debug_regs()
                .map_err(failed("KVM_GET_DEBUGREGS"))?,
            xcrs: self.fd.get_xcrs().map_err(failed("KVM_GET_XCRS"))?,
        }));
        Ok(())
    }

    /// The MSRs that a reset restores: KVM's own list, less those it cannot read.
    /// KVM stops at the first MSR that it refuses and says how far it came.
    fn all_msrs(&self, kvm: &Kvm) -> Result<Msrs, Error> {
        let list = kvm
            .get_msr_index_list()
            .map_err(failed("KVM_GET_MSR_INDEX_LIST"))?;
        let mut readable = Vec::new();
        let mut left = list.as_slice();
        while !left.is_empty() {
            let mut msrs = msrs_of(left.iter().map(|&index| (index, 0)))?;
            let count = self
                .fd
                .get_msrs(&mut msrs)
                .map_err(failed("KVM_GET_MSRS"))?;
            readable.extend_from_slice(&msrs.as_slice()[..count]);
            left = left.get(count + 1..).unwrap_or_default();
        }
        msrs_of(readable.iter().map(|msr| (msr.index, msr.data)))
    }

    /// Back to the state that [`Vcpu::save_reset_state`] saw.
    pub fn reset(&mut self) -> Result<(), Error> {
        let Some(state) = &self.reset_state else {
            return Ok(());
        };
        // The order matters: the local APIC's base is in `sregs`, its mode
        // decides what MSRs mean, and the run state comes last.
        self.fd
            .set_mp_state(state.mp_state)
            .map_err(failed("KVM_SET_MP_STATE"))?;
        self.fd
            .set_sregs(&state.sregs)
            .map_err(failed("KVM_SET_SREGS"))?;
        self.fd
            .set_regs(&state.regs)
            .map_err(failed("KVM_SET_REGS"))?;
        self.fd.set_fpu(&state.fpu).map_err(failed("KVM_SET_FPU"))?;
        self.fd
            .set_xcrs(&state.xcrs)
            .map_err(failed("KVM_SET_XCRS"))?;
        self.fd
            .set_debug_regs(&state.debug)
            .map_err(failed("KVM_SET_DEBUGREGS"))?;
        self.set_msrs_leniently(state.msrs.as_slice())?;
        self.fd
            .set_lapic(&state.lapic)
            .map_err(failed("KVM_SET_LAPIC"))?;
        self.fd
            .set_vcpu_events(&state.events)
            .map_err(failed("KVM_SET_VCPU_EVENTS"))?;
        self.fd
            .set_mp_state(state.mp_state)
            .map_err(failed("KVM_SET_MP_STATE"))
    }

    /// KVM lists some MSRs that it reads but does not let anybody write: they
    /// never change, so a refused write loses nothing.
    fn set_msrs_leniently(&self, msrs: &[kvm_msr_entry]) -> Result<(), Error> {
        let mut left = msrs;
        while !left.is_empty() {
            let msrs = msrs_of(left.iter().map(|msr| (msr.index, msr.data)))?;
            let count = self.fd.set_msrs(&msrs).map_err(failed("KVM_SET_MSRS"))?;
            left = left.get(count + 1..).unwrap_or_default();
        }
        Ok(())
    }

    /// Makes an NMI pending.
    pub fn nmi(&self) -> Result<(), Error> {
        self.fd.nmi().map_err(failed("KVM_NMI"))
    }

    /// Has KVM tell with every exit where the vCPU is, where the host can.
    pub fn note_rip_at_exits(&mut self, kvm: &Kvm) {
        self.tells_rip = kvm.check_extension_int(Cap::SyncRegs) & SyncReg::Register as i32 != 0;
        if self.tells_rip {
            self.fd.set_sync_valid_reg(SyncReg::Register);
        }
    }

    /// Where the vCPU was at its last exit, if that is noted.
    pub fn rip_at_exit(&mut self) -> Option<u64> {
        self.tells_rip.then(|| self.fd.sync_regs_mut().regs.rip)
    }

    /// Does for the guest what it asks of a trapped register.
    pub fn access_msr(&mut self, access: MsrAccess) {
        let answer = match access.written {
            None => self.msr(access.index).ok(),
            Some(data) => self.set_msr(access.index, data).ok().map(|()| data),
        };
        exit::answer_msr(&mut self.fd, answer);
    }

    /// Reads one model-specific register.
    pub fn msr(&self, index: u32) -> Result<u64, Error> {
        let mut msrs = msrs_of([(index, 0)])?;
        match self.fd.get_msrs(&mut msrs) {
            Ok(1) => Ok(msrs.as_slice()[0].data),
            _ => Err(Error {
                call: "KVM_GET_MSRS",
                source: io::Error::other(format!("MSR {index:#x} is not readable")),
            }),
        }
    }

    pub fn set_msr(&self, index: u32, data: u64) -> Result<(), Error> {
        match self.fd.set_msrs(&msrs_of([(index, data)])?) {
            Ok(1) => Ok(()),
            _ => Err(Error {
                call: "KVM_SET_MSRS",
                source: io::Error::other(format!("MSR {index:#x} does not take {data:#x}")),
            }),
        }
    }

    /// General, segment, control, floating-point and vector registers.
    pub fn registers(&self) -> Result<Registers, Error> {
        let regs = self.fd.get_regs().map_err(failed("KVM_GET_REGS"))?;
        let sregs = self.fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
        let fpu = self.fd.get_fpu().map_err(failed("KVM_GET_FPU"))?;
        let mut registers = Registers {
            gpr: [
                regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.rsp,
                regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
            ],
            rip: regs.rip,
            rflags: regs.rflags,
            k_gs_base: self.msr(MSR_KERNEL_GS_BASE)?,
            fpu: read_fpu(&fpu),
            ..Registers::default()
        };
        read_sregs(&mut registers, &sregs);
        if self.xsave.set() != VectorSet::Sse {
            registers.vectors = self.xsave.read(&self.xsave_area()?);
        }
        Ok(registers)
    }

    fn xsave_area(&self) -> Result<kvm_xsave, Error> {
        self.fd.get_xsave().map_err(failed("KVM_GET_XSAVE"))
    }

    #[allow(unsafe_code)]
    fn set_vectors(&self, vectors: &Vectors) -> Result<(), Error> {
        let mut area = self.xsave_area()?;
        self.xsave.write(&mut area, vectors);
        // SAFETY: KVM reads more than the 4 KiB of `kvm_xsave` only for a guest
        // whose CPUID has state components that user space must enable first
        // (arch_prctl, ARCH_REQ_XCOMP_GUEST_PERM). This process enables none.
        unsafe { self.fd.set_xsave(&area) }.map_err(failed("KVM_SET_XSAVE"))
    }

    /// Writes what [`Vcpu::registers`] reads. System registers are only written
    /// when they differ: a write that changes nothing must not be refused.
    pub fn set_registers(&mut self, registers: &Registers) -> Result<(), Error> {
        let old = self.registers()?;
        let sregs = self.fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
        let mut wanted = sregs;
        write_sregs(&mut wanted, &old, registers);
        if wanted != sregs {
            self.fd
                .set_sregs(&wanted)
                .map_err(failed("KVM_SET_SREGS"))?;
        }
        if registers.k_gs_base != old.k_gs_base {
            self.set_msr(MSR_KERNEL_GS_BASE, registers.k_gs_base)?;
        }
        if registers.fpu != old.fpu {
            self.fd
                .set_fpu(&write_fpu(&registers.fpu))
                .map_err(failed("KVM_SET_FPU"))?;
        }
        if registers.vectors != old.vectors {
            self.set_vectors(&registers.vectors)?;
        }
        let [
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            rsp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
        ] = registers.gpr;
        let regs = kvm_regs {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rsp,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip: registers.rip,
            rflags: registers.rflags,
        };
        self.fd.set_regs(&regs).map_err(failed("KVM_SET_REGS"))
    }

    /// Raw access for the boot code.
    pub fn set_boot_state(&self, regs: &kvm_regs, sregs: &kvm_sregs) -> Result<(), Error> {
        self.fd.set_sregs(sregs).map_err(failed("KVM_SET_SREGS"))?;
        self.fd.set_regs(regs).map_err(failed("KVM_SET_REGS"))
    }

    pub fn sregs(&self) -> Result<kvm_sregs, Error> {
        self.fd.get_sregs().map_err(failed("KVM_GET_SREGS"))
    }

    /// Whether the vCPU executes instructions or waits.
    pub fn activity(&self) -> Result<Activity, Error> {
        let state = self.fd.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))?;
        Ok(match state.mp_state {
            KVM_MP_STATE_HALTED => Activity::Halted,
            KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED => Activity::NotStarted,
            _ => Activity::Running,
        })
    }

    /// Tells a guest with kvmclock that it was stopped by its host, so that its
    /// watchdogs forgive the gap. A guest without kvmclock has nothing to tell.
    pub fn note_stop(&self) {
        if let Err(error) = self.fd.kvmclock_ctrl()
            && error.errno() != libc::EINVAL
        {
            tracing::debug!("KVM_KVMCLOCK_CTRL: {error}");
        }
    }

    /// Arms debug facilities; a change costs one ioctl, none otherwise.
    pub fn arm(&mut self, control: &DebugControl) -> Result<(), Error> {
        if *control == self.armed {
            return Ok(());
        }
        let debug = guest_debug(control, self.debug_flags);
        self.fd
            .set_guest_debug(&debug)
            .map_err(failed("KVM_SET_GUEST_DEBUG"))?;
        self.armed = *control;
        Ok(())
    }

    pub fn armed(&self) -> &DebugControl {
        &self.armed
    }

    /// Delivers the #BP of the guest's own int3 at RIP (SDM volume 3, 6.15: the
    /// saved RIP is behind the instruction).
    pub fn inject_int3(&mut self) -> Result<(), Error> {
        let mut regs = self.fd.get_regs().map_err(failed("KVM_GET_REGS"))?;
        regs.rip = regs.rip.wrapping_add(INT3_LEN);
        self.fd.set_regs(&regs).map_err(failed("KVM_SET_REGS"))?;
        let mut events = self
            .fd
            .get_vcpu_events()
            .map_err(failed("KVM_GET_VCPU_EVENTS"))?;
        events.exception.injected = 1;
        events.exception.nr = BREAKPOINT_VECTOR;
        events.exception.has_error_code = 0;
        self.fd
            .set_vcpu_events(&events)
            .map_err(failed("KVM_SET_VCPU_EVENTS"))
    }
}

/// A list for KVM_GET_MSRS and KVM_SET_MSRS from indices and values.
fn msrs_of(msrs: impl IntoIterator<Item = (u32, u64)>) -> Result<Msrs, Error> {
    let entry = |(index, data)| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let entries: Vec<_> = msrs.into_iter().map(entry).collect();
    Msrs::from_entries(&entries)
        .map_err(|error| io::Error::other(format!("{error:?}")))
        .map_err(failed("building an MSR list"))
}

fn guest_debug(control: &DebugControl, supported: u32) -> kvm_guest_debug {
    let mut debug = kvm_guest_debug::default();
    if control.is_off() {
        return debug;
    }
    debug.control = KVM_GUESTDBG_ENABLE;
    if control.int3 {
        debug.control |= KVM_GUESTDBG_USE_SW_BP;
    }
    if control.step {
        // Without BLOCKIRQ a pending interrupt takes the step into its handler.
        debug.control |= KVM_GUESTDBG_SINGLESTEP | (supported & KVM_GUESTDBG_BLOCKIRQ);
    }
    if control.slots.iter().any(Option::is_some) {
        debug.control |= KVM_GUESTDBG_USE_HW_BP;
        debug.arch.debugreg[7] = dr7(&control.slots);
        for (n, slot) in control.slots.iter().enumerate() {
            debug.arch.debugreg[n] = slot.map_or(0, |slot| slot.addr.0);
        }
    }
    debug
}

/// DR7 for the slots: global enable, kind and length (SDM volume 3, 18.2.4).
fn dr7(slots: &HwSlots) -> u64 {
    const RESERVED_ONE: u64 = 1 << 10;
    const _: () = assert!(HW_SLOTS == 4);
    let field = |(n, slot): (usize, &Option<gdb::target::HwBreakpoint>)| {
        let Some(slot) = slot else { return 0 };
        let kind = match slot.kind {
            HwKind::Execute => 0b00,
            HwKind::Write => 0b01,
            HwKind::Access => 0b11,
        };
        let len = match slot.len {
            2 => 0b01,
            4 => 0b11,
            8 => 0b10,
            _ => 0b00,
        };
        0b10 << (n * 2) | (kind | len << 2) << (16 + n * 4)
    };
    slots
        .iter()
        .enumerate()
        .map(field)
        .fold(RESERVED_ONE, |dr7, field| dr7 | field)
}

fn read_fpu(from: &kvm_fpu) -> Fpu {
    let mut st = [[0; 10]; 8];
    for (st, fpr) in st.iter_mut().zip(&from.fpr) {
        st.copy_from_slice(&fpr[..10]);
    }
    Fpu {
        st,
        fcw: from.fcw,
        fsw: from.fsw,
        ftw: from.ftwx,
        fop: from.last_opcode,
        fip: from.last_ip,
        fdp: from.last_dp,
        xmm: from.xmm,
        mxcsr: from.mxcsr,
    }
}

fn write_fpu(from: &Fpu) -> kvm_fpu {
    let mut fpu = kvm_fpu {
        fcw: from.fcw,
        fsw: from.fsw,
        ftwx: from.ftw,
        last_opcode: from.fop,
        last_ip: from.fip,
        last_dp: from.fdp,
        xmm: from.xmm,
        mxcsr: from.mxcsr,
        ..Default::default()
    };
    for (fpr, st) in fpu.fpr.iter_mut().zip(&from.st) {
        fpr[..10].copy_from_slice(st);
    }
    fpu
}

fn segment(from: &kvm_segment) -> Segment {
    Segment {
        selector: from.selector,
        base: from.base,
        limit: from.limit,
        access: from.type_ & 0xf
            | (from.s & 1) << 4
            | (from.dpl & 3) << 5
            | (from.present & 1) << 7,
        long: from.l != 0,
        big: from.db != 0,
    }
}

/// A segment register that the debugger has loaded.
fn load_segment(to: &mut kvm_segment, new: &Segment) {
    let present = new.access >> 7;
    *to = kvm_segment {
        base: new.base,
        limit: new.limit,
        selector: new.selector,
        type_: new.access & 0xf,
        present,
        dpl: new.access >> 5 & 3,
        db: new.big.into(),
        s: new.access >> 4 & 1,
        l: new.long.into(),
        // Larger limits are counted in pages (SDM volume 3, 3.4.5).
        g: u8::from(new.limit > 0xf_ffff),
        avl: 0,
        unusable: 1 - present,
        padding: 0,
    };
}

fn table(base: u64, limit: u32) -> Table {
    Table { base, limit }
}

fn read_sregs(to: &mut Registers, from: &kvm_sregs) {
    to.cs = segment(&from.cs);
    to.ss = segment(&from.ss);
    to.ds = segment(&from.ds);
    to.es = segment(&from.es);
    to.fs = segment(&from.fs);
    to.gs = segment(&from.gs);
    to.gdt = table(from.gdt.base, from.gdt.limit.into());
    to.ldt = table(from.ldt.base, from.ldt.limit);
    to.cr0 = from.cr0;
    to.cr2 = from.cr2;
    to.cr3 = from.cr3;
    to.cr4 = from.cr4;
    to.cr8 = from.cr8;
    to.efer = from.efer;
}

/// Takes over what changed between `old` and `new`. A base that alone is changed
/// leaves everything else of its segment alone.
fn write_sregs(to: &mut kvm_sregs, old: &Registers, new: &Registers) {
    let segments = [
        (&mut to.cs, old.cs, new.cs),
        (&mut to.ss, old.ss, new.ss),
        (&mut to.ds, old.ds, new.ds),
        (&mut to.es, old.es, new.es),
        (&mut to.fs, old.fs, new.fs),
        (&mut to.gs, old.gs, new.gs),
    ];
    for (to, old, new) in segments {
        let rest = |segment| Segment { base: 0, ..segment };
        if rest(old) != rest(new) {
            load_segment(to, &new);
        } else if old.base != new.base {
            to.base = new.base;
        }
    }
    to.cr0 = new.cr0;
    to.cr2 = new.cr2;
    to.cr3 = new.cr3;
    to.cr4 = new.cr4;
    to.cr8 = new.cr8;
    to.efer = new.efer;
}

#[cfg(test)]
#[path = "x86_64_test.rs"]
mod tests;
