use super::*;
use crate::monitor::monitor_test::guest;

/// As pwndbg and gef find them.
fn found<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let start = text.find(&format!("{name}=")).unwrap() + name.len() + 1;
    text[start..]
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .collect()
}

#[test]
fn a_vcpu_is_shown_as_qemu_shows_it() {
    let (_guest, mut rsp) = guest();
    let text = rsp.monitor("info registers vcpu=1");
    let expected = "\
CPU#1
RAX=0000000000000000 RBX=0000000000008001 RCX=0000000000000000 RDX=0000000000000000
RSI=0000000000000000 RDI=0000000000000000 RBP=0000000000000000 RSP=0000000000009000
R8 =0000000000000000 R9 =0000000000000000 R10=0000000000000000 R11=0000000000000000
R12=0000000000000000 R13=0000000000000000 R14=0000000000000000 R15=0000000000000000
RIP=0000000000001000 RFL=00000002 [-------] CPL=0 HLT=0
ES =0000 0000000000000000 00000000 00000000
CS =0010 0000000000000000 ffffffff 00a09b00 DPL=0 CS64 [-RA]
SS =0000 0000000000000000 00000000 00000000
DS =0000 0000000000000000 00000000 00000000
FS =0000 000000000000f5f5 00000000 00000000
GS =0000 0000000000000000 00000000 00000000
LDT=0000 0000000000000000 00000000 00000000
TR =0040 fffffe0000003000 00004087 00008b00 DPL=0 TSS64-busy
GDT=     00000000000e0000 00000027
IDT=     fffffe0000000000 00000fff
CR0=80000001 CR2=0000000000000000 CR3=00000000000f0000 CR4=00000020
DR0=0000000000001001 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000d00
";
    assert_eq!(text, expected);
    assert_eq!(found(&text, "IDT"), ["fffffe0000000000", "00000fff"]);
    assert_eq!(
        found(&text, "TR ")[..3],
        ["0040", "fffffe0000003000", "00004087"]
    );
}

#[test]
fn armed_slots_are_shown_beside_the_guests_own_registers() {
    let (_guest, mut rsp) = guest();
    assert_eq!(rsp.ask("Z1,1003,1"), "OK");
    let text = rsp.monitor("info registers");
    let slots = "in place of the guest's DR0 to DR3, while it runs:\n  \
                 0: execute 0x1003, 1 bytes, for hbreak 0x1003\n  1: free\n";
    assert!(text.contains(slots), "{text}");
    assert!(text.contains("\nDR0=0000000000001000 "), "{text}");
}

#[test]
fn code_of_32_bits_is_shown_in_32_bits() {
    let mut registers = Registers {
        rip: 0x10_0000,
        rflags: 0x246,
        cr0: cr0::PE,
        ..Registers::default()
    };
    registers.cs = Segment {
        selector: 8,
        limit: 0xffff_ffff,
        access: 0xfb,
        big: true,
        ..Segment::default()
    };
    registers.ss = Segment {
        limit: 0xffff,
        access: 0x92,
        ..Segment::default()
    };
    registers.tr.access = 0x8b;
    let mut text = String::new();
    write_general(&mut text, &registers, Width::W32, true).unwrap();
    write_segments(&mut text, &registers, Width::W32).unwrap();
    for line in [
        "EAX=00000000 EBX=00000000 ECX=00000000 EDX=00000000\nESI=00000000",
        "\nEIP=00100000 EFL=00000246 [---Z-P-] CPL=0 HLT=1\n",
        "\nCS =0008 00000000 ffffffff 00c0fb00 DPL=3 CS32 [-RA]\n",
        "\nSS =0000 00000000 0000ffff 00009200 DPL=0 DS16 [-W-]\n",
        "\nTR =0000 00000000 00000000 00008b00 DPL=0 TSS32-busy\n",
        "\nGDT=     00000000 00000000\n",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
}
