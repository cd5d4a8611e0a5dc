//! A keyboard that another process serves, under a Linux guest of this VMM.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{backend, guest, program, scratch, unmet};

use crate::machine::{BOOT, linux};

/// What Linux calls it, also in the guest.
const KEYBOARD: &str = "AT Translated Set 2 keyboard";

/// A key of this machine's keyboard is pressed and released.
#[test]
fn vhost_device_input_passes_a_key_on_to_linux() {
    let Some(keyboard) = keyboard() else {
        unmet::note("the events of an input device: only the bed's keyboard is pressed");
        return;
    };
    let guest = guest::stock_linux();
    let dir = scratch();
    let options = ["--event-list", keyboard.to_str().unwrap()];
    let socket = dir.path().join("input.sock");
    let input = backend::vhost_device("input", "--socket-path", &socket, &options);
    let mut vmm = linux(&guest.bzimage, &guest, "outboard.run=input")
        .device("input", &input.socket)
        .start();
    vmm.process.close_stdin();
    vmm.process.wait_for("input=waiting", BOOT);
    press_a(&keyboard);
    vmm.process.expect_exit(0, BOOT);
    assert_eq!(vmm.guest_value("input-name"), KEYBOARD);
    // EV_KEY, KEY_A, pressed; EV_SYN; EV_KEY, KEY_A, released; EV_SYN; little-endian.
    assert_eq!(
        vmm.guest_value("input-events").trim(),
        "01001e0001000000 0000000000000000 01001e0000000000 0000000000000000"
    );
}

/// The bed's keyboard: that of a person's machine is not for a test to press.
fn keyboard() -> Option<PathBuf> {
    std::env::var_os("OUTBOARD_IN_BED").filter(|bed| bed == "1")?;
    let mut modprobe = Command::new(program::system("modprobe"));
    let status = modprobe.arg("evdev").status().unwrap();
    assert!(status.success(), "the bed has no evdev");
    let mut devices = fs::read_dir("/sys/class/input").unwrap().flatten();
    let keyboard = devices.find(|device| {
        let name = fs::read_to_string(device.path().join("device/name"));
        name.is_ok_and(|name| name.trim_end() == KEYBOARD && is_event(&device.file_name()))
    });
    let keyboard = keyboard.expect("the bed has a keyboard");
    Some(Path::new("/dev/input").join(keyboard.file_name()))
}

fn is_event(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"event")
}

/// What is written to an input device is read from it, as if the device had sent it.
fn press_a(keyboard: &Path) {
    const SYNCHRONIZE: (u16, u16, i32) = (0, 0, 0);
    const PRESS: (u16, u16, i32) = (1, 30, 1);
    const RELEASE: (u16, u16, i32) = (1, 30, 0);
    let mut keyboard = OpenOptions::new().write(true).open(keyboard).unwrap();
    for (kind, code, value) in [PRESS, SYNCHRONIZE, RELEASE, SYNCHRONIZE] {
        // struct input_event of a 64-bit machine, whose time the kernel fills in.
        let mut event = vec![0; 16];
        event.extend(kind.to_le_bytes());
        event.extend(code.to_le_bytes());
        event.extend(value.to_le_bytes());
        keyboard.write_all(&event).unwrap();
    }
}
