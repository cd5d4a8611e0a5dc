//! The processor as Linux finds it, by CPUID, by MSRs and in the kernel's own words.

use tests::guest;
use tests::vmm::Running;

use crate::machine::{linux, run};

/// The guest's CPUID leaf, as EAX, EBX, ECX and EDX.
fn leaf(vmm: &Running, cpu: u32, leaf: &str) -> [u32; 4] {
    let value = vmm.guest_value(&format!("cpu{cpu}-{leaf}"));
    let words = value.split(' ');
    let words: Vec<_> = words
        .map(|word| u32::from_str_radix(word, 16).unwrap())
        .collect();
    words.try_into().unwrap()
}

fn msr(vmm: &Running, cpu: u32, index: &str) -> Option<u64> {
    let value = vmm.guest_value(&format!("cpu{cpu}-msr-{index}"));
    u64::from_str_radix(&value, 16).ok()
}

/// Lines of the kernel's log that the guest has picked out.
fn log(vmm: &Running) -> Vec<String> {
    // Of the memory map, which every machine has.
    const HOLES: &str = "pages in unavailable ranges";
    let console = vmm.console();
    let lines = console.lines();
    let picked = lines.filter_map(|line| line.strip_prefix("outboard-guest: log="));
    let picked = picked.filter(|line| !line.contains(HOLES));
    picked.map(str::to_owned).collect()
}

/// A stock kernel, because it has the drivers that look at all of these.
#[test]
fn linux_misses_nothing_of_its_processor() {
    const MTRRS_ENABLED_WRITE_BACK: u64 = 0x806;
    const FAST_STRINGS: u64 = 1;
    let guest = guest::stock_linux();
    let vmm = run(linux(&guest.bzimage, &guest, "outboard.run=processor").cpus(2));
    let is_amd = vmm.guest_value("vendor_id") == "AuthenticAMD";
    for cpu in [0, 1] {
        assert_eq!(msr(&vmm, cpu, "0x2ff"), Some(MTRRS_ENABLED_WRITE_BACK));
        if !is_amd {
            let value = msr(&vmm, cpu, "0x1a0").unwrap();
            assert_eq!(value & FAST_STRINGS, FAST_STRINGS, "{value:#x}");
        }
        let [_, ebx, ..] = leaf(&vmm, cpu, "0x1");
        assert_eq!(ebx >> 24, cpu, "the APIC ID");
        assert_eq!(leaf(&vmm, cpu, "0x8000001f"), [0; 4], "memory encryption");
        assert_eq!(leaf(&vmm, cpu, "0x80000026"), [0; 4], "the host's topology");
    }
    let name = vmm.guest_value("model");
    let host = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    assert!(
        host.contains(&format!("model name\t: {name}\n")),
        "{name:?}"
    );
    let flags = vmm.guest_value("flags");
    let has = |flag| flags.split(' ').any(|found| found == flag);
    assert!(has("tsc_deadline_timer"), "{flags}");
    assert!(has("mtrr") && has("pat"), "{flags}");
    let log = log(&vmm);
    let says = |words: &str| log.iter().any(|line| line.contains(words));
    assert!(says("TSC deadline timer available"), "{log:#?}");
    for complaint in ["Disabled", "skipping", "unavailable", "Firmware Bug"] {
        assert!(!says(complaint), "{log:#?}");
    }
}
