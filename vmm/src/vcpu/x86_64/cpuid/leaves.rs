//! The lists' changes to a leaf.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use crate::vcpu::x86_64::instructions;

/// The vCPU whose leaves are made.
pub struct Place {
    pub index: u8,
    pub cpus: u8,
    /// The host's KVM has the APIC timer's TSC deadline mode.
    pub tsc_deadline: bool,
    /// The TSC stops while the vCPU is stopped.
    pub tsc_held: bool,
}

impl Place {
    /// Bits of the APIC ID that number the core.
    fn core_bits(&self) -> u32 {
        self.cpus.next_power_of_two().trailing_zeros()
    }
}

/// Sets or clears bit `bit`.
fn set(register: &mut u32, bit: u32, on: bool) {
    *register = *register & !(1 << bit) | u32::from(on) << bit;
}

/// Leaf 0x1.
pub fn features(leaf: &mut kvm_cpuid_entry2, place: &Place) {
    const ECX_TSC_DEADLINE: u32 = 24;
    const ECX_HYPERVISOR: u32 = 31;
    const EDX_MTRR: u32 = 12;
    const EDX_HTT: u32 = 28;
    leaf.ebx = leaf.ebx & 0xffff | u32::from(place.cpus) << 16 | u32::from(place.index) << 24;
    set(&mut leaf.ecx, ECX_TSC_DEADLINE, place.tsc_deadline);
    set(&mut leaf.ecx, ECX_HYPERVISOR, true);
    set(&mut leaf.edx, EDX_MTRR, true);
    // Without it a package has one processor, whatever EBX says.
    set(&mut leaf.edx, EDX_HTT, place.cpus > 1);
}

/// Leaf 0x1 of Intel.
pub fn without_vmx(leaf: &mut kvm_cpuid_entry2, _: &Place) {
    const ECX_VMX: u32 = 5;
    set(&mut leaf.ecx, ECX_VMX, false);
}

/// Leaf 0x7 of Intel.
pub fn without_sgx_and_amx(leaf: &mut kvm_cpuid_entry2, _: &Place) {
    const EBX_SGX: u32 = 2;
    const ECX_SGX_LC: u32 = 30;
    const EDX_SGX_KEYS: u32 = 1;
    const EDX_AMX_BF16: u32 = 22;
    const EDX_AMX_TILE: u32 = 24;
    const EDX_AMX_INT8: u32 = 25;
    const SUBLEAF_1_EAX_AMX_FP16: u32 = 21;
    const SUBLEAF_1_EDX_AMX_COMPLEX: u32 = 8;
    match leaf.index {
        0 => {
            set(&mut leaf.ebx, EBX_SGX, false);
            set(&mut leaf.ecx, ECX_SGX_LC, false);
            for bit in [EDX_SGX_KEYS, EDX_AMX_BF16, EDX_AMX_TILE, EDX_AMX_INT8] {
                set(&mut leaf.edx, bit, false);
            }
        }
        1 => {
            set(&mut leaf.eax, SUBLEAF_1_EAX_AMX_FP16, false);
            set(&mut leaf.edx, SUBLEAF_1_EDX_AMX_COMPLEX, false);
        }
        _ => {}
    }
}

/// Leaf 0x7 of AMD.
pub fn without_arch_capabilities(leaf: &mut kvm_cpuid_entry2, _: &Place) {
    const EDX_ARCH_CAPABILITIES: u32 = 29;
    if leaf.index == 0 {
        set(&mut leaf.edx, EDX_ARCH_CAPABILITIES, false);
    }
}

/// Leaf 0x80000001 of AMD.
pub fn without_svm(leaf: &mut kvm_cpuid_entry2, _: &Place) {
    const ECX_SVM: u32 = 2;
    set(&mut leaf.ecx, ECX_SVM, false);
}

/// Leaf 0x4, a subleaf a cache. Counts are less one, of APIC IDs up to a power of two.
pub fn cache_parameters(leaf: &mut kvm_cpuid_entry2, place: &Place) {
    let Some(level) = cache_level(leaf) else {
        return;
    };
    let cores = u32::from(place.cpus.next_power_of_two()) - 1;
    let sharing = if level >= 3 { cores } else { 0 };
    leaf.eax = leaf.eax & 0x3fff | sharing << 14 | cores << 26;
}

/// Leaf 0x8000001d, a subleaf a cache. Counts are less one.
pub fn cache_properties(leaf: &mut kvm_cpuid_entry2, place: &Place) {
    let Some(level) = cache_level(leaf) else {
        return;
    };
    let sharing = if level >= 3 {
        u32::from(place.cpus) - 1
    } else {
        0
    };
    leaf.eax = leaf.eax & !(0xfff << 14) | sharing << 14;
}

/// The level of the cache that the subleaf describes, if it describes one.
fn cache_level(leaf: &kvm_cpuid_entry2) -> Option<u32> {
    (leaf.eax & 0x1f != 0).then_some(leaf.eax >> 5 & 0x7)
}

/// Leaf 0xb: a thread level, a core level, and the end.
pub fn extended_topology(place: &Place) -> Vec<kvm_cpuid_entry2> {
    const LEVEL_SMT: u32 = 1;
    const LEVEL_CORE: u32 = 2;
    let level = |level: u32, shift: u32, count: u32, kind: u32| kvm_cpuid_entry2 {
        function: 0xb,
        index: level,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: level | kind << 8,
        edx: place.index.into(),
        ..Default::default()
    };
    vec![
        level(0, 0, 1, LEVEL_SMT),
        level(1, place.core_bits(), place.cpus.into(), LEVEL_CORE),
        level(2, 0, 0, 0),
    ]
}

/// Leaf 0x80000007.
pub fn power_management(leaf: &mut kvm_cpuid_entry2, place: &Place) {
    const EDX_INVARIANT_TSC: u32 = 8;
    if !place.tsc_held {
        set(&mut leaf.edx, EDX_INVARIANT_TSC, false);
    }
}

/// Leaf 0x80000008 of AMD.
pub fn core_count(leaf: &mut kvm_cpuid_entry2, place: &Place) {
    leaf.ecx = u32::from(place.cpus - 1) | place.core_bits() << 12;
}

/// Leaf 0x8000001e.
pub fn core_identifiers(leaf: &mut kvm_cpuid_entry2, place: &Place) {
    leaf.eax = place.index.into();
    leaf.ebx = place.index.into();
    leaf.ecx = 0;
}

pub fn set_from_host(leaf: &mut kvm_cpuid_entry2) {
    let host = instructions::cpuid(leaf.function);
    (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (host.eax, host.ebx, host.ecx, host.edx);
}
