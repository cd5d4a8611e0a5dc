//! The environment that a backend gets: what finds programs and files and says how to speak, not
//! what else the user's shell holds, such as keys.

use std::ffi::OsString;

/// Variables that are passed on.
const KEPT: [&str; 12] = [
    "HOME",
    "LANG",
    "LOGNAME",
    "NO_COLOR",
    "PATH",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_RUNTIME_DIR",
];

/// Those of this process that a backend gets, too.
pub fn kept() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_kept))
}

fn is_kept(name: &str) -> bool {
    KEPT.contains(&name) || name.starts_with("LC_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_finds_its_way_and_gets_no_keys() {
        for name in ["PATH", "RUST_LOG", "LC_ALL", "XDG_RUNTIME_DIR"] {
            assert!(is_kept(name), "{name}");
        }
        for name in [
            "SSH_AUTH_SOCK",
            "AWS_SECRET_ACCESS_KEY",
            "LD_PRELOAD",
            "path",
        ] {
            assert!(!is_kept(name), "{name}");
        }
    }
}
