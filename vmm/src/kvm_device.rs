//! /dev/kvm, which not every machine has.

use std::ffi::CStr;
use std::io;

use kvm_bindings::KVM_API_VERSION;
use kvm_ioctls::Kvm;

const PATH: &CStr = c"/dev/kvm";

/// Why this machine runs no guests, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    #[error(
        "there is no /dev/kvm: load kvm_intel or kvm_amd, which need virtualisation to be \
         switched on in the firmware, or by whoever runs this virtual machine"
    )]
    Missing,
    #[error("/dev/kvm may not be opened by this user: join the group that it belongs to")]
    Forbidden,
    #[error("opening /dev/kvm failed")]
    Open(#[source] io::Error),
    #[error(
        "what answers at /dev/kvm is not KVM: its API version is {found}, not {KVM_API_VERSION}"
    )]
    Version { found: i32 },
}

/// Opens it.
///
/// # Errors
/// See [`Unavailable`].
pub fn open() -> Result<Kvm, Unavailable> {
    open_at(PATH)
}

fn open_at(path: &CStr) -> Result<Kvm, Unavailable> {
    let kvm = Kvm::new_with_path(path).map_err(|error| {
        let error = io::Error::from(error);
        match error.kind() {
            io::ErrorKind::NotFound => Unavailable::Missing,
            io::ErrorKind::PermissionDenied => Unavailable::Forbidden,
            _ => Unavailable::Open(error),
        }
    })?;
    match kvm.get_api_version() {
        found if found.unsigned_abs() == KVM_API_VERSION => Ok(kvm),
        found => Err(Unavailable::Version { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_device_is_said() {
        let message = |path| open_at(path).map(drop).unwrap_err().to_string();
        assert!(message(c"/dev/there is none").starts_with("there is no /dev/kvm: load"));
        assert!(message(c"/dev/null").contains("is -1, not 12"));
        assert_eq!(message(c"/dev"), "opening /dev/kvm failed");
    }
}
