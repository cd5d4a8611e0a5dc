//! The processor that a guest finds by CPUID, leaf by leaf.
//!
//! The base is what KVM offers (KVM_GET_SUPPORTED_CPUID): the features of the host's
//! processor, less those that KVM cannot give a guest. The lists below say how each leaf
//! is treated, and where Firecracker, Cloud Hypervisor and QEMU (`-cpu host`) decide
//! otherwise. The values of MSRs are in `boot_msrs`.
//!
//! References: SDM volume 2, CPUID; AMD APM volume 3, appendix E; the kernel's
//! Documentation/virt/kvm/x86/cpuid.rst.

mod leaves;

use std::io;

use kvm_bindings::kvm_cpuid_entry2;
use kvm_ioctls::{Cap, Kvm, VcpuFd};

use super::kvm_lists;
use crate::kvm::{Error, failed};
use leaves::Place;

/// The treatment of a leaf.
#[derive(Clone, Copy)]
enum Rule {
    /// As KVM offers it.
    Pass,
    /// Reads as zeros.
    Drop,
    /// As the host's processor has it; KVM offers zeros.
    Host,
    /// As KVM offers it, but for what this changes in each subleaf.
    Edit(fn(&mut kvm_cpuid_entry2, &Place)),
    /// These subleaves in place of KVM's.
    Make(fn(&Place) -> Vec<kvm_cpuid_entry2>),
}

use Rule::{Drop, Edit, Host, Make, Pass};

type List = &'static [(u32, Rule)];

/// Leaves with one meaning on all processors. A leaf that is in no list passes.
const COMMON: List = &[
    // The largest basic leaf and the vendor. All of the others pass the vendor, too.
    (0x0, Pass),
    // Family, model, stepping and features. Ours: the APIC ID, the number of vCPUs, and
    // - HYPERVISOR, by which a guest looks for leaf 0x40000000;
    // - TSC_DEADLINE: KVM leaves the bit to the VMM, for it depends on the interrupt
    //   controller in the kernel. Linux without it calibrates its APIC timer for 100 ms.
    //   Firecracker and Cloud Hypervisor set it unasked, QEMU by the capability, as here;
    // - MTRR: KVM has them whatever the host has, but offers the host's bit. Cloud
    //   Hypervisor and QEMU set it as well.
    // Passed, unlike Firecracker: PDCM, which goes with the PMU (0xa).
    // MONITOR is not offered: a guest that halts leaves the processor to others.
    (0x1, Edit(leaves::features)),
    // Cache and TLB descriptors.
    (0x2, Pass),
    // Power management: KVM offers ARAT alone, a timer that never sleeps.
    (0x6, Pass),
    // More features. Firecracker takes WAITPKG away and sets two bits about the x87's
    // instruction pointers; here they are as KVM offers them.
    (0x7, Pass),
    // The PMU, so that perf works in the guest. Firecracker takes it away.
    (0xa, Pass),
    // Topology: a thread a core, all cores in one package, so that the APIC ID is the
    // vCPU's index. KVM offers the leaf empty.
    (0xb, Make(leaves::extended_topology)),
    // XSAVE: components, sizes and offsets. KVM keeps EBX of subleaf 0 as XCR0 has it.
    (0xd, Pass),
    // Topology with more levels than 0xb, before which a guest prefers it; there are no
    // more. Firecracker and Cloud Hypervisor repeat 0xb here.
    (0x1f, Drop),
    // "KVMKVMKVM", and KVM's paravirtual features: the clock, steal time, asynchronous
    // page faults, IPIs and TLB flushes by hypercall, and so on. Cloud Hypervisor adds
    // MSI_EXT_DEST_ID, which has a use with more than 255 vCPUs. It and QEMU tell the
    // frequency of the TSC in 0x40000010; kvm-clock tells it everywhere.
    (0x4000_0000, Pass),
    (0x4000_0001, Pass),
    // The largest extended leaf, and extended features.
    (0x8000_0000, Pass),
    (0x8000_0001, Pass),
    // The brand string. Cloud Hypervisor and QEMU show the host's, too, Firecracker one
    // for all processors of a vendor.
    (0x8000_0002, Host),
    (0x8000_0003, Host),
    (0x8000_0004, Host),
    // L2 and L3 caches and TLBs.
    (0x8000_0006, Pass),
    // INVTSC: KVM offers it where the host's TSC has one rate in all states; here the TSC
    // also has to stop while the guest is stopped (`host::holds_tsc`). A guest takes the
    // TSC for its clock if it has the bit, and kvm-clock otherwise. Firecracker and Cloud
    // Hypervisor pass what KVM offers, QEMU only where it is asked for by name.
    (0x8000_0007, Edit(leaves::power_management)),
    // Widths of addresses. Cloud Hypervisor and QEMU can narrow them, for migration.
    (0x8000_0008, Pass),
];

