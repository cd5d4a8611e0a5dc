//! A vCPU as QEMU's monitor shows it with `info registers` (QEMU: target/i386/cpu-dump.c).

use std::fmt::{self, Write};

use crate::arch::{Registers, Segment, cr0, efer};
use crate::inspect::DebugRegisters;

/// Names of system descriptors, by their type (SDM volume 3, 3.5).
const SYSTEM_32: [&str; 16] = [
    "Reserved",
    "TSS16-avl",
    "LDT",
    "TSS16-busy",
    "CallGate16",
    "TaskGate",
    "IntGate16",
    "TrapGate16",
    "Reserved",
    "TSS32-avl",
    "Reserved",
    "TSS32-busy",
    "CallGate32",
    "Reserved",
    "IntGate32",
    "TrapGate32",
];

/// The same in long mode, where fewer are left.
fn system_64(kind: u8) -> &'static str {
    match kind {
        2 => "LDT",
        9 => "TSS64-avl",
        11 => "TSS64-busy",
        12 => "CallGate64",
        14 => "IntGate64",
        15 => "TrapGate64",
        _ => "Reserved",
    }
}

/// vCPU `index`, with its descriptor tables and debug registers.
pub fn write_registers(
    out: &mut dyn Write,
    index: usize,
    registers: &Registers,
    is_halted: bool,
    debug: &DebugRegisters,
) -> fmt::Result {
    writeln!(out, "CPU#{index}")?;
    let width = match registers.is_64_bit() {
        true => Width::W64,
        false => Width::W32,
    };
    write_general(out, registers, width, is_halted)?;
    write_segments(out, registers, width)?;
    write_control(out, registers)?;
    write_debug(out, registers, debug)
}

/// How QEMU writes the registers of 64-bit code, and of other code.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    W32,
    W64,
}

impl Width {
    /// A number of this width in hexadecimal.
    fn hex(self, value: u64) -> String {
        match self {
            Width::W32 => format!("{:08x}", value as u32),
            Width::W64 => format!("{value:016x}"),
        }
    }
}

fn write_general(
    out: &mut dyn Write,
    registers: &Registers,
    width: Width,
    halted: bool,
) -> fmt::Result {
    let (letter, flags, names) = match width {
        Width::W32 => ('E', "EFL", 8),
        Width::W64 => ('R', "RFL", 16),
    };
    let named = ["AX", "BX", "CX", "DX", "SI", "DI", "BP", "SP"];
    for row in (0..names).collect::<Vec<_>>().chunks(4) {
        let cells = row.iter().map(|&n| {
            let value = width.hex(registers.gpr[n]);
            match named.get(n) {
                Some(name) => format!("{letter}{name}={value}"),
                None => format!("{:<3}={value}", format!("R{n}")),
            }
        });
        writeln!(out, "{}", cells.collect::<Vec<_>>().join(" "))?;
    }
    let set = |bit: u32| registers.rflags >> bit & 1 != 0;
    let status = [
        ('D', 10),
        ('O', 11),
        ('S', 7),
        ('Z', 6),
        ('A', 4),
        ('P', 2),
        ('C', 0),
    ]
    .map(|(letter, bit)| if set(bit) { letter } else { '-' });
    let status = String::from_iter(status);
    writeln!(
        out,
        "{letter}IP={} {flags}={:08x} [{status}] CPL={} HLT={}",
        width.hex(registers.rip),
        registers.rflags,
        registers.cpl(),
        u8::from(halted)
    )?;
    Ok(())
}

fn write_segments(out: &mut dyn Write, registers: &Registers, width: Width) -> fmt::Result {
    let protected = registers.cr0 & cr0::PE != 0;
    let long = registers.efer & efer::LMA != 0;
    let segments = [
        ("ES", &registers.es),
        ("CS", &registers.cs),
        ("SS", &registers.ss),
        ("DS", &registers.ds),
        ("FS", &registers.fs),
        ("GS", &registers.gs),
        ("LDT", &registers.ldt),
        ("TR", &registers.tr),
    ];
    for (name, segment) in segments {
        let base = width.hex(segment.base);
        write!(
            out,
            "{name:<3}={:04x} {base} {:08x} {:08x}",
            segment.selector,
            segment.limit,
            segment.attributes()
        )?;
        if protected && segment.is_present() {
            write!(out, " DPL={} {}", segment.dpl(), kind(segment, long))?;
        }
        writeln!(out)?;
    }
    let width = if long { Width::W64 } else { Width::W32 };
    for (name, table) in [("GDT", registers.gdt), ("IDT", registers.idt)] {
        writeln!(
            out,
            "{name}=     {} {:08x}",
            width.hex(table.base),
            table.limit
        )?;
    }
    Ok(())
}

/// The kind of the segment, in words and letters.
fn kind(segment: &Segment, long: bool) -> String {
    let Segment { access, big, .. } = *segment;
    let kind = access & 0xf;
    if !segment.is_code_or_data() {
        return match long {
            true => system_64(kind),
            false => SYSTEM_32[usize::from(kind)],
        }
        .to_owned();
    }
    let letter = |bit: u8, letter| if kind & bit != 0 { letter } else { '-' };
    let (name, first, second) = match kind & 8 != 0 {
        true if segment.long => ("CS64", 'C', 'R'),
        true if big => ("CS32", 'C', 'R'),
        true => ("CS16", 'C', 'R'),
        false if big || long => ("DS  ", 'E', 'W'),
        false => ("DS16", 'E', 'W'),
    };
    let flags = [letter(4, first), letter(2, second), letter(1, 'A')];
    format!("{name} [{}]", String::from_iter(flags))
}

fn write_control(out: &mut dyn Write, registers: &Registers) -> fmt::Result {
    let long = registers.efer & efer::LMA != 0;
    let width = if long { Width::W64 } else { Width::W32 };
    writeln!(
        out,
        "CR0={:08x} CR2={} CR3={} CR4={:08x}",
        registers.cr0,
        width.hex(registers.cr2),
        width.hex(registers.cr3),
        registers.cr4
    )?;
    Ok(())
}

fn write_debug(out: &mut dyn Write, registers: &Registers, debug: &DebugRegisters) -> fmt::Result {
    let addrs = (0..).zip(debug.addrs);
    let cells = addrs.map(|(n, addr)| format!("DR{n}={addr:016x}"));
    writeln!(out, "{}", cells.collect::<Vec<_>>().join(" "))?;
    writeln!(out, "DR6={:016x} DR7={:016x}", debug.dr6, debug.dr7)?;
    writeln!(out, "EFER={:016x}", registers.efer)
}

#[cfg(test)]
#[path = "registers_test.rs"]
mod tests;
