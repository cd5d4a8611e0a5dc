//! Registers as KVM has them and as the debugger does.

use gdb::arch::{Registers, Segment, Table};
use kvm_bindings::{kvm_dtable, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;

use crate::kvm::{Error, failed};

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

fn table(from: &kvm_dtable) -> Table {
    Table {
        base: from.base,
        limit: from.limit.into(),
    }
}

/// General, segment and control registers.
pub fn core_registers(fd: &VcpuFd) -> Result<Registers, Error> {
    let regs = fd.get_regs().map_err(failed("KVM_GET_REGS"))?;
    let sregs = fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
    let mut registers = Registers {
        gpr: [
            regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.rsp,
            regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
        ],
        rip: regs.rip,
        rflags: regs.rflags,
        ..Registers::default()
    };
    read_sregs(&mut registers, &sregs);
    Ok(registers)
}

fn read_sregs(to: &mut Registers, from: &kvm_sregs) {
    to.cs = segment(&from.cs);
    to.ss = segment(&from.ss);
    to.ds = segment(&from.ds);
    to.es = segment(&from.es);
    to.fs = segment(&from.fs);
    to.gs = segment(&from.gs);
    to.gdt = table(&from.gdt);
    to.idt = table(&from.idt);
    to.ldt = segment(&from.ldt);
    to.tr = segment(&from.tr);
    to.cr0 = from.cr0;
    to.cr2 = from.cr2;
    to.cr3 = from.cr3;
    to.cr4 = from.cr4;
    to.cr8 = from.cr8;
    to.efer = from.efer;
}

/// Takes over the changes between `old` and `new`. If only a segment's base has
/// changed, the rest of the segment is left alone.
pub fn write_sregs(to: &mut kvm_sregs, old: &Registers, new: &Registers) {
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
#[path = "registers_test.rs"]
mod tests;