/// Intel, and Zhaoxin, which does as Intel does.
const INTEL: List = &[
    // VMX is withheld: there is no nested virtualisation. A reset would have to undo it first,
    // and a debugger that stops a guest's guest would read it by the wrong page tables.
    // Cloud Hypervisor and QEMU have it as an option, Firecracker passes what KVM offers.
    (0x1, Edit(leaves::without_vmx)),
    // Caches: levels 1 and 2 are a core's own, level 3 is the package's.
    (0x4, Edit(leaves::cache_parameters)),
    // SGX is withheld, for there is no enclave memory; so is AMX, for KVM offers its features
    // but not its registers to a process that has not asked Linux for room for them. Cloud
    // Hypervisor and QEMU have options for both.
    (0x7, Edit(leaves::without_sgx_and_amx)),
    // SGX.
    (0x12, Drop),
    // Processor trace: KVM offers it where its module was told to.
    (0x14, Pass),
    // AMX.
    (0x1d, Drop),
    (0x1e, Drop),
];

/// AMD, and Hygon, which does as AMD does.
const AMD: List = &[
    // ARCH_CAPABILITIES, which KVM emulates on every processor, but AMD's do not have.
    // Firecracker and QEMU withhold it as well.
    (0x7, Edit(leaves::without_arch_capabilities)),
    // SVM is withheld, as VMX is on Intel.
    (0x8000_0001, Edit(leaves::without_svm)),
    // L1 caches and TLBs, which older KVMs do not offer.
    (0x8000_0005, Host),
    // The number of cores and the width of their number in the APIC ID.
    (0x8000_0008, Edit(leaves::core_count)),
    // SVM.
    (0x8000_000a, Drop),
    // Caches, as leaf 0x4 on Intel.
    (0x8000_001d, Edit(leaves::cache_properties)),
    // The extended APIC ID and the core's number: a thread a core, one node.
    (0x8000_001e, Edit(leaves::core_identifiers)),
    // Memory encryption: this machine's guests are not encrypted, whatever the host can
    // do. QEMU shows it to encrypted guests alone.
    (0x8000_001f, Drop),
    // Topology with more levels, the host's, before which a guest prefers it. The leaves
    // above say all that there is.
    (0x8000_0026, Drop),
];

/// Whose lists apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    Intel,
    Amd,
}

impl Vendor {
    fn of(leaves: &[kvm_cpuid_entry2]) -> Self {
        // The first of three registers that spell the vendor's name.
        const AMD: u32 = u32::from_le_bytes(*b"Auth");
        const HYGON: u32 = u32::from_le_bytes(*b"Hygo");
        match leaves.iter().find(|leaf| leaf.function == 0) {
            Some(leaf) if matches!(leaf.ebx, AMD | HYGON) => Self::Amd,
            _ => Self::Intel,
        }
    }

    fn list(self) -> List {
        match self {
            Self::Intel => INTEL,
            Self::Amd => AMD,
        }
    }
}

