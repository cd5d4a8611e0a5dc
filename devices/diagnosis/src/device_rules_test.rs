//! Each rule for devices finds what it is for, and nothing in a device that is well.

use crate::picture::{Backend, Device, Driver, Queue, QueueState, Thread, Unanswered};
use crate::queue_rules_test::{SECOND, device, look, queue};

#[track_caller]
fn expect(mut device: Device, expected: &[&str]) {
    device.diagnose();
    assert_eq!(device.diagnoses, expected);
}

fn with_status(status: &str) -> Device {
    let mut device = device(Vec::new());
    device.driver.status = Some(status.into());
    device
}

fn with_threads(states: &[char]) -> Device {
    let mut device = device(Vec::new());
    let thread = |(n, state): (usize, &char)| Thread {
        id: n as u32 + 1,
        name: format!("thread-{n}"),
        state: *state,
        waits_in: Some("io_schedule".into()),
    };
    device.backend.as_mut().unwrap().threads = states.iter().enumerate().map(thread).collect();
    device
}

const IDLE: &str = "idle: nothing is asked of it";

#[test]
fn a_device_without_requests_is_idle() {
    let still = queue(look(7, 7), look(7, 7));
    expect(device(vec![still.clone()]), &[IDLE]);
    let receive = Queue {
        is_filled_ahead: true,
        ..queue(look(9, 7), look(9, 7))
    };
    expect(device(vec![receive, still]), &[IDLE]);
}

#[test]
fn a_device_that_finishes_requests_works() {
    let queue = queue(look(9, 7), look(12, 11));
    expect(
        device(vec![queue]),
        &["it works: 4 requests were finished in 300 ms"],
    );
}

#[test]
fn a_device_whose_queues_change_works() {
    let queue = queue(look(7, 7), look(9, 7));
    expect(
        device(vec![queue]),
        &["it works: its queues have changed within 300 ms"],
    );
}

#[test]
fn a_device_that_needs_a_reset_is_named() {
    let text = "DEVICE_NEEDS_RESET is set: the device has failed, and works again when the driver has reset it";
    expect(
        with_status("ACKNOWLEDGE|DRIVER|FEATURES_OK|DRIVER_OK|NEEDS_RESET"),
        &[text],
    );
}

#[test]
fn a_driver_that_has_given_up_is_named() {
    let text = "the driver has set FAILED: it has given up on the device";
    expect(with_status("ACKNOWLEDGE|DRIVER|FAILED"), &[text]);
}

#[test]
fn a_driver_that_is_not_there_or_not_ready_is_named() {
    expect(with_status(""), &["no driver has taken the device"]);
    let text = "the driver has not finished its setup: the status is ACKNOWLEDGE|DRIVER, without \
                DRIVER_OK";
    expect(with_status("ACKNOWLEDGE|DRIVER"), &[text]);
}

#[test]
fn a_backend_that_is_away_is_named() {
    let mut away = device(Vec::new());
    away.backend = Some(Backend {
        problem: Some("it hung up".into()),
        ..Backend::default()
    });
    expect(away, &["no backend is connected: it hung up"]);
}

#[test]
fn a_process_that_is_gone_is_named() {
    expect(
        with_threads(&[]),
        &["the backend's process 7 is gone, or is hidden from this one"],
    );
}

#[test]
fn threads_that_do_not_run_are_named() {
    let stopped = "the backend is stopped by a signal (kill -CONT resumes it)";
    expect(with_threads(&['T', 'T']), &[stopped]);
    expect(
        with_threads(&['S', 't']),
        &["the backend's thread 2 (thread-1) is stopped by a debugger"],
    );
    expect(
        with_threads(&['D', 'S', 'D']),
        &[
            "the backend's thread 1 (thread-0) waits for a disk or for another resource of the \
           kernel, and cannot be interrupted, in io_schedule; 1 more are in the same state",
        ],
    );
    expect(
        with_threads(&['Z']),
        &["the backend has ended, and nobody has waited for it"],
    );
    expect(with_threads(&['S', 'R']), &[IDLE]);
}

#[test]
fn a_device_that_somebody_waits_for_is_busy() {
    let busy = Device {
        is_busy: true,
        driver: Driver::default(),
        ..device(Vec::new())
    };
    let text =
        "somebody waits for the backend: an access of the guest, a reset, or another command";
    expect(busy, &[text]);
}

#[test]
fn a_request_that_was_not_answered_is_named() {
    let mut silent = device(Vec::new());
    silent.unanswered = vec![Unanswered {
        by: "backend".into(),
        what: "GET_CONFIG".into(),
        age: 15 * SECOND,
    }];
    expect(
        silent,
        &["the backend has not answered GET_CONFIG, asked 15 s before the end"],
    );
}

#[test]
fn a_change_that_the_driver_does_not_acknowledge_is_named() {
    let mut ignored = device(Vec::new());
    ignored.driver.interrupt_status = 3;
    expect(ignored.clone(), &[IDLE]);
    ignored.driver.ignores_config_change = true;
    let text = "the interrupt is asserted and the driver has not acknowledged it (InterruptStatus \
                0x3): the configuration or the status has changed";
    expect(ignored, &[text]);
}

#[test]
fn queues_that_were_not_set_up_say_nothing() {
    let unused = Queue {
        state: QueueState::NotSetUp,
        ..Queue::default()
    };
    expect(device(vec![unused]), &[IDLE]);
}

#[test]
fn threads_that_do_the_same_are_one_line() {
    let text = with_threads(&['S', 'R', 'S', 'S']).to_string();
    let expected = "sleeping in io_schedule: thread-0 (1) and 2 more\n    running in io_schedule: thread-1 (2)";
    assert!(text.contains(expected), "{text}");
}
