use super::*;

fn leaf(function: u32, eax: u32) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function,
        eax,
        ..Default::default()
    }
}

fn named(name: &[u8; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        ebx: u32::from_le_bytes(*name),
        ..leaf(0, 0xd)
    }
}

/// A host whose KVM has all that this machine asks for.
fn host(offered: impl Into<Vec<kvm_cpuid_entry2>>) -> CpuModel {
    let offered = offered.into();
    CpuModel {
        vendor: Vendor::of(&offered),
        offered,
        tsc_deadline: true,
        tsc_held: true,
    }
}

fn intel() -> CpuModel {
    let leaves = [
        named(b"Genu"),
        leaf(1, 0),
        leaf(4, 0x21),
        leaf(4, 0x61),
        leaf(0xb, 9),
        leaf(0xd, 7),
        leaf(0x1f, 9),
        leaf(0x8000_0008, 39),
    ];
    host(leaves)
}

fn amd() -> CpuModel {
    let leaves = [
        named(b"Auth"),
        leaf(1, 0),
        leaf(0x8000_0008, 48),
        leaf(0x8000_001d, 0x21),
        leaf(0x8000_001d, 0x61),
        leaf(0x8000_001e, 99),
    ];
    host(leaves)
}

fn find(cpuid: &Cpuid, function: u32) -> Vec<kvm_cpuid_entry2> {
    let leaves = cpuid.leaves().iter().copied();
    leaves.filter(|leaf| leaf.function == function).collect()
}

#[test]
fn each_vcpu_has_its_own_apic_id() {
    for index in [0, 3] {
        let cpuid = intel().for_vcpu(index, 4);
        let leaf1 = find(&cpuid, 1)[0];
        assert_eq!(leaf1.ebx >> 24, u32::from(index));
        assert_eq!((leaf1.ebx >> 16) & 0xff, 4);
        let own = |leaf: &kvm_cpuid_entry2| leaf.edx == u32::from(index);
        assert!(find(&cpuid, 0xb).iter().all(own));
        let cpuid = amd().for_vcpu(index, 4);
        assert_eq!(find(&cpuid, 0x8000_001e)[0].eax, u32::from(index));
    }
}

#[test]
fn core_level_covers_all_vcpus() {
    for (cpus, shift) in [(1, 0), (2, 1), (3, 2), (4, 2), (64, 6)] {
        let cpuid = intel().for_vcpu(0, cpus);
        let leaves = find(&cpuid, 0xb);
        assert_eq!(leaves.len(), 3, "the host's own levels are replaced");
        assert_eq!((leaves[1].eax, leaves[1].ebx), (shift, u32::from(cpus)));
        assert!(find(&cpuid, 0x1f).is_empty());
        let count = find(&amd().for_vcpu(0, cpus), 0x8000_0008)[0].ecx;
        assert_eq!(count, (u32::from(cpus) - 1) | (shift << 12));
    }
}

#[test]
fn only_the_last_cache_level_is_shared() {
    for (model, function) in [(intel(), 4), (amd(), 0x8000_001d)] {
        let leaves = find(&model.for_vcpu(0, 4), function);
        assert_eq!((leaves[0].eax >> 14) & 0xfff, 0);
        assert_eq!((leaves[1].eax >> 14) & 0xfff, 3);
    }
}

/// Everything that a leaf can have, in both subleaves that it may have.
fn full(function: u32) -> [kvm_cpuid_entry2; 2] {
    [0, 1].map(|index| kvm_cpuid_entry2 {
        function,
        index,
        eax: u32::MAX,
        ebx: u32::MAX,
        ecx: u32::MAX,
        edx: u32::MAX,
        ..Default::default()
    })
}

