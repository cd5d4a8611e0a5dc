//! The notes of a dump: registers as ELF core files have them, registers as QEMU has them,
//! and the kernel's own note.

use std::ops::Range;

use gdb::arch::{Registers, Segment, Table};

use super::kernel::Kernel;

/// `NT_PRSTATUS` (elf.h): a thread's signal, number and registers.
const PRSTATUS: u32 = 1;
/// Sizes and places in x86-64 Linux's `struct elf_prstatus` (linux/elfcore.h).
const PRSTATUS_SIZE: usize = 336;
const PRSTATUS_PID: usize = 32;
const PRSTATUS_REGISTERS: usize = 112;
/// What `orig_rax` is outside of system calls.
const NO_SYSTEM_CALL: u64 = u64::MAX;
/// The version of the layout that QEMU's CPU note has.
const QEMU_VERSION: u32 = 1;

/// PRSTATUS of all vCPUs, QEMU's notes of all, and the kernel's.
pub fn all(registers: &[Registers], kernel: Option<&Kernel>) -> Vec<u8> {
    let mut notes = Vec::new();
    for (index, registers) in registers.iter().enumerate() {
        push(&mut notes, b"CORE\0", PRSTATUS, &prstatus(index, registers));
    }
    for registers in registers {
        push(&mut notes, b"QEMU\0", 0, &qemu_state(registers));
    }
    if let Some(kernel) = kernel {
        push(&mut notes, b"VMCOREINFO\0", 0, &kernel.vmcoreinfo);
    }
    notes
}

/// The place of the text of VMCOREINFO in [`all`]; empty without a kernel.
pub fn vmcoreinfo(notes: &[u8], kernel: Option<&Kernel>) -> Range<usize> {
    let len = kernel.map_or(0, |kernel| kernel.vmcoreinfo.len());
    let start = notes.len() - len.next_multiple_of(4);
    start..start + len
}

fn push(notes: &mut Vec<u8>, name: &[u8], kind: u32, data: &[u8]) {
    for word in [name.len() as u32, data.len() as u32, kind] {
        notes.extend_from_slice(&word.to_le_bytes());
    }
    for part in [name, data] {
        notes.extend_from_slice(part);
        notes.resize(notes.len().next_multiple_of(4), 0);
    }
}

/// vCPU n is thread n + 1: 0 is no thread.
fn prstatus(index: usize, r: &Registers) -> Vec<u8> {
    let mut status = vec![0; PRSTATUS_SIZE];
    let pid = index as u32 + 1;
    status[PRSTATUS_PID..][..4].copy_from_slice(&pid.to_le_bytes());
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
    ] = r.gpr;
    // In the order of `struct user_regs_struct` (asm/user_64.h).
    let user = [
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        NO_SYSTEM_CALL,
        r.rip,
        r.cs.selector.into(),
        r.rflags,
        rsp,
        r.ss.selector.into(),
        r.fs.base,
        r.gs.base,
        r.ds.selector.into(),
        r.es.selector.into(),
        r.fs.selector.into(),
        r.gs.selector.into(),
    ];
    for (place, value) in status[PRSTATUS_REGISTERS..].chunks_exact_mut(8).zip(user) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    status
}

/// `QEMUCPUState`, which has the registers that a processor's state needs beyond those: a
/// version, its own size, general registers, segments and tables, CR0 to CR4, and the GS
/// base of the other side of SWAPGS.
fn qemu_state(r: &Registers) -> Vec<u8> {
    let mut state = Vec::new();
    let words = r.gpr.iter().chain([&r.rip, &r.rflags]);
    state.extend(words.flat_map(|word| word.to_le_bytes()));
    for segment in [r.cs, r.ds, r.es, r.fs, r.gs, r.ss, r.ldt, r.tr] {
        push_segment(&mut state, &segment);
    }
    for Table { base, limit } in [r.gdt, r.idt] {
        let table = Segment {
            base,
            limit,
            ..Segment::default()
        };
        push_segment(&mut state, &table);
    }
    let words = [r.cr0, 0, r.cr2, r.cr3, r.cr4, r.k_gs_base];
    state.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    let size = state.len() as u32 + 8;
    let head = [QEMU_VERSION, size].map(u32::to_le_bytes);
    [head.concat(), state].concat()
}

fn push_segment(state: &mut Vec<u8>, segment: &Segment) {
    let padding = 0;
    let words = [
        segment.selector.into(),
        segment.limit,
        segment.attributes(),
        padding,
    ];
    state.extend(words.iter().flat_map(|word: &u32| word.to_le_bytes()));
    state.extend_from_slice(&segment.base.to_le_bytes());
}

#[cfg(test)]
#[path = "notes_test.rs"]
mod tests;
