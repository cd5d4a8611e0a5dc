//! `human-monitor-command`: those of QEMU's monitor that tools read.

use std::fmt::Write;

use devices::bus::Bus;
use gdb::arch::Registers;
use gdb::hmp::{Format, write_mappings, write_registers};
use gdb::inspect::DebugRegisters;
use gdb::paging::AddressSpace;
use gdb::target::{Activity, PhysAddr, TargetError, VirtAddr};
use host_io::errors::chain;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::error::QmpError;
use crate::control::Control;
use crate::kvm;
use crate::vcpu::Handle;

/// QEMU's name of RAM.
const RAM: &str = "pc.ram";
/// Most bytes that one `xp` shows.
const MOST: u64 = 1 << 20;
/// Bytes in a line of `xp`, for units of a byte and for larger ones.
const LINE_OF_BYTES: usize = 8;
const LINE: usize = 16;

/// What the monitor prints. Errors of a command are text too, as in QEMU.
pub fn run(control: &Control, vcpu: &Handle, line: &str) -> Result<String, QmpError> {
    let line = line.replacen('/', " /", 1);
    let words: Vec<&str> = line.split_whitespace().collect();
    Ok(match words[..] {
        ["info", "mtree"] | ["info", "mtree", "-f"] => mtree(control),
        ["info", "registers"] => {
            let state = State::of(vcpu)?;
            // QEMU begins each vCPU with an empty line.
            format!("\n{}", state.registers_text(0))
        }
        ["info", "registers", "-a"] => all_registers(control)?,
        ["info", "mem"] => mem(control, &State::of(vcpu)?.registers),
        ["gpa2hva", addr] => with_number(addr, |addr| gpa2hva(control, addr)),
        ["gva2gpa", addr] => {
            let registers = State::of(vcpu)?.registers;
            with_number(addr, |addr| gva2gpa(control, &registers, addr))
        }
        ["xp", addr] => with_number(addr, |addr| xp(control, "", addr)),
        ["xp", format, addr] if format.starts_with('/') => {
            with_number(addr, |addr| xp(control, &format[1..], addr))
        }
        _ => format!("unknown command: '{}'\n", words.join(" ")),
    })
}

fn with_number(text: &str, f: impl FnOnce(u64) -> String) -> String {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    match number {
        Ok(number) => f(number),
        Err(_) => format!("invalid char in expression: '{text}' is no number\n"),
    }
}

/// A vCPU as it is now.
struct State {
    registers: Registers,
    debug: DebugRegisters,
    is_halted: bool,
}

impl State {
    fn of(vcpu: &Handle) -> Result<Self, QmpError> {
        let state = vcpu.request(|vcpu| {
            Ok(Self {
                registers: vcpu.registers()?,
                debug: vcpu.debug_registers()?,
                is_halted: vcpu.activity()? == Activity::Halted,
            })
        });
        let state = state.map_err(|error| QmpError::generic(chain(&error)))?;
        state.map_err(|error: kvm::Error| QmpError::generic(chain(&error)))
    }

    fn registers_text(&self, index: usize) -> String {
        let mut text = String::new();
        let (registers, debug) = (&self.registers, &self.debug);
        // Writing to a string cannot fail.
        let _ = write_registers(&mut text, index, registers, self.is_halted, debug);
        text
    }
}

fn all_registers(control: &Control) -> Result<String, QmpError> {
    let vcpus = (0..).zip(control.vcpus().handles());
    vcpus
        .map(|(index, vcpu)| Ok(format!("\n{}", State::of(vcpu)?.registers_text(index))))
        .collect()
}

