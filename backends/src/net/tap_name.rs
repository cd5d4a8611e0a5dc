//! Names of interfaces, and requests about them (netdevice(7)).

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::fmt;
use std::str::FromStr;

/// A name that an interface can have: 1 to 15 bytes without `/`, `:` and blanks. One with a `%`
/// would be a pattern, by which the kernel gives the interface a name of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapName(String);

impl FromStr for TapName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let usable = |b: u8| !b.is_ascii_whitespace() && !b"/:%\0".contains(&b);
        let valid = (1..libc::IFNAMSIZ).contains(&name.len()) && name.bytes().all(usable);
        if !valid || name == "." || name == ".." {
            return Err(
                "an interface's name has 1 to 15 bytes without '/', ':', '%' and blanks".into(),
            );
        }
        Ok(TapName(name.to_owned()))
    }
}

impl TapName {
    /// The one in a request that the kernel has filled in.
    pub(super) fn of_request(request: &libc::ifreq) -> Option<Self> {
        let bytes = request.ifr_name.map(|byte| byte as u8);
        let name = CStr::from_bytes_until_nul(&bytes).ok()?.to_str().ok()?;
        name.parse().ok()
    }
}

impl fmt::Display for TapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An `ifreq` that names an interface and says nothing else.
pub(super) fn interface_request(name: &TapName) -> libc::ifreq {
    // SAFETY: `ifreq` is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.0.bytes()) {
        *to = from as c_char;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "sixteen-bytes-xx",
            "nul\0",
            "tap%d",
            "a:b",
        ] {
            assert!(name.parse::<TapName>().is_err(), "{name:?}");
        }
        let request = interface_request(&"fifteen-bytes-x".parse().unwrap());
        assert_eq!(request.ifr_name[15], 0);
        let name = TapName::of_request(&request).unwrap();
        assert_eq!(name.to_string(), "fifteen-bytes-x");
    }
}
