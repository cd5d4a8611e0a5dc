//! Kernels of every form start and reach their end.

use std::path::{Path, PathBuf};

use tests::vmm::Vmm;
use tests::{guest, scratch};

#[test]
fn pvh_guest_prints_and_powers_off() {
    let vmm = Vmm::new(guest::bare("hello")).cmdline("a=1 b=two").run(0);
    assert_eq!(vmm.console(), "hello from bare metal\ncmdline: a=1 b=two\n");
}

#[test]
fn elf_without_pvh_note_starts_by_the_64_bit_protocol() {
    let dir = scratch();
    let kernel = without_notes(&guest::bare("hello"), dir.path());
    let vmm = Vmm::new(kernel).cmdline("by the zero page").run(0);
    assert_eq!(
        vmm.console(),
        "hello from bare metal\ncmdline: by the zero page\n"
    );
}

/// A copy of an ELF file whose PT_NOTE segments are PT_NULL.
fn without_notes(elf: &Path, dir: &Path) -> PathBuf {
    const PT_NOTE: [u8; 4] = [4, 0, 0, 0];
    let mut bytes = std::fs::read(elf).unwrap();
    let table = u64::from_le_bytes(bytes[32..40].try_into().unwrap()) as usize;
    let count = u16::from_le_bytes(bytes[56..58].try_into().unwrap()) as usize;
    let mut notes = 0;
    for segment in bytes[table..].chunks_exact_mut(56).take(count) {
        if segment[..4] == PT_NOTE {
            segment[..4].fill(0);
            notes += 1;
        }
    }
    assert!(notes > 0, "the guest has a PVH note to remove");
    let copy = dir.join("no-note.elf");
    std::fs::write(&copy, bytes).unwrap();
    copy
}

#[test]
fn every_vcpu_starts() {
    for cpus in [1, 2, 4, 16] {
        let vmm = Vmm::new(guest::bare("smp"))
            .cmdline("rounds=50")
            .cpus(cpus)
            .run(0);
        let total = 50 * cpus;
        let expected = format!("smp: ok cpus={cpus} shared={total} sum={total}");
        assert!(
            vmm.console().contains(&expected),
            "{}",
            vmm.process.transcript()
        );
    }
}

#[test]
fn smallest_and_large_memory_boot() {
    // 5 GiB lie on both sides of the MMIO hole; untouched pages cost nothing.
    for size in ["32M", "5G"] {
        Vmm::new(guest::bare("hello")).arg("--memory", size).run(0);
    }
}

#[test]
fn timer_interrupts_arrive() {
    for source in ["lapic", "pit"] {
        let vmm = Vmm::new(guest::bare("timer"))
            .cmdline(&format!("source={source} ticks=5"))
            .run(0);
        assert!(
            vmm.console().contains("timer: ok ticks=5 "),
            "{}",
            vmm.process.transcript()
        );
        assert!(
            vmm.console().contains("derailed=0 strange=0"),
            "{}",
            vmm.process.transcript()
        );
    }
}

#[test]
fn configuration_file_gives_the_same_machine() {
    let dir = scratch();
    let file = dir.path().join("vm.toml");
    let kernel = guest::bare("smp");
    let text = format!(
        "kernel = \"{}\"\nmemory = \"128M\"\ncpus = 2\ncmdline = \"rounds=10\"\n",
        kernel.display()
    );
    std::fs::write(&file, text).unwrap();
    let vmm = Vmm::new(&kernel).arg("--config", &file).run(0);
    assert!(
        vmm.console().contains("smp: ok cpus=2 shared=20 sum=20"),
        "{}",
        vmm.console()
    );
}
