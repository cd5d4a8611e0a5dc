//! What the real gdb makes of vCPUs in 16-, 32- and 64-bit code.

use std::process::{Command, Stdio};

use super::gdb_test::{assert_lines, output};
use crate::arch::{Registers, cr0};
use crate::testing::{Guest, HIGH, LONG_MODE, Rsp};

/// A loop; at 0x1004 what is 32- and 64-bit code's `mov $0x1234,%eax`, and in 16
/// bits `mov $0x1234,%ax` and `add %al,(%bx,%si)`; at 0x1010 a loop that enters long
/// mode.
const CODE: &[u8] = &[
    0x90, 0x90, 0xeb, 0xfc, 0xb8, 0x34, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe6, LONG_MODE, 0xeb,
    0xfc,
];

/// A vCPU in the loop at 0x1000, in 32-bit code without paging.
fn flat_32(registers: &mut Registers) {
    registers.cr0 = cr0::PE;
    registers.efer = 0;
    registers.cs.long = false;
    registers.cs.big = true;
}

/// The same in real mode.
fn real_mode(registers: &mut Registers) {
    flat_32(registers);
    registers.cr0 = 0;
    registers.cs.big = false;
}

/// The same in compatibility mode: 32-bit code under a 64-bit kernel.
fn compatibility(registers: &mut Registers) {
    registers.cs.long = false;
    registers.cs.big = true;
}

fn guest(mode: fn(&mut Registers)) -> Guest {
    let guest = Guest::start(CODE, &[0x1000]);
    mode(&mut guest.watcher.state().cpus[0].registers);
    guest
}

const DISASSEMBLE: [&str; 2] = ["show architecture", "x/2i 0x1004"];

#[test]
fn gdb_sees_16_bit_code() {
    let guest = guest(real_mode);
    let text = output(
        &guest,
        &[
            DISASSEMBLE[0],
            DISASSEMBLE[1],
            "break *0x1001",
            "continue",
            "info registers eip eflags esp cr0",
            "set $eax = 0x12345678",
            "set $ds = 0xb800",
            "maintenance flush register-cache",
            "print/x $ax",
            "print/x $ds",
        ],
    );
    assert_lines(
        &text,
        &[
            "The target architecture is set to \"auto\" (currently \"i8086\").",
            "   0x1004:\tmov    $0x1234,%ax",
            "   0x1007:\tadd    %al,(%bx,%si)",
            "Breakpoint 1, 0x00001001 in ?? ()",
            "eip            0x1001              0x1001",
            "eflags         0x2                 [ IOPL=0 ]",
            "esp            0x9000              0x9000",
            "cr0            0x0                 [ ]",
            "$1 = 0x5678",
            "$2 = 0xb800",
        ],
    );
    assert!(!text.contains("OS ABI"), "{text}");
    assert_eq!(guest.watcher.state().cpus[0].registers.ds.base, 0xb_8000);
    guest.until_undisturbed();
}

#[test]
fn gdb_sees_32_bit_code_and_its_stack() {
    let guest = guest(flat_32);
    let text = output(
        &guest,
        &[
            DISASSEMBLE[0],
            DISASSEMBLE[1],
            "stepi",
            "break *0x1001",
            "continue",
            "print $pc",
            // A frame whose caller is at 0x1007.
            "set $ebp = 0x9010",
            "set var *(int *)0x9010 = 0",
            "set var *(int *)0x9014 = 0x1007",
            "bt",
            "print sizeof($eax)",
            "print $xmm7.uint128",
        ],
    );
    assert_lines(
        &text,
        &[
            "The target architecture is set to \"auto\" (currently \"i386\").",
            "   0x1004:\tmov    $0x1234,%eax",
            "Breakpoint 1, 0x00001001 in ?? ()",
            "$1 = (void (*)()) 0x1001",
            "#0  0x00001001 in ?? ()",
            "#1  0x00001007 in ?? ()",
            "$2 = 4",
            "$3 = 0",
        ],
    );
    guest.until_undisturbed();
}

