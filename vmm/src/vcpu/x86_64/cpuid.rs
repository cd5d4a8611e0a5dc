//! What the guest reads by CPUID: the host's leaves with this machine's topology.
//!
//! One package, one thread a core, `cpus` cores; APIC ID equals vCPU index
//! (SDM volume 2, CPUID; volume 3, 10.9.1; AMD APM volume 3, appendix E).

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};
use kvm_ioctls::Kvm;

use crate::kvm::{Error, failed};

/// What every vCPU's CPUID is made from.
pub fn supported(kvm: &Kvm) -> Result<CpuId, Error> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(failed("KVM_GET_SUPPORTED_CPUID"))
}

/// The leaves of vCPU `index` of `cpus`.
pub fn for_vcpu(supported: &CpuId, index: u8, cpus: u8) -> Result<CpuId, Error> {
    let mut entries: Vec<_> = supported
        .as_slice()
        .iter()
        .copied()
        .filter(|entry| !is_extended_topology(entry.function))
        .collect();
    let has_leaf_b = supported
        .as_slice()
        .iter()
        .any(|entry| entry.function == 0xb);
    for entry in &mut entries {
        set_topology(entry, index, cpus);
    }
    if has_leaf_b {
        entries.extend(extended_topology(index, cpus));
    }
    CpuId::from_entries(&entries)
        .map_err(|error| std::io::Error::other(format!("{error:?}")))
        .map_err(failed("building the CPUID table"))
}

/// Leaves 0xb (extended topology) and 0x1f (the same with more levels).
fn is_extended_topology(function: u32) -> bool {
    matches!(function, 0xb | 0x1f)
}

fn set_topology(entry: &mut kvm_cpuid_entry2, index: u8, cpus: u8) {
    match entry.function {
        0x1 => {
            const HYPERVISOR: u32 = 1 << 31;
            const HTT: u32 = 1 << 28;
            entry.ebx = (entry.ebx & 0xffff) | u32::from(cpus) << 16 | u32::from(index) << 24;
            entry.ecx |= HYPERVISOR;
            entry.edx = if cpus > 1 {
                entry.edx | HTT
            } else {
                entry.edx & !HTT
            };
        }
        // Deterministic cache parameters: levels 1 and 2 are a core's own,
        // level 3 is shared by the package. Both counts are minus one.
        0x4 if entry.eax & 0x1f != 0 => {
            let level = (entry.eax >> 5) & 0x7;
            let sharing = if level >= 3 {
                cpus.next_power_of_two() - 1
            } else {
                0
            };
            let cores = cpus.next_power_of_two() - 1;
            entry.eax = (entry.eax & 0x3fff) | u32::from(sharing) << 14 | u32::from(cores) << 26;
        }
        // AMD: core count minus one and width of the core number in the APIC ID.
        0x8000_0008 => {
            entry.ecx = u32::from(cpus - 1) | core_bits(cpus) << 12;
        }
        // AMD: cache properties, counts of sharers minus one.
        0x8000_001d if entry.eax & 0x1f != 0 => {
            let level = (entry.eax >> 5) & 0x7;
            let sharing = if level >= 3 { cpus - 1 } else { 0 };
            entry.eax = (entry.eax & !(0xfff << 14)) | u32::from(sharing) << 14;
        }
        // AMD: extended APIC ID, one thread a core, one node.
        0x8000_001e => {
            entry.eax = index.into();
            entry.ebx = index.into();
            entry.ecx = 0;
        }
        _ => {}
    }
}

/// Bits of the APIC ID that number the core.
fn core_bits(cpus: u8) -> u32 {
    cpus.next_power_of_two().trailing_zeros()
}

/// Leaf 0xb: a thread level and a core level.
fn extended_topology(index: u8, cpus: u8) -> [kvm_cpuid_entry2; 3] {
    const LEVEL_SMT: u32 = 1;
    const LEVEL_CORE: u32 = 2;
    let level = |level: u32, shift: u32, count: u32, kind: u32| kvm_cpuid_entry2 {
        function: 0xb,
        index: level,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: level | kind << 8,
        edx: index.into(),
        ..Default::default()
    };
    [
        level(0, 0, 1, LEVEL_SMT),
        level(1, core_bits(cpus), cpus.into(), LEVEL_CORE),
        level(2, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> CpuId {
        let leaf = |function, eax| kvm_cpuid_entry2 {
            function,
            eax,
            ..Default::default()
        };
        let entries = [
            leaf(0, 0xd),
            leaf(1, 0),
            leaf(4, 0x21),
            leaf(4, 0x61),
            leaf(0xb, 9),
            leaf(0xd, 7),
        ];
        CpuId::from_entries(&entries).unwrap()
    }

    fn find(cpuid: &CpuId, function: u32) -> Vec<kvm_cpuid_entry2> {
        cpuid
            .as_slice()
            .iter()
            .copied()
            .filter(|e| e.function == function)
            .collect()
    }

    #[test]
    fn each_vcpu_has_its_own_apic_id() {
        for index in [0, 3] {
            let cpuid = for_vcpu(&host(), index, 4).unwrap();
            let leaf1 = find(&cpuid, 1)[0];
            assert_eq!(leaf1.ebx >> 24, u32::from(index));
            assert_eq!((leaf1.ebx >> 16) & 0xff, 4);
            assert!(
                find(&cpuid, 0xb)
                    .iter()
                    .all(|leaf| leaf.edx == u32::from(index))
            );
        }
    }

    #[test]
    fn core_level_covers_all_vcpus() {
        for (cpus, shift) in [(1, 0), (2, 1), (3, 2), (4, 2), (64, 6)] {
            let leaves = find(&for_vcpu(&host(), 0, cpus).unwrap(), 0xb);
            assert_eq!(leaves.len(), 3, "the host's own levels are replaced");
            assert_eq!((leaves[1].eax, leaves[1].ebx), (shift, u32::from(cpus)));
        }
    }

    #[test]
    fn only_the_last_cache_level_is_shared() {
        let leaves = find(&for_vcpu(&host(), 0, 4).unwrap(), 4);
        assert_eq!((leaves[0].eax >> 14) & 0xfff, 0);
        assert_eq!((leaves[1].eax >> 14) & 0xfff, 3);
    }

    #[test]
    fn other_leaves_are_the_hosts() {
        assert_eq!(find(&for_vcpu(&host(), 0, 4).unwrap(), 0xd)[0].eax, 7);
    }
}
