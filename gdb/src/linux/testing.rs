//! Kernels for tests: symbol tables and page tables as Linux makes them.

use std::sync::Arc;

use super::memory::{Guest, Snapshot};
use crate::arch::{Registers, cr0, cr4, efer};
use crate::symbol_file::SymbolFile;
use crate::target::{PhysAddr, SharedMemory, TargetError};

/// A kernel's symbols: address, type as in nm(1), name.
pub type Sym<'a> = (u64, char, &'a str);

/// The order of the tables in memory.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Up to Linux 4.19: as the next, with markers of 8 bytes.
    WideMarkers,
    /// Up to Linux 6.3.
    AddressesFirst,
    /// From Linux 6.4 on.
    AddressesLast,
}

/// How addresses are encoded.
#[derive(Clone, Copy, Debug)]
pub enum Encoding {
    /// CONFIG_KALLSYMS_ABSOLUTE_PERCPU.
    AbsolutePercpu,
    Unsigned,
    /// No offsets but whole addresses, and no base.
    Whole,
    /// Signed, each from its own place, in tables that begin at this address and
    /// are aligned to 4 bytes. There is no base.
    FromPlace(u64),
}

/// Tokens of more than one character, by number.
const LONG: [(u8, &str); 3] = [(1, "do_"), (2, "sys_"), (0x80, "T_")];