/// Ports, and the guest-physical address space.
fn mtree(control: &Control) -> String {
    let mut text = String::from("FlatView #0\n AS \"I/O\", root: io\n Root memory region: io\n");
    write_ranges(&mut text, bus(&control.buses().pio));
    text.push_str("\nFlatView #1\n AS \"memory\", root: system\n");
    for vcpu in 0..control.vcpus().handles().len() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, " AS \"cpu-memory-{vcpu}\", root: system");
    }
    text.push_str(" Root memory region: system\n");
    let mut offset = 0;
    let ram = control.memory().iter().map(|region| {
        let place = match offset {
            0 => RAM.to_owned(),
            offset => format!("{RAM} @{offset:016x}"),
        };
        offset += region.len();
        let start = region.start_addr().raw_value();
        (start, region.len(), format!("ram): {place}"))
    });
    let mut ranges: Vec<_> = ram.chain(bus(&control.buses().mmio)).collect();
    ranges.sort();
    write_ranges(&mut text, ranges);
    text.push('\n');
    text
}

fn bus(bus: &Bus) -> Vec<(u64, u64, String)> {
    let ranges = bus.ranges();
    ranges
        .map(|(start, len, name)| (start, len, format!("i/o): {name}")))
        .collect()
}

fn write_ranges(text: &mut String, ranges: Vec<(u64, u64, String)>) {
    for (start, len, what) in ranges {
        let last = start + (len - 1);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {start:016x}-{last:016x} (prio 0, {what}");
    }
}

fn mem(control: &Control, registers: &Registers) -> String {
    let mut text = String::new();
    let space = AddressSpace::of(registers);
    // Writing to a string cannot fail.
    let _ = write_mappings(&mut text, &space, reader(control));
    text
}

fn gpa2hva(control: &Control, addr: u64) -> String {
    match control.memory().get_host_address(GuestAddress(addr)) {
        Ok(host) => {
            let host = host as usize;
            format!("Host virtual address for {addr:#x} ({RAM}) is {host:#x}\n")
        }
        Err(_) => format!("No memory is mapped at address {addr:#x}\n"),
    }
}

fn gva2gpa(control: &Control, registers: &Registers, addr: u64) -> String {
    let space = AddressSpace::of(registers);
    match space.translate(VirtAddr(addr), reader(control)) {
        Ok(page) => format!("gpa: {:#x}\n", page.phys.0),
        Err(_) => "Unmapped\n".to_owned(),
    }
}

fn reader(control: &Control) -> impl Fn(PhysAddr, &mut [u8]) -> Result<(), TargetError> {
    |at, bytes| {
        let read = control.memory().read_slice(bytes, GuestAddress(at.0));
        read.map_err(|_| TargetError::NoRam(at))
    }
}

/// Physical memory in hexadecimal, up to where there is none.
fn xp(control: &Control, text: &str, addr: u64) -> String {
    let Some(format) = Format::parse(text) else {
        return format!("invalid format '/{text}': only x with b, h, w or g is known\n");
    };
    let unit = format.unit();
    let Some(len) = format.len(MOST) else {
        return format!("at most {MOST} bytes are shown at once\n");
    };
    let mut bytes = vec![0; len];
    let mut output = String::new();
    let line = if unit == 1 { LINE_OF_BYTES } else { LINE };
    for (n, piece) in (0..).zip(bytes.chunks_mut(line)) {
        let at = addr.saturating_add(n * line as u64);
        let _ = write!(output, "{at:016x}:");
        let read = control.memory().read_slice(piece, GuestAddress(at));
        if read.is_err() {
            output.push_str(" Cannot access memory\n");
            break;
        }
        for unit in piece.chunks(unit) {
            output.push_str(" 0x");
            for byte in unit.iter().rev() {
                let _ = write!(output, "{byte:02x}");
            }
        }
        output.push('\n');
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        let number = |text| with_number(text, |number| number.to_string());
        assert_eq!(number("4096"), "4096");
        assert_eq!(number("0xff"), "255");
        for text in ["0x", "x", "-1", "0x1ffffffffffffffff"] {
            assert!(number(text).contains("is no number"), "{text:?}");
        }
    }
}
