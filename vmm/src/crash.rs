//! The report of a crashed guest: the reason, the place, the registers and the
//! instruction.

use std::fmt::Write;

use devices::virtio::GuestMemory;
use gdb::arch::Registers;
use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter, Instruction};

use crate::guest_virtual;
use crate::vcpu::dispatch::Crash;

/// Longest x86 instruction in bytes.
const MAX_INSTRUCTION: usize = 15;

/// The whole report, several lines.
pub fn report(vcpu: usize, crash: &Crash, registers: &Registers, memory: &GuestMemory) -> String {
    let mut text = format!("vCPU {vcpu}: {crash}\n");
    if is_reset(registers) {
        text.push_str(
            "  this host's KVM has reset the vCPU: the registers of the fault are lost\n",
        );
    }
    let bytes = match crash {
        Crash::Internal(error) if !error.instruction.is_empty() => error.instruction.clone(),
        _ => instruction_bytes(registers, memory),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "  at {:#x}: {}",
        registers.rip,
        disassemble(registers, &bytes)
    );
    write_registers(&mut text, registers);
    text
}

/// Whether these are the registers of a vCPU at reset (SDM volume 3, 10.1.4).
/// After a triple fault an AMD processor leaves them undefined (APM volume 2,
/// 15.14.3), and KVM resets the vCPU.
fn is_reset(registers: &Registers) -> bool {
    (registers.rip, registers.cs.base) == (0xfff0, 0xffff_0000)
}

/// The instruction at RIP, or the readable part of it.
fn instruction_bytes(registers: &Registers, memory: &GuestMemory) -> Vec<u8> {
    let mut bytes = vec![0; MAX_INSTRUCTION];
    let len = guest_virtual::read(registers, memory, registers.linear_rip(), &mut bytes);
    bytes.truncate(len);
    bytes
}

fn disassemble(registers: &Registers, bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "(no readable instruction)".into();
    }
    let mut decoder = Decoder::with_ip(
        registers.code_bits(),
        bytes,
        registers.rip,
        DecoderOptions::NONE,
    );
    let mut instruction = Instruction::default();
    decoder.decode_out(&mut instruction);
    let mut text = String::new();
    GasFormatter::new().format(&instruction, &mut text);
    let len = if instruction.is_invalid() {
        bytes.len()
    } else {
        instruction.len()
    };
    let hex: Vec<_> = bytes[..len]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{text}   [{}]", hex.join(" "))
}

fn write_registers(text: &mut String, r: &Registers) {
    const NAMES: [&str; 16] = [
        "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];
    for (names, values) in NAMES.chunks(4).zip(r.gpr.chunks(4)) {
        let line: Vec<_> = names
            .iter()
            .zip(values)
            .map(|(name, value)| format!("{name:>3} {value:016x}"))
            .collect();
        let _ = writeln!(text, "  {}", line.join("  "));
    }
    let _ = writeln!(
        text,
        "  rip {:016x}  rflags {:08x}  efer {:x}",
        r.rip, r.rflags, r.efer
    );
    let _ = writeln!(
        text,
        "  cr0 {:08x}  cr2 {:016x}  cr3 {:016x}  cr4 {:08x}",
        r.cr0, r.cr2, r.cr3, r.cr4
    );
    let segments = [
        ("cs", r.cs),
        ("ss", r.ss),
        ("ds", r.ds),
        ("es", r.es),
        ("fs", r.fs),
        ("gs", r.gs),
    ];
    let line: Vec<_> = segments
        .iter()
        .map(|(name, s)| format!("{name} {:04x}@{:x}", s.selector, s.base))
        .collect();
    let _ = write!(text, "  {}", line.join("  "));
}

#[cfg(test)]
mod tests {
    use gdb::arch::{Segment, efer};
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::memory;
    use crate::vcpu::exit::InternalError;

    fn long_mode() -> Registers {
        Registers {
            rip: 0x10_0000,
            efer: efer::LMA,
            cs: Segment {
                selector: 0x10,
                long: true,
                ..Segment::default()
            },
            ..Registers::default()
        }
    }

    #[test]
    fn an_emulation_failure_shows_the_instruction_that_kvm_saw() {
        let memory = memory::allocate(memory::MIN_SIZE).unwrap();
        let error = InternalError {
            suberror: 1,
            instruction: vec![0xf3, 0x0f, 0xb8, 0xc1, 0x90],
        };
        let text = report(1, &Crash::Internal(error), &long_mode(), &memory);
        assert!(
            text.starts_with("vCPU 1: KVM internal error, sub-reason 1"),
            "{text}"
        );
        assert!(
            text.contains("at 0x100000: popcnt %ecx,%eax   [f3 0f b8 c1]"),
            "{text}"
        );
    }

    #[test]
    fn a_vcpu_that_kvm_has_reset_is_said_to_be() {
        let memory = memory::allocate(memory::MIN_SIZE).unwrap();
        let mut registers = long_mode();
        let lost = "the registers of the fault are lost";
        assert!(!report(0, &Crash::TripleFault, &registers, &memory).contains(lost));
        (registers.rip, registers.cs.base) = (0xfff0, 0xffff_0000);
        assert!(report(0, &Crash::TripleFault, &registers, &memory).contains(lost));
    }

    #[test]
    fn without_paging_the_instruction_is_read_at_its_physical_address() {
        let memory = memory::allocate(memory::MIN_SIZE).unwrap();
        memory
            .write_slice(&[0x0f, 0x0b], GuestAddress(0x10_0000))
            .unwrap();
        let text = report(0, &Crash::TripleFault, &long_mode(), &memory);
        assert!(text.contains("ud2   [0f 0b]"), "{text}");
        let outside = Registers {
            rip: 0xd000_0000,
            ..long_mode()
        };
        assert!(
            report(0, &Crash::TripleFault, &outside, &memory).contains("no readable instruction")
        );
    }
}
