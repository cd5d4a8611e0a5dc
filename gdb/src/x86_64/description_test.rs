use super::*;

const SETS: [VectorSet; 3] = [VectorSet::Sse, VectorSet::Avx, VectorSet::Avx512];

fn all() -> impl Iterator<Item = Description> {
    SETS.into_iter()
        .flat_map(|set| Architecture::ALL.map(|architecture| Description { architecture, set }))
}

/// The value of `attribute` in the XML element that `line` holds.
fn attribute<'a>(line: &'a str, attribute: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!("{attribute}=\"")).unwrap();
    rest.split_once('"').unwrap().0
}

#[test]
fn the_description_and_the_layout_agree() {
    let counts = [50, 50, 66, 58, 58, 82, 74, 74, 154];
    for (description, count) in all().zip(counts) {
        let described: Vec<_> = description
            .xml()
            .lines()
            .filter(|line| line.trim_start().starts_with("<reg "))
            .map(|line| {
                let bits: usize = attribute(line, "bitsize").parse().unwrap();
                (attribute(line, "name").to_owned(), bits / 8)
            })
            .collect();
        let registers = description.registers();
        let encoded = registers
            .iter()
            .map(|&r| (description.name(r), description.size(r)));
        assert_eq!(described, encoded.collect::<Vec<_>>(), "{description:?}");
        assert_eq!(described.len(), count, "{description:?}");
        for (number, &register) in registers.iter().enumerate() {
            assert_eq!(description.number(register), Some(number));
            assert_eq!(description.register(number), Some(register));
        }
        assert_eq!(description.register(count), None);
    }
}

#[test]
fn code_is_of_the_size_that_its_segment_says() {
    let mut registers = Registers::default();
    assert_eq!(Architecture::of(&registers), Architecture::I8086);
    registers.cs.big = true;
    assert_eq!(Architecture::of(&registers), Architecture::I386);
    registers.efer = super::super::efer::LMA;
    assert_eq!(
        Architecture::of(&registers),
        Architecture::I386,
        "compatibility mode"
    );
    registers.cs.long = true;
    assert_eq!(Architecture::of(&registers), Architecture::X86_64);
}

#[test]
fn the_lower_half_is_seen_and_the_upper_stays() {
    let i386 = Description {
        architecture: Architecture::I386,
        set: VectorSet::Sse,
    };
    let mut registers = Registers::blank();
    registers.gpr[3] = 0x1122_3344_5566_7788;
    registers.rip = 0xffff_ffff_8100_0000;
    let edx = i386.register(2).unwrap();
    assert_eq!(i386.name(edx), "edx");
    assert_eq!(i386.bytes(edx, &registers), [0x88, 0x77, 0x66, 0x55]);
    i386.set_bytes(edx, &mut registers, &[1, 0, 0, 0]).unwrap();
    assert_eq!(registers.gpr[3], 0x1122_3344_0000_0001);
    let eip = i386.register(8).unwrap();
    assert_eq!(i386.name(eip), "eip");
    i386.set_bytes(eip, &mut registers, &[4, 0, 0, 0x81])
        .unwrap();
    assert_eq!(registers.rip, 0xffff_ffff_8100_0004);
    let size = i386.set_bytes(eip, &mut registers, &[0; 8]);
    assert_eq!(size, Err(WriteError::Size { size: 4, found: 8 }));
}

#[test]
fn all_registers_survive_the_g_packet_of_each_description() {
    use crate::x86_64::Served;
    use gdbstub::arch::Registers as _;
    for description in all() {
        let mut registers = Registers::blank();
        registers.vectors.set = description.set;
        for (n, part) in VectorPart::all(description.set).into_iter().enumerate() {
            part.bytes_mut(&mut registers.vectors).fill(n as u8 + 1);
        }
        registers.gpr[3] = 7;
        let mut bytes = Vec::new();
        let served = Served::new(description, &registers, None);
        served.gdb_serialize(|byte| bytes.push(byte.unwrap()));
        let mut sent = Served::default();
        sent.gdb_deserialize(&bytes).unwrap();
        assert_eq!(sent, served);
        bytes = sent.bytes().unwrap();
        let mut read = Registers::blank();
        read.vectors.set = description.set;
        for (register, value) in description.split(&bytes).unwrap() {
            description.set_bytes(register, &mut read, value).unwrap();
        }
        for register in description.registers() {
            assert_eq!(register.bytes(&read), register.bytes(&registers));
        }
        let rdx = Register::Gpr(3);
        let served = Served::new(description, &registers, Some(&[rdx]));
        let known = served.0.iter().flatten().count();
        assert_eq!(
            known,
            description.size(rdx),
            "the others are sent as unknown"
        );
        bytes.pop();
        assert!(description.split(&bytes).is_none());
    }
}