/// What scripts/kallsyms makes of `symbols`, which are sorted by address.
pub fn kallsyms(symbols: &[Sym<'_>], base: u64, order: Order, encoding: Encoding) -> Vec<u8> {
    let align = match encoding {
        Encoding::FromPlace(_) => 4,
        _ => 8,
    };
    let mut num = (symbols.len() as u32).to_le_bytes().to_vec();
    let (mut names, mut markers) = (Vec::new(), Vec::new());
    for (n, (_, kind, name)) in symbols.iter().enumerate() {
        if n % 256 == 0 {
            let width = if matches!(order, Order::WideMarkers) {
                8
            } else {
                4
            };
            markers.extend(&(names.len() as u64).to_le_bytes()[..width]);
        }
        let tokens = compress(&format!("{kind}{name}"));
        match tokens.len() {
            len @ ..0x80 => names.push(len as u8),
            len => names.extend([(len & 0x7f) as u8 | 0x80, (len >> 7) as u8]),
        }
        names.extend(tokens);
    }
    let (mut table, mut index) = (Vec::new(), Vec::new());
    for n in 0..=255u8 {
        index.extend((table.len() as u16).to_le_bytes());
        table.extend(token(n));
        table.push(0);
    }
    for part in [&mut num, &mut names, &mut markers, &mut table, &mut index] {
        part.resize(part.len().next_multiple_of(align), 0);
    }
    let tables = [num, names, markers, table, index].concat();
    let mut addresses: Vec<u8> = symbols
        .iter()
        .enumerate()
        .flat_map(|(n, (addr, ..))| {
            let place = (tables.len() + 4 * n) as u64;
            encode(*addr, base, place, encoding)
        })
        .collect();
    if !matches!(encoding, Encoding::FromPlace(_) | Encoding::Whole) {
        addresses.resize(addresses.len().next_multiple_of(align), 0);
        addresses.extend(base.to_le_bytes());
    }
    match order {
        Order::WideMarkers | Order::AddressesFirst => [addresses, tables].concat(),
        Order::AddressesLast => [tables, addresses].concat(),
    }
}

fn token(n: u8) -> Vec<u8> {
    let long = LONG.iter().find(|(number, _)| *number == n);
    match long {
        Some((_, text)) => text.as_bytes().to_vec(),
        None if n.is_ascii_graphic() => vec![n],
        None => Vec::new(),
    }
}

fn compress(mut name: &str) -> Vec<u8> {
    let mut tokens = Vec::new();
    while let Some(first) = name.bytes().next() {
        let long = LONG.iter().find(|(_, text)| name.starts_with(text));
        let (number, len) = long.map_or((first, 1), |(number, text)| (*number, text.len()));
        tokens.push(number);
        name = &name[len..];
    }
    tokens
}

/// `place` is the offset's own in the tables, where they end in addresses.
fn encode(addr: u64, base: u64, place: u64, encoding: Encoding) -> Vec<u8> {
    let offset = match encoding {
        Encoding::Whole => return addr.to_le_bytes().to_vec(),
        Encoding::FromPlace(tables) => addr.wrapping_sub(tables + place) as u32,
        Encoding::Unsigned => addr.wrapping_sub(base) as u32,
        Encoding::AbsolutePercpu if addr < base => addr as u32,
        Encoding::AbsolutePercpu => (-1 - (addr - base) as i64) as u32,
    };
    offset.to_le_bytes().to_vec()
}

/// A guest with one vCPU in 64-bit mode and page tables of 4 KiB pages.
pub struct Paged {
    pub ram: Vec<u8>,
    pub registers: Registers,
    next_table: u64,
}

/// Physical address of the first table; RAM below it is the test's.
pub const TABLES: u64 = 0x10_0000;

impl Paged {
    pub fn new() -> Self {
        let registers = Registers {
            cr0: cr0::PE | cr0::PG,
            cr3: TABLES,
            cr4: cr4::PAE,
            efer: efer::LME | efer::LMA,
            ..Registers::default()
        };
        Self {
            ram: vec![0; 0x20_0000],
            registers,
            next_table: TABLES + 0x1000,
        }
    }

    /// Maps the page at `addr` to the physical one, for the tables at `root`.
    pub fn map(&mut self, root: u64, addr: u64, phys: u64) {
        let mut table = root;
        for level in (1..4).rev() {
            let at = table + (addr >> (12 + 9 * level) & 0x1ff) * 8;
            let mut entry = self.word(at);
            if entry == 0 {
                entry = self.next_table | 3;
                self.next_table += 0x1000;
                self.write(at, &entry.to_le_bytes());
            }
            table = entry & !0xfff;
        }
        let at = table + (addr >> 12 & 0x1ff) * 8;
        self.write(at, &(phys | 3).to_le_bytes());
    }

    /// Puts `bytes` to physical memory and maps them, from a page border on.
    pub fn place(&mut self, addr: u64, phys: u64, bytes: &[u8]) {
        self.write(phys, bytes);
        for page in (0..bytes.len() as u64).step_by(0x1000) {
            self.map(TABLES, addr + page, phys + page);
        }
    }

    pub fn write(&mut self, phys: u64, bytes: &[u8]) {
        let phys = phys as usize;
        self.ram[phys..phys + bytes.len()].copy_from_slice(bytes);
    }

    fn word(&self, phys: u64) -> u64 {
        let phys = phys as usize;
        u64::from_le_bytes(self.ram[phys..phys + 8].try_into().unwrap())
    }
}

impl Guest for Paged {
    fn registers(&self) -> Vec<Option<Registers>> {
        vec![None, Some(self.registers)]
    }

    fn read_physical(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), TargetError> {
        read(&self.ram, addr, buf)
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            registers: Guest::registers(self),
            memory: Arc::new(Copied(self.ram.clone())),
        }
    }
}

fn read(ram: &[u8], addr: PhysAddr, buf: &mut [u8]) -> Result<(), TargetError> {
    let start = usize::try_from(addr.0).unwrap_or(usize::MAX);
    let bytes = start
        .checked_add(buf.len())
        .and_then(|end| ram.get(start..end));
    buf.copy_from_slice(bytes.ok_or(TargetError::NoRam(addr))?);
    Ok(())
}

/// RAM as it was.
struct Copied(Vec<u8>);

impl SharedMemory for Copied {
    fn read(&self, addr: PhysAddr, buf: &mut [u8]) -> Result<(), TargetError> {
        read(&self.0, addr, buf)
    }
}

