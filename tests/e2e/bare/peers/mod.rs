//! Other people's frontends on this project's backends, and other people's backends
//! under bare-metal guests. Each test says which features the two have agreed on.

pub mod dpdk;
mod frontends;
mod packed;
mod qemu;
mod sweep;
mod user_mode_linux;
mod vhost_device;

use devices::virtio::{DeviceType, features};
use tests::DEADLINE;
use tests::backend::Backend;
use tests::process::Stream;

/// Ends one of this project's backends and says what it has agreed on with its
/// frontend, at last: firmware may have used the device before the guest's driver.
///
/// # Panics
/// A name in `needed`, of a device's or a protocol feature, is not among it.
fn assert_agreed(mut backend: Backend, device_type: DeviceType, needed: &[&str]) {
    backend.process.signal(libc::SIGTERM);
    backend.process.expect_exit(0, DEADLINE);
    assert!(!backend.socket.exists());
    let log = backend.process.printed(Stream::Err);
    let last = |text: &str| {
        let line = log.lines().rfind(|line| line.contains(text));
        let (_, value) = line
            .and_then(|line| line.rsplit_once("features="))
            .unwrap_or_else(|| panic!("no {text:?} in {log}"));
        value.to_owned()
    };
    let bits = last("DEBUG features negotiated");
    let bits = u64::from_str_radix(bits.trim_start_matches("0x"), 16).unwrap();
    let mut names = features::names(device_type, bits);
    let protocol = last("DEBUG protocol features negotiated");
    let (_, protocol) = protocol.trim_end_matches(')').split_once('(').unwrap();
    names.extend(protocol.split(" | ").map(str::to_owned));
    println!("{device_type}: {}", names.join(", "));
    for name in needed {
        assert!(names.iter().any(|has| has == name), "no {name}: {names:?}");
    }
}
