use std::sync::Arc;

use super::*;
use crate::memory;

const PHYS_BASE: u64 = 0x40_0000;
const TEXT: u64 = IMAGE_MAP + 0x100_0000;
const TABLES: u64 = IMAGE_MAP + 0x180_0000;
const DIRECT: u64 = DIRECT_MAP + 5 * DIRECT_MAP_STEP;
const PRESENT: u64 = 3;
const LARGE: u64 = 1 << 7;

fn put(memory: &GuestMemory, at: u64, entry: u64) {
    memory.write_obj(entry, GuestAddress(at)).unwrap();
}

/// Where entry n of a table of `level` that translates `addr` is.
fn slot(table: u64, level: u32, addr: u64) -> u64 {
    table + (addr >> (12 + 9 * (level - 1)) & 511) * 8
}

/// Page tables at `root`, with two large pages of the image, a hole and another one, and the
/// direct map.
fn map(memory: &GuestMemory, root: u64) {
    let [image_1g, image_2m, direct_1g, direct_2m] = [1, 2, 3, 4].map(|n| root + n * 0x1000);
    put(memory, slot(root, 4, TEXT), image_1g | PRESENT);
    put(memory, slot(image_1g, 3, TEXT), image_2m | PRESENT);
    for page in [0, 1, 3] {
        let addr = TEXT + (page << 21);
        let phys = addr - IMAGE_MAP + PHYS_BASE;
        put(memory, slot(image_2m, 2, addr), phys | PRESENT | LARGE);
    }
    put(memory, slot(root, 4, DIRECT), direct_1g | PRESENT);
    put(memory, slot(direct_1g, 3, DIRECT), direct_2m | PRESENT);
    put(memory, slot(direct_2m, 2, DIRECT), PRESENT | LARGE);
}

fn vmcoreinfo(release: &str, phys_base: u64) -> String {
    format!(
        "OSRELEASE={release}\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ffffffff8260b860\n\
         SYMBOL(swapper_pg_dir)={TABLES:x}\nSYMBOL(_stext)={TEXT:x}\n\
         NUMBER(phys_base)={}\nNUMBER(pgtable_l5_enabled)=0\nKERNELOFFSET=0\n",
        phys_base as i64
    )
}

fn put_note(memory: &GuestMemory, at: u64, text: &str) {
    let sizes = [NAME.len() as u32, text.len() as u32, 0].map(u32::to_le_bytes);
    let note = [&sizes.concat(), &NAME[..], b"\0", text.as_bytes()].concat();
    memory.write_slice(&note, GuestAddress(at)).unwrap();
}

fn machine() -> Arc<GuestMemory> {
    let memory = memory::allocate(64 << 20).unwrap();
    map(&memory, TABLES - IMAGE_MAP + PHYS_BASE);
    memory
}

#[test]
fn a_kernel_is_found_by_the_note_that_its_page_tables_confirm() {
    let memory = machine();
    // What an earlier kernel has left, and what only looks like a note.
    put_note(&memory, 0x20_0000, &vmcoreinfo("old", 0x60_0000));
    put_note(&memory, 0x21_0000, "nothing that a kernel says");
    put_note(&memory, 0x30_0000, &vmcoreinfo("new", PHYS_BASE));
    let kernel = Kernel::find(&memory, &[]).unwrap();
    let expected = Kernel {
        vmcoreinfo: vmcoreinfo("new", PHYS_BASE).into(),
        image: Image {
            virt: TEXT,
            phys: TEXT - IMAGE_MAP + PHYS_BASE,
            len: 4 << 21,
        },
        direct_map: Some(DIRECT),
    };
    assert_eq!(kernel, expected);
}

#[test]
fn the_kernel_that_a_vcpu_has_in_its_page_tables_is_the_one() {
    let memory = machine();
    // Another whole one, whose image is elsewhere.
    let other = 0x80_0000_u64.wrapping_sub(TABLES - IMAGE_MAP);
    let root = 0x80_0000;
    let [image_1g, image_2m] = [1, 2].map(|n| root + n * 0x1000);
    put(&memory, slot(root, 4, TEXT), image_1g | PRESENT);
    put(&memory, slot(image_1g, 3, TEXT), image_2m | PRESENT);
    let phys = (TEXT - IMAGE_MAP).wrapping_add(other) & 0xf_ffff_ffff_f000;
    assert_eq!(phys % (2 << 20), 0);
    put(&memory, slot(image_2m, 2, TEXT), phys | PRESENT | LARGE);
    put_note(&memory, 0x20_0000, &vmcoreinfo("other", other));
    put_note(&memory, 0x30_0000, &vmcoreinfo("mine", PHYS_BASE));
    let vcpu = Registers {
        cr0: 1 << 31 | 1,
        cr3: TABLES - IMAGE_MAP + PHYS_BASE,
        cr4: 1 << 5,
        efer: 1 << 10 | 1 << 8,
        ..Registers::default()
    };
    let release = |registers: &[Registers]| {
        let kernel = Kernel::find(&memory, registers).unwrap();
        String::from_utf8(kernel.vmcoreinfo).unwrap()
    };
    assert!(release(&[vcpu]).starts_with("OSRELEASE=mine\n"));
    assert!(release(&[]).starts_with("OSRELEASE=other\n"));
}

#[test]
fn a_machine_without_linux_has_no_kernel() {
    let memory = memory::allocate(memory::MIN_SIZE).unwrap();
    assert_eq!(Kernel::find(&memory, &[Registers::default()]), None);
    // Sizes and values that cannot be.
    for text in [
        "SYMBOL(swapper_pg_dir)=zz\n",
        "SYMBOL(swapper_pg_dir)=ffffffffffffffff\nSYMBOL(_stext)=ffffffffffffffff\nNUMBER(phys_base)=-1\n",
        "\u{0}\u{ff}",
    ] {
        put_note(&memory, 0x1000, text);
        assert_eq!(Kernel::find(&memory, &[]), None, "{text:?}");
    }
    memory.write_obj(u32::MAX, GuestAddress(0x1004)).unwrap();
    assert_eq!(Kernel::find(&memory, &[]), None);
}