/// Where the contents of [`vmlinux`]'s first segment are in the file.
pub const CONTENTS: usize = 0x1000;
/// Its headers of the per-CPU segment and section.
pub const PERCPU_SEGMENT: usize = 64 + 56;
pub const PERCPU_SECTION: usize = SECTIONS + 2 * 64;
const SECTIONS: usize = 0x400;

/// A vmlinux with `contents` at link address `base` and per-CPU data at 0.
pub fn vmlinux(base: u64, contents: &[u8], symbols: &[(u64, &str)]) -> Vec<u8> {
    let names = b"\0.text\0.data..percpu\0.symtab\0.strtab\0";
    let strtab = CONTENTS + contents.len() + 16;
    let mut strings = vec![0];
    let mut table = vec![0; 24];
    for (addr, name) in symbols {
        table.extend(words32(&[strings.len() as u32]));
        // STT_OBJECT, STB_GLOBAL, in section 1.
        table.extend([0x11, 0, 1, 0]);
        table.extend(words64(&[*addr, 0]));
        strings.extend(name.bytes().chain([0]));
    }
    let symtab = (strtab + strings.len()).next_multiple_of(8);
    let (text, percpu) = (contents.len() as u64, 16);
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    elf.extend(words64(&[base, 64, SECTIONS as u64]));
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 64, 0, 6, 0, 5, 0]);
    for (addr, offset, len) in [
        (base, CONTENTS, text),
        (0, CONTENTS + contents.len(), percpu),
    ] {
        elf.extend(words32(&[1, 7]));
        elf.extend(words64(&[offset as u64, addr, addr, len, len, 0x1000]));
    }
    elf.resize(0x300, 0);
    elf.extend(names);
    elf.resize(SECTIONS + 64, 0);
    let table_len = table.len() as u64;
    let sections = [
        (1, 1, 6, base, CONTENTS, text, 0, 0),
        (7, 1, 3, 0, CONTENTS + contents.len(), percpu, 0, 0),
        (21, 2, 0, 0, symtab, table_len, 4, 24),
        (29, 3, 0, 0, strtab, strings.len() as u64, 0, 0),
    ];
    for (name, kind, flags, addr, offset, len, link, entry) in sections {
        elf.extend(words32(&[name, kind]));
        elf.extend(words64(&[flags, addr, offset as u64, len]));
        elf.extend(words32(&[link, 0]));
        elf.extend(words64(&[1, entry]));
    }
    // The names of the sections.
    elf.extend(words32(&[0, 3]));
    elf.extend(words64(&[0, 0, 0x300, names.len() as u64]));
    elf.extend(words32(&[0, 0]));
    elf.extend(words64(&[1, 0]));
    elf.resize(CONTENTS, 0);
    elf.extend(contents);
    elf.resize(strtab, 0);
    elf.extend(strings);
    elf.resize(symtab, 0);
    elf.extend(table);
    elf
}

