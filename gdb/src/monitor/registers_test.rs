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