#[test]
fn a_change_of_mode_is_told_and_gdb_follows_when_asked() {
    let guest = guest(flat_32);
    let text = output(
        &guest,
        &[
            "print/x $eax = 0x11223344",
            "print $pc = 0x1010",
            "stepi",
            "stepi",
            "print $pc",
            "unset tdesc filename",
            "show architecture",
            "print/x $rax",
            "print $pc",
            "break *0x1012",
            "continue",
            "monitor architecture i8086",
            "unset tdesc filename",
            "x/i 0x1004",
            "monitor architecture auto",
            "unset tdesc filename",
            "monitor architecture",
            "x/i 0x1004",
            "monitor architecture arm",
            "set $pc = 0x1000",
        ],
    );
    assert_lines(
        &text,
        &[
            "$1 = 0x11223344",
            "0x00001012 in ?? ()",
            "The target architecture is set to \"auto\" (currently \"i386:x86-64\").",
            "$4 = 0x11223344",
            "$5 = (void (*)()) 0x1010",
            "Breakpoint 1, 0x0000000000001012 in ?? ()",
            "   0x1004:\tmov    $0x1234,%ax",
            "   0x1004:\tmov    $0x1234,%eax",
        ],
    );
    let notice =
        "vCPU 0 runs i386:x86-64 code, gdb has i386: \"unset tdesc filename\" has it look again";
    assert_eq!(text.matches(notice).count(), 1, "{text}");
    // What monitor says comes on the other stream.
    assert_lines(
        &text,
        &[
            notice,
            "vCPU 0 runs i386:x86-64 code, gdb has i386:x86-64",
            "\"unset tdesc filename\" has gdb take i8086",
            "vCPU 0 runs i386:x86-64 code, gdb has i8086",
            "\"unset tdesc filename\" has gdb take what the vCPU runs",
            "vCPU 0 runs i386:x86-64 code, gdb has i386:x86-64",
            "\"arm\" is no architecture: auto, i8086, i386 or x86-64",
        ],
    );
    guest.until_undisturbed();
}

#[test]
fn user_code_of_32_bits_is_part_of_a_64_bit_system_until_gdb_looks_again() {
    let guest = guest(compatibility);
    let architecture = |text: &str| {
        let shown = text.lines().filter(|line| line.contains("architecture is"));
        shown.map(str::to_owned).collect::<Vec<_>>()
    };
    let again = [
        "show architecture",
        "unset tdesc filename",
        "show architecture",
    ];
    for _ in 0..2 {
        // What one gdb has chosen is forgotten when it leaves.
        let text = output(&guest, &again);
        assert_eq!(
            architecture(&text),
            [
                "The target architecture is set to \"auto\" (currently \"i386:x86-64\").",
                "The target architecture is set to \"auto\" (currently \"i386\").",
            ]
        );
    }
    guest.until_undisturbed();
}

