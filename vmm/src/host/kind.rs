//! Which module of KVM serves this host.

use std::path::Path;

/// Runs the guest's kernel in ring 3 and emulates what a kernel for hardware does there.
const PVM: &str = "kvm_pvm";
const MODULES: [&str; 3] = ["kvm_intel", "kvm_amd", PVM];

/// Those that are there. A KVM that is built in may have none.
pub fn kvm_modules() -> Vec<&'static str> {
    let is_there = |module: &&str| Path::new("/sys/module").join(module).exists();
    MODULES.into_iter().filter(is_there).collect()
}

/// # Errors
/// The module that cannot run a kernel as distributions build it.
pub fn can_run_linux() -> Result<(), String> {
    if kvm_modules() == [PVM] {
        Err(PVM.into())
    } else {
        Ok(())
    }
}