/// The model that all vCPUs of a machine share.
pub struct CpuModel {
    offered: Vec<kvm_cpuid_entry2>,
    vendor: Vendor,
    tsc_deadline: bool,
    tsc_held: bool,
}

impl CpuModel {
    pub fn of_host(kvm: &Kvm) -> Result<Self, Error> {
        let offered = kvm_lists::supported_cpuid(kvm).map_err(failed("KVM_GET_SUPPORTED_CPUID"))?;
        Ok(Self {
            vendor: Vendor::of(&offered),
            offered,
            tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer),
            tsc_held: true,
        })
    }

    /// Whether KVM offers a TSC that a guest may take for its clock.
    pub fn has_invariant_tsc(&self) -> bool {
        has_invariant_tsc(&self.offered)
    }

    /// The TSC keeps counting while the vCPUs are stopped.
    pub fn withhold_invariant_tsc(&mut self) {
        self.tsc_held = false;
    }

    /// Width of guest-physical addresses. Processors without the leaf have 36 bits.
    pub fn physical_bits(&self) -> u32 {
        const ADDRESS_SIZES: u32 = 0x8000_0008;
        let mut leaves = self.offered.iter();
        let sizes = leaves.find(|leaf| leaf.function == ADDRESS_SIZES);
        sizes.map_or(36, |leaf| (leaf.eax & 0xff).clamp(36, 52))
    }

    /// The leaves of vCPU `index` of `cpus`.
    pub fn for_vcpu(&self, index: u8, cpus: u8) -> Cpuid {
        let place = Place {
            index,
            cpus,
            tsc_deadline: self.tsc_deadline,
            tsc_held: self.tsc_held,
        };
        let mut cpuid = Cpuid {
            vendor: self.vendor,
            leaves: self.offered.clone(),
        };
        for (function, rule) in COMMON.iter().chain(self.vendor.list()) {
            cpuid.apply(*function, *rule, &place);
        }
        cpuid
    }
}

fn has_invariant_tsc(leaves: &[kvm_cpuid_entry2]) -> bool {
    const LEAF: u32 = 0x8000_0007;
    const EDX_INVARIANT_TSC: u32 = 1 << 8;
    let mut leaves = leaves.iter();
    leaves.any(|leaf| leaf.function == LEAF && leaf.edx & EDX_INVARIANT_TSC != 0)
}

/// The leaves of one vCPU.
pub struct Cpuid {
    vendor: Vendor,
    leaves: Vec<kvm_cpuid_entry2>,
}

impl Cpuid {
    pub fn leaves(&self) -> &[kvm_cpuid_entry2] {
        &self.leaves
    }

    pub fn vendor(&self) -> Vendor {
        self.vendor
    }

    /// Whether the guest may take the TSC for one that never changes its rate.
    pub fn has_invariant_tsc(&self) -> bool {
        has_invariant_tsc(&self.leaves)
    }

    /// Gives them to the vCPU.
    pub fn give_to(&self, vcpu: &VcpuFd) -> io::Result<()> {
        kvm_lists::set_cpuid(vcpu, &self.leaves)
    }

    fn apply(&mut self, function: u32, rule: Rule, place: &Place) {
        let is_offered = self.leaves.iter().any(|leaf| leaf.function == function);
        match rule {
            Pass => {}
            Drop => self.leaves.retain(|leaf| leaf.function != function),
            Host => self.subleaves(function).for_each(leaves::set_from_host),
            Edit(edit) => self.subleaves(function).for_each(|leaf| edit(leaf, place)),
            Make(make) if is_offered => {
                self.leaves.retain(|leaf| leaf.function != function);
                self.leaves.extend(make(place));
            }
            Make(_) => {}
        }
    }

    fn subleaves(&mut self, function: u32) -> impl Iterator<Item = &mut kvm_cpuid_entry2> {
        let leaves = self.leaves.iter_mut();
        leaves.filter(move |leaf| leaf.function == function)
    }
}

#[cfg(test)]
#[path = "cpuid_test.rs"]
mod tests;