/// gdb 18 does so when it attaches.
#[test]
fn a_description_that_is_read_twice_before_it_is_used_stays_the_same() {
    let guest = guest(compatibility);
    let mut rsp = guest.attach();
    let architecture = |rsp: &mut Rsp| {
        let text = rsp.ask("qXfer:features:read:target.xml:0,fff");
        let (_, rest) = text.split_once("<architecture>").unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    assert_eq!(architecture(&mut rsp), "i386:x86-64");
    assert_eq!(architecture(&mut rsp), "i386:x86-64");
    rsp.ask("g");
    assert_eq!(
        architecture(&mut rsp),
        "i386",
        "the user has gdb look again"
    );
    assert_eq!(architecture(&mut rsp), "i386");
}

/// gdb sends the lower half of an address that its description cannot hold.
#[test]
fn half_an_address_is_refused_where_only_the_whole_makes_sense() {
    let guest = Guest::start(CODE, &[0x1000]);
    // A step plants breakpoints too, and ends where one is missing.
    let whole = format!("*{:#x}", HIGH + 0x1002);
    let text = output(
        &guest,
        &[
            "monitor architecture i386",
            "unset tdesc filename",
            &format!("hbreak {whole}"),
            "stepi",
            "delete",
            &format!("break {whole}"),
            "stepi",
            "delete",
            "watch *(int *)0xffffffff80001000",
            "stepi",
            "delete",
            // In 32 bits there is nothing to confuse these with.
            "hbreak *0x90001000",
            "stepi",
            "delete",
            "monitor architecture x86-64",
            "unset tdesc filename",
            &format!("set $pc = {:#x}", HIGH + 0x1000),
            &format!("hbreak {whole}"),
            "continue",
            "delete",
            "set $pc = 0x1000",
        ],
    );
    for what in [
        "hardware breakpoint at 0x80001002",
        "breakpoint at 0x80001002",
        "watchpoint at 0x80001000",
    ] {
        let whole = HIGH | u64::from_str_radix(&what[what.len() - 8..], 16).unwrap();
        let refused = format!(
            "{what} refused: with i386 gdb has only the lower half of {whole:#x}; \"monitor \
             architecture x86-64\" and then \"unset tdesc filename\" give it the whole"
        );
        assert!(
            text.lines().any(|line| line == refused),
            "no {refused:?} in:\n{text}"
        );
    }
    assert_eq!(text.matches(" refused: ").count(), 3, "{text}");
    assert_lines(&text, &["Breakpoint 5, 0xffffffff80001002 in ?? ()"]);
    guest.until_undisturbed();
}

/// gdb takes its user's wish like the architecture of a symbol file.
#[test]
fn gdb_takes_each_description_whatever_its_file_is() {
    for mode in [flat_32, real_mode, |_: &mut Registers| {}] {
        for wish in ["i8086", "i386", "i386:x86-64"] {
            let guest = guest(mode);
            let mut gdb = Command::new("gdb");
            gdb.args(["-nx", "-q", "-batch", "-iex"])
                .arg(format!("set architecture {wish}"))
                .arg("-ex")
                .arg(format!("target remote {}", guest.socket.display()))
                .args(["-ex", "break *0x1001", "-ex", "continue"]);
            let output = gdb.stdin(Stdio::null()).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(
                text.contains("\nBreakpoint 1, 0x"),
                "{wish}: {text}{errors}"
            );
            guest.until_undisturbed();
        }
    }
}

#[test]
fn selectors_are_loaded_from_the_gdt_or_refused_with_the_reason() {
    let guest = Guest::start(CODE, &[0x1000]);
    let text = output(
        &guest,
        &[
            "set $fs = 0x10",
            "set $cs = 0x1b",
            "set $ss = 8",
            "set $gs_base = 0x123456789abc",
            "maintenance flush register-cache",
            "monitor info vcpus",
            "print/x $cs",
            "print/x $gs_base",
            "print/x $fs_base",
            "print/x $ss",
        ],
    );
    assert_lines(
        &text,
        &[
            "Could not write register \"ss\"; remote failure reply 'E16'",
            "selector 0x8 is not loaded into ss: its descriptor 0x00af9b000000ffff is no \
             writable data segment",
        ],
    );
    assert_lines(
        &text,
        &["$1 = 0x1b", "$2 = 0x123456789abc", "$3 = 0x0", "$4 = 0x0"],
    );
    let registers = guest.watcher.state().cpus[0].registers;
    assert_eq!((registers.cs.access, registers.cpl()), (0xfb, 3));
    assert!(registers.cs.long);
    guest.until_undisturbed();
}

/// A vCPU that has crashed may have been reset by the host, as by AMD's KVM.
#[test]
fn a_crash_says_nothing_of_the_code_that_a_vcpu_runs() {
    const CRASH_IN_LONG_MODE: &[u8] = &[0x90, 0x90, 0xeb, 0xfc, 0xe6, LONG_MODE, 0, 0, 0];
    let guest = Guest::start(CRASH_IN_LONG_MODE, &[0x1000]);
    flat_32(&mut guest.watcher.state().cpus[0].registers);
    let text = output(&guest, &["print $pc = 0x1004", "continue"]);
    assert_lines(&text, &["Program received signal SIGABRT, Aborted."]);
    assert!(text.contains("vCPU 0 crashed: triple fault"), "{text}");
    assert!(!text.contains("has it look again"), "{text}");
}
