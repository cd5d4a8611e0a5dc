//! No time passes for a guest that is stopped: neither by the TSC nor by the PIT.

use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, guest, repetitions, scratch};

use crate::control::{ctl, socket};
use crate::host;

/// How many seconds the guest is stopped.
const STOPPED: u64 = 3;
const STOPPED_VARIABLE: &str = "OUTBOARD_STOPPED";
/// What else may come between two looks of the guest at its clocks.
const SLACK: Duration = Duration::from_millis(1000);
const PIT_HZ: f64 = 100.0;

/// What the guest has seen.
struct Report {
    at: Instant,
    tsc: f64,
    longest: f64,
    backwards: f64,
    ticks: f64,
}

fn ask(vmm: &mut Running) -> Report {
    let line = vmm.process.lines().len();
    vmm.process.send(b"?");
    let (_, found) = vmm.process.wait_for_after(line, "clock: tsc=", DEADLINE);
    let at = Instant::now();
    let value = |key: &str| {
        let (_, after) = found.text.split_once(&format!("{key}=")).unwrap();
        let digits = after.split(' ').next().unwrap();
        digits.parse::<f64>().unwrap()
    };
    Report {
        at,
        tsc: value("tsc"),
        longest: value("longest"),
        backwards: value("backwards"),
        ticks: value("ticks"),
    }
}

/// Lets the guest run for a second, and stops it, between three looks at its clocks.
fn stop_and_ask(ring: u32) -> (Duration, [Report; 3]) {
    let dir = scratch();
    let mut vmm = Vmm::new(guest::bare("clock"))
        .cmdline(&format!("ring={ring} reports=3"))
        .arg("--api", socket(dir.path()))
        .start();
    vmm.process.wait_for("clock: ready", DEADLINE);
    let first = ask(&mut vmm);
    sleep(Duration::from_secs(1));
    let before = ask(&mut vmm);
    ctl(dir.path(), &["pause"], 0);
    let stopped = Duration::from_secs(repetitions(STOPPED_VARIABLE, STOPPED));
    sleep(stopped);
    ctl(dir.path(), &["resume"], 0);
    let after = ask(&mut vmm);
    vmm.process.expect_exit(0, DEADLINE);
    (stopped, [first, before, after])
}

fn no_time_passes(ring: u32) {
    let (stopped, [first, before, after]) = stop_and_ask(ring);
    let seconds = |from: &Report, to: &Report| (to.at - from.at).as_secs_f64();
    let rate = (before.tsc - first.tsc) / seconds(&first, &before);
    let running = seconds(&before, &after) - stopped.as_secs_f64();
    let most = running + SLACK.as_secs_f64();
    let (passed, longest) = ((after.tsc - before.tsc) / rate, after.longest / rate);
    let ticks = (after.ticks - before.ticks) / PIT_HZ;
    println!("ran {running:.3} s: {passed:.3} s by the TSC, {ticks:.3} s by the PIT");
    if host::shown(
        host::host().holds_tsc,
        "the TSC stands still while a guest is stopped",
    ) {
        assert!(passed < most, "{passed:.3} s of {running:.3} s");
        assert!(longest < most, "{longest:.3} s at once");
    }
    assert!(ticks < most, "{ticks:.3} s of {running:.3} s");
    assert_eq!(after.backwards, 0.0);
}

#[test]
fn no_time_passes_for_stopped_code_of_ring_0() {
    no_time_passes(0);
}

#[test]
fn no_time_passes_for_stopped_code_of_ring_3() {
    no_time_passes(3);
}
