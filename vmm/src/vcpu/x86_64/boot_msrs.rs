//! MSRs whose power-on value has more bits set than KVM gives them when it creates a vCPU.
//!
//! On a PC the firmware sets these; a kernel that is started directly relies on them.
//! These are left as KVM creates them; other VMMs treat them as follows:
//!
//! - SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP, STAR, LSTAR, CSTAR, FMASK, KERNEL_GS_BASE:
//!   0. Firecracker and Cloud Hypervisor write the zeros once more.
//! - TSC: KVM starts all vCPUs of a VM in step, at 0 when the first is created. Those two
//!   write a 0 here, too, and QEMU the value of the stop, after each.
//! - PAT: its reset value, 0x0007040600070406.
//! - APIC_BASE and the local vector table: enabled, LINT0 open to the PIC (KVM's quirk
//!   LINT0_REENABLED). Firecracker and Cloud Hypervisor set LINT0 so, and LINT1 to NMI;
//!   the MADT here names no source of NMIs.
//! - MCG_CAP: 32 banks without MCG_CTL. QEMU asks KVM for 10 (KVM_X86_SETUP_MCE).
//! - FEAT_CTL: 0, not locked. There is no VMX or SGX to enable.
//! - ARCH_CAPABILITIES, PERF_CAPABILITIES, PLATFORM_INFO, UCODE_REV: KVM's own choice for
//!   this host. QEMU passes the host's microcode revision.

use std::io;

use kvm_ioctls::VcpuFd;

use super::cpuid::{Cpuid, Vendor};
use super::msrs;
use crate::kvm::Error;

/// Bits that are set at power-on, besides those that KVM has set.
struct BootMsr {
    name: &'static str,
    index: u32,
    bits: u64,
    /// The condition on CPUID for it.
    needs: fn(&Cpuid) -> bool,
    refused: Refused,
}

/// The consequence when KVM does not take the bits.
#[derive(Clone, Copy)]
enum Refused {
    /// The machine does not start.
    Fails,
    /// The guest does without, for a reason that is logged.
    Skipped(&'static str),
}

const COMMON: &[BootMsr] = &[
    // MTRRs enabled, all memory write-back: bit 11 and type 6 (SDM volume 3, 12.11.2.1).
    // Linux does not use the PAT while they are off. Fixed ranges are off (bit 10); nobody
    // has set them. Firecracker and Cloud Hypervisor do the same, QEMU leaves it to its
    // firmware.
    BootMsr {
        name: "IA32_MTRR_DEF_TYPE",
        index: 0x2ff,
        bits: 1 << 11 | 6,
        needs: always,
        refused: Refused::Fails,
    },
];

const INTEL: &[BootMsr] = &[
    // Fast strings: without the bit Linux does not trust `rep movsb` and `rep stosb`.
    // KVM has set the two bits that say that there are no BTS and no PEBS; the others
    // take these away, and set the bit on AMD, too, which has no such MSR.
    BootMsr {
        name: "IA32_MISC_ENABLE",
        index: 0x1a0,
        bits: 1,
        needs: always,
        refused: Refused::Fails,
    },
];

const AMD: &[BootMsr] = &[
    // TscFreqSel: the TSC counts at the rate of P-state 0. Linux calls it a fault of the
    // firmware when that is missing beside INVTSC. None of the others sets it.
    BootMsr {
        name: "HWCR",
        index: 0xc001_0015,
        bits: 1 << 24,
        needs: Cpuid::has_invariant_tsc,
        refused: Refused::Skipped("KVM has the bit since Linux 6.7"),
    },
];

fn always(_: &Cpuid) -> bool {
    true
}

/// Sets them on a new vCPU, which has its CPUID already.
pub fn set(vcpu: &VcpuFd, cpuid: &Cpuid) -> Result<(), Error> {
    let own = match cpuid.vendor() {
        Vendor::Intel => INTEL,
        Vendor::Amd => AMD,
    };
    let all = COMMON.iter().chain(own);
    all.filter(|msr| (msr.needs)(cpuid))
        .try_for_each(|msr| msr.set(vcpu))
}

impl BootMsr {
    fn set(&self, vcpu: &VcpuFd) -> Result<(), Error> {
        let set = msrs::read(vcpu, self.index)
            .and_then(|value| msrs::write(vcpu, self.index, value | self.bits));
        let (Err(error), name) = (&set, self.name) else {
            return Ok(());
        };
        match self.refused {
            Refused::Fails => Err(Error {
                call: "setting what the processor has at power-on",
                source: io::Error::other(format!("{name}: {error}: {}", error.source)),
            }),
            Refused::Skipped(reason) => {
                tracing::debug!(
                    "{name} is left as it is: {error}: {}; {reason}",
                    error.source
                );
                Ok(())
            }
        }
    }
}