#[test]
fn there_is_no_nested_virtualisation() {
    const VMX: u32 = 1 << 5;
    const SVM: u32 = 1 << 2;
    for (vendor, function, bit) in [(b"Genu", 0x1, VMX), (b"Auth", 0x8000_0001, SVM)] {
        let leaves = [&[named(vendor)][..], &full(function), &full(0x8000_000a)].concat();
        let cpuid = host(leaves).for_vcpu(0, 1);
        let ecx = find(&cpuid, function)[0].ecx;
        assert_eq!(ecx & bit, 0);
        assert_eq!(ecx & !bit, !bit, "nothing else is gone");
        assert!(vendor == b"Genu" || find(&cpuid, 0x8000_000a).is_empty());
    }
}

#[test]
fn what_this_machine_has_no_use_for_is_not_there() {
    let model = |vendor, functions: &[u32]| {
        let mut leaves = vec![named(vendor)];
        functions
            .iter()
            .for_each(|function| leaves.extend(full(*function)));
        host(leaves).for_vcpu(0, 1)
    };
    let cpuid = model(b"Genu", &[0x7, 0x12, 0x1d, 0x1e]);
    let left = find(&cpuid, 0x7);
    assert_eq!(left[0].ebx, !(1 << 2), "SGX");
    assert_eq!(left[0].ecx, !(1 << 30), "SGX_LC");
    assert_eq!(left[0].edx, !(1 << 1 | 1 << 22 | 1 << 24 | 1 << 25), "AMX");
    assert_eq!((left[1].eax, left[1].edx), (!(1 << 21), !(1 << 8)), "AMX");
    assert!(
        [0x12, 0x1d, 0x1e]
            .iter()
            .all(|leaf| find(&cpuid, *leaf).is_empty())
    );
    let cpuid = model(b"Auth", &[0x7, 0x8000_001f, 0x8000_0026]);
    assert_eq!(find(&cpuid, 0x7)[0].edx, !(1 << 29), "ARCH_CAPABILITIES");
    for leaf in [0x8000_001f, 0x8000_0026] {
        assert!(find(&cpuid, leaf).is_empty(), "{leaf:#x}");
    }
}

#[test]
fn other_leaves_are_the_hosts() {
    let cpuid = intel().for_vcpu(0, 4);
    assert_eq!(find(&cpuid, 0xd)[0].eax, 7);
    // What only AMD has there.
    assert_eq!(find(&cpuid, 0x8000_0008)[0].ecx, 0);
}

#[test]
fn the_apic_timer_has_a_deadline_where_kvm_has_it() {
    const TSC_DEADLINE: u32 = 1 << 24;
    for tsc_deadline in [true, false] {
        let model = CpuModel {
            tsc_deadline,
            ..intel()
        };
        let ecx = find(&model.for_vcpu(0, 1), 1)[0].ecx;
        assert_eq!(ecx & TSC_DEADLINE != 0, tsc_deadline);
    }
}

#[test]
fn the_tsc_is_a_clock_where_it_can_be_held() {
    const INVARIANT_TSC: u32 = 1 << 8;
    let leaf = kvm_cpuid_entry2 {
        edx: INVARIANT_TSC,
        ..leaf(0x8000_0007, 0)
    };
    for tsc_held in [true, false] {
        let model = CpuModel {
            tsc_held,
            ..host([leaf])
        };
        let cpuid = model.for_vcpu(0, 1);
        assert_eq!(find(&cpuid, 0x8000_0007)[0].edx != 0, tsc_held);
        assert_eq!(cpuid.has_invariant_tsc(), tsc_held);
    }
    assert!(!host([]).for_vcpu(0, 1).has_invariant_tsc());
}

#[test]
fn the_width_of_addresses_is_the_hosts() {
    assert_eq!(intel().physical_bits(), 39);
    assert_eq!(host([]).physical_bits(), 36);
}

#[test]
fn a_leaf_is_listed_once() {
    for vendor in [Vendor::Intel, Vendor::Amd] {
        for list in [COMMON, vendor.list()] {
            assert!(list.is_sorted_by(|a, b| a.0 < b.0));
        }
    }
}
