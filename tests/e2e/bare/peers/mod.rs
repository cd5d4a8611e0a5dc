//! Other people's frontends on this project's backends, and other people's backends
//! under bare-metal guests. Each test says which features the two have agreed on.

mod dpdk;
mod qemu;
mod sweep;
mod user_mode_linux;

use tests::DEADLINE;
use tests::backend::Backend;

/// What one of this project's backends has agreed on with its frontend: the device
/// features as a number, the protocol features in names. It has to log at `debug`.
fn agreed(backend: &Backend) -> (u64, String) {
    let value = |text: &str| {
        let line = backend.process.wait_for(text, DEADLINE).text;
        let (_, value) = line
            .rsplit_once("features=")
            .unwrap_or_else(|| panic!("no features in {line}"));
        value.to_owned()
    };
    let device = value("DEBUG features negotiated");
    let device = device.trim_start_matches("0x");
    let device = u64::from_str_radix(device, 16).unwrap_or_else(|error| panic!("{error}"));
    let protocol = value("DEBUG protocol features negotiated");
    println!("device features {device:#x}, protocol features {protocol}");
    (device, protocol)
}
