//! From the raw `kvm_run` page to a small enum: the one place that reads it.
//!
//! An [`Exit`] borrows the data buffers inside the page, so answering a read is
//! filling its slice; KVM takes the bytes at the next KVM_RUN.
#![allow(unsafe_code)]

use std::io;

use kvm_bindings::{
    KVM_EXIT_DEBUG, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR,
    KVM_EXIT_IO, KVM_EXIT_IO_OUT, KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN,
    KVM_EXIT_SYSTEM_EVENT, KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR, KVM_INTERNAL_ERROR_EMULATION,
    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES, kvm_run,
};
use kvm_ioctls::VcpuFd;

/// Why a vCPU left guest mode.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit<'a> {
    /// IN, or `data.len() / width` iterations of INS.
    PioIn {
        port: u16,
        width: usize,
        data: &'a mut [u8],
    },
    /// OUT, or `data.len() / width` iterations of OUTS.
    PioOut {
        port: u16,
        width: usize,
        data: &'a [u8],
    },
    MmioRead {
        addr: u64,
        data: &'a mut [u8],
    },
    MmioWrite {
        addr: u64,
        data: &'a [u8],
    },
    /// RDMSR or WRMSR of a register that is trapped; to be answered with
    /// [`answer_msr`].
    Msr(MsrAccess),
    /// Only without the in-kernel interrupt chip, which halts in the kernel.
    Hlt,
    /// Triple fault.
    Shutdown,
    IrqWindowOpen,
    /// The processor refused to enter guest mode.
    FailEntry {
        reason: u64,
        cpu: u32,
    },
    InternalError(InternalError),
    Debug(Debug),
    /// A signal or a kick ended KVM_RUN; nothing of an earlier exit is pending.
    Interrupted,
    /// A vCPU that waits for its start-up IPI was woken for nothing.
    Again,
    SystemEvent {
        kind: u32,
    },
    /// A reason this VMM never asks KVM for.
    Unexpected {
        reason: u32,
    },
}

/// A guest's access to a model-specific register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrAccess {
    pub index: u32,
    /// The value that it writes; `None` when it reads.
    pub written: Option<u64>,
}

/// KVM could not continue to run the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalError {
    pub suberror: u32,
    /// The instruction that could not be emulated, where KVM tells.
    pub instruction: Vec<u8>,
}

impl InternalError {
    /// KVM's emulator does not know the instruction at RIP.
    pub fn is_emulation(&self) -> bool {
        self.suberror == KVM_INTERNAL_ERROR_EMULATION
    }
}

/// A debug exception that KVM_SET_GUEST_DEBUG asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debug {
    /// Exception vector: 1 (#DB) or 3 (#BP).
    pub exception: u32,
    pub pc: u64,
    pub dr6: u64,
    pub dr7: u64,
}

/// Enters the guest and returns why it came back.
pub fn run(fd: &mut VcpuFd) -> io::Result<Exit<'_>> {
    // The crate's own decoding loses the operand width and the internal error's
    // data; the page has both.
    if let Err(error) = fd.run() {
        return match error.errno() {
            libc::EINTR => Ok(Exit::Interrupted),
            libc::EAGAIN => Ok(Exit::Again),
            _ => Err(error.into()),
        };
    }
    Ok(decode(fd.get_kvm_run()))
}

/// Answers an [`Exit::Msr`] with the value read, or any value for a write that is done.
/// `None` is a #GP in the guest.
pub fn answer_msr(fd: &mut VcpuFd, answer: Option<u64>) {
    let run = fd.get_kvm_run();
    // SAFETY: the exit that is answered has written this union member.
    let msr = unsafe { &mut run.__bindgen_anon_1.msr };
    msr.error = answer.is_none().into();
    msr.data = answer.unwrap_or_default();
}

