use std::process::{Command, Stdio};
use std::sync::Arc;

use super::*;
use crate::linux::module_parts::{KINDS, Part};
use crate::linux::modules::Module;
use crate::linux::orc::{Base, Bp, Place, Row, Rule};
use crate::linux::symbols::{Kind, Symbols};
use crate::linux::synthetic;
use crate::linux::testing::Types;
use proptest::prelude::*;

const BASE: u64 = 0xffff_ffff_8100_0000;

fn symbols() -> Symbols {
    let mut symbols = Symbols::default();
    for (name, addr, kind) in [
        ("_text", BASE, Kind::Text),
        ("look", BASE + 0x100, Kind::Text),
        ("twice", BASE + 0x200, Kind::Text),
        ("twice", BASE + 0x300, Kind::Text),
        ("_etext", BASE + 0x400, Kind::Text),
        ("init_task", BASE + 0x1000, Kind::Data),
        ("_end", BASE + 0x2000, Kind::Data),
        ("counter", 0x80, Kind::Data),
    ] {
        symbols.push(name.as_bytes(), addr, kind);
    }
    symbols.seal();
    symbols
}

fn types() -> Types {
    let mut types = Types::new();
    let (int, long) = (types.int("int", 4), types.int("long", 8));
    let text = types.int("char", 1);
    let comm = types.array(text, 16);
    let bits = [
        ("low", int, 0, 3),
        ("high", int, 3, 7),
        ("whole", long, 64, 0),
    ];
    types.bit_fields("bits", 16, &bits);
    let signed = types.signed_enum("sign", &[("BELOW", -1), ("ABOVE", 1)]);
    types.enum64("wide", &[("HUGE", 1 << 40)]);
    let task = types.structure(
        "task_struct",
        0x20,
        &[("state", signed, 0), ("comm", comm, 8)],
    );
    let constant = types.of(10, task);
    let pointer = types.of(2, constant);
    types.function("look", long, &[("task", pointer), ("how", int), ("", 0)]);
    types.function("twice", int, &[]);
    types.function("gone", int, &[]);
    types.variable("counter", long);
    types
}

/// What gdb prints for a kernel that is described so.
fn output(debug: &[DebugSection], commands: &[&str]) -> String {
    let file = synthetic::kernel(&symbols(), BASE, debug).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kernel");
    std::fs::write(&path, file).unwrap();
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch"]).arg(&path).stdin(Stdio::null());
    for command in commands {
        gdb.args(["-ex", command]);
    }
    let output = gdb.output().expect("gdb is not installed");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn code(symbols: &Symbols) -> Code<'_> {
    Code {
        name: "vmlinux",
        symbols,
        arguments_end: &|function| function.wrapping_add(5),
        switches: &[BASE + 0x120..BASE + 0x130, BASE + 0x140..BASE + 0x150],
        memory: None,
    }
}

fn described(types: &Types) -> Vec<DebugSection> {
    let btf = Btf::parse(types.bytes()).unwrap();
    info(&btf, &code(&symbols())).unwrap()
}

#[test]
fn gdb_knows_types_functions_and_variables() {
    let commands = [
        "ptype /o struct bits",
        "print (enum sign)-1",
        "print/x HUGE",
        "ptype look",
        "info scope look",
        "print &init_task.comm",
        "print &counter",
        "whatis twice",
    ];
    let text = output(&described(&types()), &commands);
    for line in [
        "/*      0: 0   |       4 */    int low : 3;",
        "/*      0: 3   |       4 */    int high : 7;",
        "/*      8      |       8 */    long whole;",
        "/* total size (bytes):   16 */",
        "$1 = BELOW",
        "$2 = 0x10000000000",
        "type = long (const struct task_struct *, int, ...)",
        "  Range 0xffffffff81000100-0xffffffff81000105: a variable in $rdi",
        "  Range 0xffffffff81000100-0xffffffff81000105: a variable in $rsi",
        "$3 = (char (*)[16]) 0xffffffff81001008",
        "$4 = (long *) 0x80",
        // Which of the two it is about is not known.
        "type = <text variable, no debug info>",
    ] {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }
}

/// A structure that holds one of the kernel's and points to another.
fn module_types(kernel: &Types) -> Types {
    // As `types` numbers them.
    let [bits, task_pointer] = [5, 10];
    let mut types = Types::of_module(kernel);
    let members = [("bits", bits, 0), ("task", task_pointer, 16)];
    let dummy = types.structure("dummy", 24, &members);
    let pointer = types.of(2, dummy);
    types.function("dummy_open", 1, &[("dummy", pointer)]);
    types
}

const MODULE: u64 = 0xffff_ffff_c000_0000;

/// What gdb prints of a kernel with that module.
fn module_output(commands: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let kernel = types();
    let btf = Arc::new(Btf::parse(kernel.bytes()).unwrap());
    let btf = Btf::parse_module(btf, module_types(&kernel).bytes()).unwrap();
    let mut symbols = Symbols::default();
    symbols.push(b"dummy_open", MODULE + 0x100, Kind::Text);
    symbols.push(b"dummy_data", MODULE + 0x9000, Kind::Data);
    symbols.seal();
    let memory = [MODULE..MODULE + 0x1000, MODULE + 0x4000..MODULE + 0x5000];
    let known = Code {
        name: "dummy.ko",
        memory: Some(&memory),
        ..code(&symbols)
    };
    let part = |range: &std::ops::Range<u64>, kind: usize| Part {
        kind: KINDS[kind],
        start: range.start,
        len: range.end - range.start,
    };
    let module = Module {
        parts: vec![part(&memory[0], 0), part(&memory[1], 4)],
        ..Module::default()
    };
    let debug = info(&btf, &known).unwrap();
    let size: usize = debug.iter().map(|section| section.data.len()).sum();
    assert!(size < 0x400, "{size:#x} bytes");
    let file = synthetic::module(&module, &symbols, &debug).unwrap();
    std::fs::write(dir.path().join("dummy.ko"), file).unwrap();
    let load = format!("add-symbol-file {}", dir.path().join("dummy.ko").display());
    let commands = [&["set confirm off", &load[..]], commands].concat();
    output(&described(&kernel), &commands)
}

