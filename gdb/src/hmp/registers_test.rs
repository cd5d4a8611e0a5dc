use super::*;

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
