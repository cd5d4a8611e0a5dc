//! Every combination of the features that change how rings and messages work, with
//! this project's backends and with others', as a matrix.
//!
//! A combination passes when the driver and the frontend have taken exactly those of
//! its features that the backend has by its own word, and the guest finishes its work
//! with its audit. What the backend does not have is "not offered" in the matrix.

use std::io::Write;
use std::path::Path;

use devices::vhost_user::parse_protocol;
use devices::virtio::{DeviceType, features};

use crate::offer::Offer;
use crate::vmm::Running;

/// As `features=-NAME` takes it, and the guest's command line a ring's.
pub type Name = &'static str;

const NAMES: [Name; 5] = ["event_idx", "indirect", "packed", "mq", "reply_ack"];

/// What is swept: a backend, and how a guest uses its device.
pub struct Subject<'a> {
    pub backend: &'a str,
    pub device_type: DeviceType,
    pub socket: &'a Path,
    /// Runs a guest to its end, given the device's SPEC and the features that its
    /// driver is to ask for.
    pub run: &'a dyn Fn(&str, &[Name]) -> Ran,
}

/// What a run has shown.
pub struct Ran {
    /// The features that the driver took.
    pub chosen: u64,
    /// What the VMM has printed.
    pub messages: String,
}

impl Ran {
    /// A run of the bare-metal guest with a network device.
    ///
    /// # Panics
    /// It has not said which features it took.
    pub fn with_net(vmm: &Running) -> Self {
        let console = vmm.console();
        let chosen = console
            .split_once(" features=")
            .and_then(|(_, after)| u64::from_str_radix(after.split_whitespace().next()?, 16).ok());
        Self {
            chosen: chosen.unwrap_or_else(|| panic!("no features\n{}", vmm.process.transcript())),
            messages: vmm.messages(),
        }
    }

    /// Whether feature `name` was in use.
    fn used(&self, device_type: DeviceType, name: Name) -> bool {
        match features::parse(device_type, name) {
            Some(bit) => self.chosen & 1 << bit != 0,
            None => self.protocol().any(|used| used == name.to_uppercase()),
        }
    }

    fn protocol(&self) -> impl Iterator<Item = &str> {
        let names = self.messages.split_once("protocol=\"");
        let (_, names) = names.unwrap_or_else(|| panic!("no protocol in {}", self.messages));
        names.split('"').next().unwrap_or_default().split(", ")
    }
}

impl Subject<'_> {
    /// Shows the matrix.
    ///
    /// # Panics
    /// A combination fails.
    pub fn sweep(&self) {
        let offer = Offer::of(self.socket);
        let heads = NAMES.iter().map(|name| format!("{name:<12}"));
        let mut matrix = format!("\n{:<22}{}\n", "", heads.collect::<String>());
        // What cannot be had is always asked for.
        let names = NAMES.iter().copied();
        let swept: Vec<Name> = names.filter(|name| self.is_offered(&offer, name)).collect();
        let mut failed = 0;
        for bits in 0..1u32 << swept.len() {
            let left_out = (0..).zip(&swept).filter(|(n, _)| bits & 1 << n != 0);
            let left_out: Vec<Name> = left_out.map(|(_, name)| *name).collect();
            failed += u32::from(!self.row(&mut matrix, &offer, &left_out));
        }
        // Past the test harness, which keeps what a test prints that passes.
        let shown = std::io::stderr().write_all(matrix.as_bytes());
        shown.unwrap_or_else(|error| panic!("cannot show {matrix}: {error}"));
        assert_eq!(failed, 0, "combinations did not agree on what they should");
    }

    /// Whether the backend has feature `name`.
    fn is_offered(&self, offer: &Offer, name: Name) -> bool {
        if self.device_type == DeviceType::NET && name == "mq" && !has_net_control(offer) {
            return false;
        }
        match features::parse(self.device_type, name) {
            Some(bit) => offer.features & 1 << bit != 0,
            None => offer.protocol & protocol_bit(name) != 0,
        }
    }

    /// Runs a guest that asks for all features but `left_out`, and adds a row to the
    /// matrix; whether all was as it should be.
    fn row(&self, matrix: &mut String, offer: &Offer, left_out: &[Name]) -> bool {
        let masks: Vec<_> = left_out.iter().map(|name| format!("-{name}")).collect();
        let mut spec = format!("{},socket={}", self.device_type, self.socket.display());
        if !masks.is_empty() {
            spec.push_str(&format!(",features={}", masks.join(",")));
        }
        let asked = NAMES.iter().filter(|name| !left_out.contains(name));
        let ran = (self.run)(&spec, &asked.copied().collect::<Vec<_>>());
        matrix.push_str(&format!("{:<22}", self.backend));
        let mut passed = true;
        for name in &NAMES {
            let asked = !left_out.contains(name);
            let offered = self.is_offered(offer, name);
            let used = ran.used(self.device_type, name);
            let cell = match (offered, asked, used) {
                (true, true, true) => "on",
                (true, false, false) => "-",
                (false, _, false) => "not offered",
                (true, true, false) => "NOT TAKEN",
                (_, _, true) => "TAKEN",
            };
            passed &= used == (asked && offered);
            matrix.push_str(&format!("{cell:<12}"));
        }
        matrix.push_str(if passed { "PASS\n" } else { "FAIL\n" });
        passed
    }
}

fn protocol_bit(name: Name) -> u64 {
    parse_protocol(name).map_or(0, |feature| feature.bits())
}

/// Whether the backend has what a network driver learns of several pairs by, and asks
/// for them with. One without a configuration space leaves it and the control queue to
/// the frontend, and this one makes up neither.
fn has_net_control(offer: &Offer) -> bool {
    let control = features::parse(DeviceType::NET, "ctrl_vq");
    control.is_some_and(|bit| offer.features & 1 << bit != 0)
        && offer.protocol & protocol_bit("config") != 0
}
