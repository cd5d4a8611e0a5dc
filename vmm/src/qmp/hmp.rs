//! `human-monitor-command`: those of QEMU's monitor that tools read.

use std::fmt;

use gdb::arch::Registers;
use gdb::hmp::{write_host_address, write_mappings, write_memory, write_mtree, write_registers};
use gdb::inspect::DebugRegisters;
use gdb::paging::AddressSpace;
use gdb::target::{Activity, PhysAddr, TargetError, VirtAddr};
use host_io::errors::chain;
use vm_memory::{Bytes, GuestAddress};

use super::error::QmpError;
use crate::control::Control;
use crate::kvm;
use crate::vcpu::Handle;
use crate::windows;

/// What the monitor prints of vCPU `index`. Errors of a command are text too, as in QEMU.
pub fn run(control: &Control, index: usize, line: &str) -> Result<String, QmpError> {
    let wrong = || QmpError::generic("Parameter 'cpu-index' expects a CPU number");
    let vcpu = control.vcpus().handles().get(index).ok_or_else(wrong)?;
    let line = line.replacen('/', " /", 1);
    let words: Vec<&str> = line.split_whitespace().collect();
    Ok(match words[..] {
        ["info", "mtree"] | ["info", "mtree", "-f"] => mtree(control),
        ["info", "registers"] => {
            let state = State::of(vcpu)?;
            // QEMU begins each vCPU with an empty line.
            format!("\n{}", state.registers_text(index))
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
        let (registers, debug) = (&self.registers, &self.debug);
        written(|out| write_registers(out, index, registers, self.is_halted, debug))
    }
}

fn all_registers(control: &Control) -> Result<String, QmpError> {
    let vcpus = (0..).zip(control.vcpus().handles());
    vcpus
        .map(|(index, vcpu)| Ok(format!("\n{}", State::of(vcpu)?.registers_text(index))))
        .collect()
}

fn mtree(control: &Control) -> String {
    let (ports, memory) = (
        windows::ports(control.buses()),
        windows::memory(control.memory(), control.buses()),
    );
    let vcpus = control.vcpus().handles().len();
    written(|out| write_mtree(out, ports, memory, vcpus))
}

fn mem(control: &Control, registers: &Registers) -> String {
    let space = AddressSpace::of(registers);
    written(|out| write_mappings(out, &space, reader(control)))
}

fn gpa2hva(control: &Control, addr: u64) -> String {
    let host = windows::host_address(control.memory(), PhysAddr(addr));
    written(|out| write_host_address(out, PhysAddr(addr), host))
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

fn xp(control: &Control, format: &str, addr: u64) -> String {
    let read = reader(control);
    let read = |at, bytes: &mut [u8]| read(at, bytes).is_ok();
    written(|out| write_memory(out, format, PhysAddr(addr), read))
}

/// What is written, where nothing can fail.
fn written(write: impl FnOnce(&mut String) -> fmt::Result) -> String {
    let mut text = String::new();
    let _ = write(&mut text);
    text
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