#[test]
fn a_modules_types_are_those_of_the_kernel_and_its_own() {
    let text = module_output(&[
        "ptype /o struct dummy",
        "ptype ((struct dummy *)0)->task",
        "whatis dummy_open",
        "info scope dummy_open",
        "info symbol dummy_open",
    ]);
    for line in [
        "int low : 3;",
        "/*     16      |       8 */    const struct task_struct *task;",
        // Found by its name.
        "    char comm[16];",
        "type = int (struct dummy *)",
        "  Range 0xffffffffc0000100-0xffffffffc0000105: a variable in $rdi",
        "dummy_open in section .text",
    ] {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }
}

#[test]
fn frames_are_as_the_rows_say() {
    let call = |sp, bp| Rule::Call(Place::At(Base::Sp, sp), bp);
    let rows = [
        (0x100, call(8, Bp::Unchanged)),
        (0x101, call(16, Bp::AtPlace(-16))),
        (0x200, Rule::Call(Place::BehindSp(8), Bp::Unchanged)),
        (0x210, Rule::Registers(Place::At(Base::Sp, 0))),
        (0x220, Rule::Exception(Place::At(Base::Sp, 8))),
        (0x230, Rule::End),
        (0x240, Rule::Unknown),
        (0x250, call(9, Bp::Unchanged)),
        (0x260, Rule::Unknown),
    ];
    let rows = rows.map(|(at, rule)| Row {
        addr: BASE + at,
        rule,
    });
    let frames = frames(&rows).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("frames");
    let file = synthetic::kernel(&symbols(), BASE, &[frames]).unwrap();
    std::fs::write(&path, file).unwrap();
    let mut readelf = Command::new("readelf");
    let output = readelf
        .arg("--debug-dump=frames-interp")
        .arg(&path)
        .output();
    let output = output.expect("readelf is not installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in [
        "FDE cie=00000000 pc=ffffffff81000100..ffffffff81000210",
        "ffffffff81000101 rsp+16   u     u     u     u     u     u     c-16",
        "ffffffff81000200 exp ",
        "pc=ffffffff81000210..ffffffff81000220",
        "pc=ffffffff81000220..ffffffff81000230",
        "pc=ffffffff81000230..ffffffff81000240",
    ] {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }
    assert_eq!(text.matches("FDE").count(), 4, "{text}");
    assert_eq!(text.matches("\"zS\"").count(), 2, "{text}");
}

#[test]
fn types_that_are_made_of_themselves_are_void() {
    let mut types = types();
    // Numbers of the types to come.
    types.typedef("first_t", 19);
    let second = types.typedef("second_t", 18);
    let looped = types.array(second, 2);
    types.structure("around", 8, &[("looped", looped, 0), ("self", 22, 0)]);
    types.of(2, 22);
    let text = output(&described(&types), &["ptype struct around", "whatis look"]);
    assert!(text.contains("void looped;"), "{text}");
    assert!(text.contains("type = long ("), "{text}");
}

#[test]
fn names_that_are_none_are_left_out() {
    let mut types = types();
    let int = types.int("int", 4);
    types.structure("plain", 8, &[("good", int, 0), ("\x1b[31m", int, 4)]);
    let text = output(&described(&types), &["ptype struct plain"]);
    assert!(text.contains("int good;\n"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

proptest! {
    #[test]
    fn any_damage_is_borne(damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..20)) {
        let mut bytes = types().bytes();
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Some(btf) = Btf::parse(bytes) {
            let _ = info(&btf, &code(&symbols()));
        }
    }

    #[test]
    fn any_damage_of_a_modules_is_borne(
        damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..20)
    ) {
        let kernel = types();
        let mut bytes = module_types(&kernel).bytes();
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let kernel = Arc::new(Btf::parse(kernel.bytes()).unwrap());
        if let Some(btf) = Btf::parse_module(kernel, bytes) {
            let _ = info(&btf, &code(&symbols()));
        }
    }

    #[test]
    fn any_rows_are_borne(rows in prop::collection::vec(any::<(u64, u8, i16, i16)>(), 0..200)) {
        let mut rows: Vec<Row> = rows.into_iter().map(|(addr, kind, sp, bp)| {
            let place = match kind % 3 {
                0 => Place::At(Base::Bp, sp),
                1 => Place::BehindBp(sp),
                _ => Place::BehindSp(sp),
            };
            let rule = match kind / 3 % 5 {
                0 => Rule::Call(place, Bp::AtPlace(bp)),
                1 => Rule::Call(place, Bp::AtItself(bp)),
                2 => Rule::Registers(place),
                3 => Rule::End,
                _ => Rule::Unknown,
            };
            Row { addr, rule }
        }).collect();
        rows.sort_by_key(|row| row.addr);
        prop_assert!(frames(&rows).is_ok());
    }
}