fn words32(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn words64(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Type information in the making. Types are numbered from 1.
pub struct Types {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
    /// Where the strings begin, behind a kernel's.
    first_string: u32,
}

impl Types {
    pub fn new() -> Self {
        Self {
            types: Vec::new(),
            strings: vec![0],
            count: 0,
            first_string: 0,
        }
    }

    /// A module's, which refer to these.
    pub fn of_module(kernel: &Self) -> Self {
        Self {
            types: Vec::new(),
            strings: Vec::new(),
            count: kernel.count,
            first_string: kernel.strings.len() as u32,
        }
    }

    fn add(&mut self, name: &str, info: u32, size: u32, rest: &[u32]) -> u32 {
        let name = self.string(name);
        self.types.extend(words32(&[name, info, size]));
        self.types.extend(words32(rest));
        self.count += 1;
        self.count
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.first_string + self.strings.len() as u32;
        self.strings.extend(text.bytes().chain([0]));
        at
    }

    pub fn int(&mut self, name: &str, size: u32) -> u32 {
        self.add(name, 1 << 24, size, &[8 * size])
    }

    pub fn array(&mut self, of: u32, count: u32) -> u32 {
        self.add("", 3 << 24, 0, &[of, of, count])
    }

    pub fn typedef(&mut self, name: &str, to: u32) -> u32 {
        self.add(name, 8 << 24, to, &[])
    }

    /// Members are name, type and offset in bytes.
    pub fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let rest: Vec<u32> = members
            .iter()
            .flat_map(|(name, number, offset)| [self.string(name), *number, 8 * offset])
            .collect();
        self.add(name, 4 << 24 | members.len() as u32, size, &rest)
    }

    /// Members are name, type, and offset and width in bits; the width is 0 of what is
    /// no bit-field.
    pub fn bit_fields(&mut self, name: &str, size: u32, members: &[(&str, u32, u32, u32)]) -> u32 {
        let rest: Vec<u32> = members
            .iter()
            .flat_map(|(name, number, offset, bits)| {
                [self.string(name), *number, bits << 24 | offset]
            })
            .collect();
        self.add(name, 1 << 31 | 4 << 24 | members.len() as u32, size, &rest)
    }

    /// A type of this kind that consists of another: 2 is a pointer, 10 `const`.
    pub fn of(&mut self, kind: u32, of: u32) -> u32 {
        self.add("", kind << 24, of, &[])
    }

    /// With signed values of 32 bits.
    pub fn signed_enum(&mut self, name: &str, values: &[(&str, i32)]) -> u32 {
        let rest: Vec<u32> = values
            .iter()
            .flat_map(|(name, value)| [self.string(name), *value as u32])
            .collect();
        self.add(name, 1 << 31 | 6 << 24 | values.len() as u32, 4, &rest)
    }

    /// With unsigned values of 64 bits.
    pub fn enum64(&mut self, name: &str, values: &[(&str, u64)]) -> u32 {
        let rest: Vec<u32> = values
            .iter()
            .flat_map(|(name, value)| [self.string(name), *value as u32, (*value >> 32) as u32])
            .collect();
        self.add(name, 19 << 24 | values.len() as u32, 8, &rest)
    }

    /// Parameters are name and type; one without either is `...`.
    pub fn function(&mut self, name: &str, result: u32, parameters: &[(&str, u32)]) -> u32 {
        let rest: Vec<u32> = parameters
            .iter()
            .flat_map(|(name, number)| [self.string(name), *number])
            .collect();
        let info = 13 << 24 | parameters.len() as u32;
        let prototype = self.add("", info, result, &rest);
        self.add(name, 12 << 24, prototype, &[])
    }

    pub fn variable(&mut self, name: &str, of: u32) -> u32 {
        self.add(name, 14 << 24, of, &[1])
    }

    pub fn bytes(&self) -> Vec<u8> {
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        bytes.extend(words32(&[24, 0, types, types, strings]));
        [&bytes[..], &self.types, &self.strings].concat()
    }
}

/// Where the image of [`Running`]'s kernel is.
pub const IMAGE: u64 = 0xffff_ffff_9000_0000;
/// Offset of a test's own data in it.
pub const DATA: u64 = 0x4000;
pub const IMAGE_PHYS: u64 = 0x1_0000;
const IMAGE_LEN: usize = 0x8000;
const LINKED: u64 = 0xffff_ffff_8100_0000;
const BANNER: &[u8] = b"Linux version 6.1 (test)\n\0";

/// A guest with a kernel that has been found.
pub struct Running {
    pub guest: Paged,
    pub file: Arc<SymbolFile>,
    pub kernel: super::Kernel,
}

impl Running {
    /// A kernel with these types and symbols, which are offsets in the image, or
    /// in the per-CPU area where they are below [`DATA`].
    pub fn new(types: &Types, symbols: &[(&str, u64)]) -> Self {
        let types = types.bytes();
        let mut contents = vec![0; IMAGE_LEN];
        contents[..BANNER.len()].copy_from_slice(BANNER);
        contents[0x1000..][..types.len()].copy_from_slice(&types);
        let mut all = vec![
            (LINKED, "linux_banner"),
            (LINKED + 0x1000, "__start_BTF"),
            (LINKED + 0x1000 + types.len() as u64, "__stop_BTF"),
        ];
        for &(name, at) in symbols {
            let place = if at < DATA { at } else { LINKED + at };
            all.push((place, name));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinux");
        std::fs::write(&path, vmlinux(LINKED, &contents, &all)).unwrap();
        let file = Arc::new(SymbolFile::open(&path).unwrap());
        let mut guest = Paged::new();
        guest.place(IMAGE, IMAGE_PHYS, &contents);
        let kernel = super::locate::kernel(&guest, Some(&file)).unwrap();
        Self {
            guest,
            file,
            kernel,
        }
    }

    /// Writes words at an offset in the image.
    pub fn put(&mut self, at: u64, words: &[u64]) {
        self.guest.write(IMAGE_PHYS + at, &words64(words));
    }

    pub fn put_bytes(&mut self, at: u64, bytes: &[u8]) {
        self.guest.write(IMAGE_PHYS + at, bytes);
    }

    pub fn memory(&self) -> super::memory::Memory<'_> {
        self.kernel.memory(&self.guest)
    }
}

/// Addresses of [`isolated`]'s guest.
pub mod isolation {
    /// Where the kernel's image is.
    pub const IMAGE: u64 = 0xffff_ffff_8100_0000;
    pub const IMAGE_PHYS: u64 = 0x4000;
    pub const BANNER: &[u8] = b"Linux version 6.1 (isolated)\n\0";
    /// Code, and data behind it.
    pub const CODE: u64 = 0x800;
    pub const DATA: u64 = 0x900;
    /// A user program's page.
    pub const USER: u64 = 0x40_0000;
    pub const USER_PHYS: u64 = 0x6000;
    /// The first task's page tables.
    pub const TABLES: u64 = 0xa000;
    /// Those that a vCPU in user mode has.
    pub const USER_TABLES: u64 = 0x9000;
}

/// A kernel's file, and a guest under page-table isolation whose vCPU runs in user
/// mode: its page tables have nothing of the kernel.
pub fn isolated() -> (std::sync::Arc<crate::symbol_file::SymbolFile>, Paged) {
    isolated_at(isolation::IMAGE)
}

/// The same with the image at `base`, where KASLR may have moved it.
pub fn isolated_at(base: u64) -> (std::sync::Arc<crate::symbol_file::SymbolFile>, Paged) {
    use isolation::*;
    let mut contents = vec![0x90; 0x2000];
    contents[..BANNER.len()].copy_from_slice(BANNER);
    let symbols = [
        (IMAGE, "linux_banner"),
        (IMAGE + CODE, "do_work"),
        (IMAGE + 0x1000, "init_top_pgt"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmlinux");
    std::fs::write(&path, vmlinux(IMAGE, &contents, &symbols)).unwrap();
    let file = crate::symbol_file::SymbolFile::open(&path).unwrap();
    let mut guest = Paged::new();
    guest.write(IMAGE_PHYS, &contents);
    guest.write(USER_PHYS, &[0x90; 0x1000]);
    // The process's own tables of the kernel are one page below its user tables.
    for root in [TABLES, USER_TABLES - 0x1000] {
        guest.map(root, base, IMAGE_PHYS);
        guest.map(root, base + 0x1000, TABLES);
    }
    guest.map(USER_TABLES, USER, USER_PHYS);
    guest.registers.cr3 = USER_TABLES;
    guest.registers.cs.selector = 0x33;
    guest.registers.cs.long = true;
    guest.registers.rip = USER;
    (std::sync::Arc::new(file), guest)
}