fn decode(run: &mut kvm_run) -> Exit<'_> {
    match run.exit_reason {
        KVM_EXIT_IO => decode_pio(run),
        KVM_EXIT_MMIO => decode_mmio(run),
        KVM_EXIT_HLT => Exit::Hlt,
        KVM_EXIT_SHUTDOWN => Exit::Shutdown,
        KVM_EXIT_IRQ_WINDOW_OPEN => Exit::IrqWindowOpen,
        KVM_EXIT_INTR => Exit::Interrupted,
        KVM_EXIT_FAIL_ENTRY => {
            // SAFETY: the exit reason says that this union member was written.
            let fail = unsafe { run.__bindgen_anon_1.fail_entry };
            Exit::FailEntry {
                reason: fail.hardware_entry_failure_reason,
                cpu: fail.cpu,
            }
        }
        KVM_EXIT_INTERNAL_ERROR => Exit::InternalError(decode_internal_error(run)),
        KVM_EXIT_DEBUG => {
            // SAFETY: the exit reason says that this union member was written.
            let arch = unsafe { run.__bindgen_anon_1.debug }.arch;
            Exit::Debug(Debug {
                exception: arch.exception,
                pc: arch.pc,
                dr6: arch.dr6,
                dr7: arch.dr7,
            })
        }
        KVM_EXIT_X86_RDMSR | KVM_EXIT_X86_WRMSR => {
            // SAFETY: the exit reason says that this union member was written.
            let msr = unsafe { run.__bindgen_anon_1.msr };
            let is_write = run.exit_reason == KVM_EXIT_X86_WRMSR;
            Exit::Msr(MsrAccess {
                index: msr.index,
                written: is_write.then_some(msr.data),
            })
        }
        KVM_EXIT_SYSTEM_EVENT => {
            // SAFETY: the exit reason says that this union member was written.
            let event = unsafe { run.__bindgen_anon_1.system_event };
            Exit::SystemEvent { kind: event.type_ }
        }
        reason => Exit::Unexpected { reason },
    }
}

fn decode_pio(run: &mut kvm_run) -> Exit<'_> {
    // SAFETY: the exit reason says that this union member was written.
    let io = unsafe { run.__bindgen_anon_1.io };
    let width = usize::from(io.size);
    let len = width * io.count as usize;
    let start = std::ptr::from_mut(run).cast::<u8>();
    // SAFETY: KVM places `size * count` bytes at `data_offset` from the start of
    // the kvm_run mapping, inside that mapping (one page behind the structure),
    // and the slice borrows the page exclusively through `run`.
    let data = unsafe { std::slice::from_raw_parts_mut(start.add(io.data_offset as usize), len) };
    if u32::from(io.direction) == KVM_EXIT_IO_OUT {
        Exit::PioOut {
            port: io.port,
            width,
            data,
        }
    } else {
        Exit::PioIn {
            port: io.port,
            width,
            data,
        }
    }
}

fn decode_mmio(run: &mut kvm_run) -> Exit<'_> {
    // SAFETY: the exit reason says that this union member was written.
    let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
    let len = (mmio.len as usize).min(mmio.data.len());
    let data = &mut mmio.data[..len];
    if mmio.is_write != 0 {
        Exit::MmioWrite {
            addr: mmio.phys_addr,
            data,
        }
    } else {
        Exit::MmioRead {
            addr: mmio.phys_addr,
            data,
        }
    }
}

fn decode_internal_error(run: &kvm_run) -> InternalError {
    // SAFETY: the exit reason says that this union member was written.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let error = |instruction| InternalError {
        suberror: internal.suberror,
        instruction,
    };
    if internal.suberror != KVM_INTERNAL_ERROR_EMULATION || internal.ndata < 3 {
        return error(Vec::new());
    }
    // SAFETY: for this suberror KVM writes the emulation_failure member, which
    // overlays `internal`.
    let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
    let has_bytes = failure.flags & u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
    if has_bytes == 0 {
        return error(Vec::new());
    }
    // SAFETY: the flag says that the instruction bytes were written.
    let insn = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
    let len = usize::from(insn.insn_size).min(insn.insn_bytes.len());
    error(insn.insn_bytes[..len].to_vec())
}

