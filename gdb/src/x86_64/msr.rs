//! Model-specific registers by name (SDM volume 4; Linux, `msr-index.h` and
//! `kvm_para.h`).

/// Where system calls go: of code outside of long mode (the lower half), of 64-bit code,
/// of code in compatibility mode.
pub(super) const IA32_STAR: u32 = 0xc000_0081;
pub(super) const IA32_LSTAR: u32 = 0xc000_0082;
pub(super) const IA32_CSTAR: u32 = 0xc000_0083;
pub(super) const IA32_SYSENTER_EIP: u32 = 0x176;
/// Where events go under FRED.
pub(super) const IA32_FRED_CONFIG: u32 = 0x1d4;

/// Names without the `IA32_` that the SDM puts before them, sorted.
pub const MSRS: &[(&str, u32)] = &[
    ("apic_base", 0x1b),
    ("arch_capabilities", 0x10a),
    ("bios_sign_id", 0x8b),
    ("cstar", 0xc000_0083),
    ("debugctl", 0x1d9),
    ("efer", 0xc000_0080),
    ("feat_ctl", 0x3a),
    ("fmask", 0xc000_0084),
    ("fs_base", 0xc000_0100),
    ("gs_base", 0xc000_0101),
    ("kernel_gs_base", 0xc000_0102),
    ("kvm_async_pf_en", 0x4b56_4d02),
    ("kvm_poll_control", 0x4b56_4d05),
    ("kvm_pv_eoi_en", 0x4b56_4d04),
    ("kvm_steal_time", 0x4b56_4d03),
    ("kvm_system_time_new", 0x4b56_4d01),
    ("kvm_wall_clock_new", 0x4b56_4d00),
    ("lstar", 0xc000_0082),
    ("mcg_cap", 0x179),
    ("misc_enable", 0x1a0),
    ("mtrr_def_type", 0x2ff),
    ("mtrrcap", 0xfe),
    ("pat", 0x277),
    ("platform_info", 0xce),
    ("pred_cmd", 0x49),
    ("s_cet", 0x6a2),
    ("smbase", 0x9e),
    ("spec_ctrl", 0x48),
    ("star", 0xc000_0081),
    ("sysenter_cs", 0x174),
    ("sysenter_eip", 0x176),
    ("sysenter_esp", 0x175),
    ("tsc", 0x10),
    ("tsc_adjust", 0x3b),
    ("tsc_aux", 0xc000_0103),
    ("tsc_deadline", 0x6e0),
    ("u_cet", 0x6a0),
    ("xss", 0xda0),
];

/// The number of the MSR that somebody calls `name`, in any case, with or without
/// `IA32_` or `MSR_`.
pub fn number(name: &str) -> Option<u32> {
    let name = name.to_ascii_lowercase();
    let short = ["ia32_", "msr_"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(&name);
    let found = MSRS.binary_search_by_key(&short, |(name, _)| name).ok()?;
    Some(MSRS[found].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_each_spelling() {
        assert!(MSRS.is_sorted());
        for (name, index) in MSRS {
            assert_eq!(number(name), Some(*index));
        }
        for name in ["IA32_LSTAR", "MSR_LSTAR", "LSTAR", "lstar"] {
            assert_eq!(number(name), Some(0xc000_0082));
        }
        assert_eq!(number("rip"), None);
    }
}