/// The name of an exit reason that this VMM has no use for: none of these comes
/// without a capability that it would have to enable, or on another architecture.
pub fn unexpected_name(reason: u32) -> &'static str {
    const NAMES: [(u32, &str); 14] = [
        (kvm_bindings::KVM_EXIT_UNKNOWN, "UNKNOWN"),
        (kvm_bindings::KVM_EXIT_EXCEPTION, "EXCEPTION"),
        (kvm_bindings::KVM_EXIT_HYPERCALL, "HYPERCALL"),
        (kvm_bindings::KVM_EXIT_SET_TPR, "SET_TPR"),
        (kvm_bindings::KVM_EXIT_TPR_ACCESS, "TPR_ACCESS"),
        (kvm_bindings::KVM_EXIT_NMI, "NMI"),
        (kvm_bindings::KVM_EXIT_WATCHDOG, "WATCHDOG"),
        (kvm_bindings::KVM_EXIT_IOAPIC_EOI, "IOAPIC_EOI"),
        (kvm_bindings::KVM_EXIT_HYPERV, "HYPERV"),
        (kvm_bindings::KVM_EXIT_DIRTY_RING_FULL, "DIRTY_RING_FULL"),
        (kvm_bindings::KVM_EXIT_X86_BUS_LOCK, "X86_BUS_LOCK"),
        (kvm_bindings::KVM_EXIT_XEN, "XEN"),
        (kvm_bindings::KVM_EXIT_NOTIFY, "NOTIFY"),
        (kvm_bindings::KVM_EXIT_MEMORY_FAULT, "MEMORY_FAULT"),
    ];
    let found = NAMES.iter().find(|(number, _)| *number == reason);
    found.map_or("no name known", |(_, name)| name)
}

/// Counter index of an exit; the names are those of `KVM_EXIT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    PioIn,
    PioOut,
    MmioRead,
    MmioWrite,
    Rdmsr,
    Wrmsr,
    Hlt,
    Shutdown,
    IrqWindowOpen,
    FailEntry,
    InternalError,
    Debug,
    Interrupted,
    Again,
    SystemEvent,
    Unexpected,
}

impl Reason {
    pub const NAMES: [&'static str; 16] = [
        "IO_IN",
        "IO_OUT",
        "MMIO_READ",
        "MMIO_WRITE",
        "X86_RDMSR",
        "X86_WRMSR",
        "HLT",
        "SHUTDOWN",
        "IRQ_WINDOW_OPEN",
        "FAIL_ENTRY",
        "INTERNAL_ERROR",
        "DEBUG",
        "INTR",
        "EAGAIN",
        "SYSTEM_EVENT",
        "UNEXPECTED",
    ];
}

impl Exit<'_> {
    pub fn reason(&self) -> Reason {
        match self {
            Exit::PioIn { .. } => Reason::PioIn,
            Exit::PioOut { .. } => Reason::PioOut,
            Exit::MmioRead { .. } => Reason::MmioRead,
            Exit::MmioWrite { .. } => Reason::MmioWrite,
            Exit::Msr(MsrAccess { written: None, .. }) => Reason::Rdmsr,
            Exit::Msr(MsrAccess { .. }) => Reason::Wrmsr,
            Exit::Hlt => Reason::Hlt,
            Exit::Shutdown => Reason::Shutdown,
            Exit::IrqWindowOpen => Reason::IrqWindowOpen,
            Exit::FailEntry { .. } => Reason::FailEntry,
            Exit::InternalError(_) => Reason::InternalError,
            Exit::Debug(_) => Reason::Debug,
            Exit::Interrupted => Reason::Interrupted,
            Exit::Again => Reason::Again,
            Exit::SystemEvent { .. } => Reason::SystemEvent,
            Exit::Unexpected { .. } => Reason::Unexpected,
        }
    }
}

#[cfg(test)]
#[path = "exit_test.rs"]
mod tests;
