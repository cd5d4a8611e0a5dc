//! What can be wrong with a device as a whole.

use crate::duration::duration;
use crate::picture::{Backend, Device, QueueState, Thread};

type Rule = fn(&Device) -> Vec<String>;

/// Each says what it finds.
pub const RULES: &[Rule] = &[
    is_busy,
    needs_reset,
    has_failed,
    is_not_started,
    is_away,
    is_not_running,
    does_not_answer,
    ignores_config_change,
];

fn has_status(device: &Device, bit: &str) -> bool {
    let status = device.driver.status.as_deref().unwrap_or_default();
    status
        .split(|c: char| !c.is_ascii_uppercase() && c != '_')
        .any(|name| name == bit)
}

/// The driver uses the device, and both are sound.
pub fn is_live(device: &Device) -> bool {
    device.driver.status.is_none()
        || has_status(device, "DRIVER_OK")
            && !has_status(device, "NEEDS_RESET")
            && !has_status(device, "FAILED")
}

fn when(is_so: bool, text: impl Into<String>) -> Vec<String> {
    Vec::from_iter(is_so.then(|| text.into()))
}

fn is_busy(device: &Device) -> Vec<String> {
    let text =
        "somebody waits for the backend: an access of the guest, a reset, or another command";
    when(device.is_busy, text)
}

fn needs_reset(device: &Device) -> Vec<String> {
    let text = "DEVICE_NEEDS_RESET is set: the device has failed, and works again when the driver has reset it";
    when(has_status(device, "NEEDS_RESET"), text)
}

fn has_failed(device: &Device) -> Vec<String> {
    let text = "the driver has set FAILED: it has given up on the device";
    when(has_status(device, "FAILED"), text)
}

fn is_not_started(device: &Device) -> Vec<String> {
    let Some(status) = &device.driver.status else {
        return Vec::new();
    };
    let is_begun = has_status(device, "ACKNOWLEDGE");
    if has_status(device, "FAILED") || is_begun && has_status(device, "DRIVER_OK") {
        return Vec::new();
    }
    match is_begun {
        false => vec!["no driver has taken the device".into()],
        true => vec![format!(
            "the driver has not finished its setup: the status is {status}, without DRIVER_OK"
        )],
    }
}

fn is_away(device: &Device) -> Vec<String> {
    let backend = device.backend.iter();
    let away = backend.filter(|backend| !backend.is_connected);
    away.map(|backend| match &backend.problem {
        Some(problem) => format!("no backend is connected: {problem}"),
        None => "no backend is connected".into(),
    })
    .collect()
}

/// Of several threads in one state, one is named.
fn is_not_running(device: &Device) -> Vec<String> {
    let Some(backend) = &device.backend else {
        return Vec::new();
    };
    if let (Some(pid), [], true) = (backend.pid, &backend.threads[..], backend.is_connected) {
        return vec![format!(
            "the backend's process {pid} is gone, or is hidden from this one"
        )];
    }
    let states = [
        ('T', "is stopped by a signal (kill -CONT resumes it)"),
        ('t', "is stopped by a debugger"),
        (
            'D',
            "waits for a disk or for another resource of the kernel, and cannot be interrupted",
        ),
        ('Z', "has ended, and nobody has waited for it"),
    ];
    let found = states
        .iter()
        .filter_map(|(state, what)| in_state(backend, *state, what));
    found.collect()
}

fn in_state(backend: &Backend, state: char, what: &str) -> Option<String> {
    let mut there = backend
        .threads
        .iter()
        .filter(|thread| thread.state == state);
    let Thread {
        id, name, waits_in, ..
    } = there.next()?;
    let place = waits_in.as_ref().map(|place| format!(", in {place}"));
    let place = place.filter(|_| state == 'D').unwrap_or_default();
    let count = there.count() + 1;
    Some(match count {
        count if count == backend.threads.len() => format!("the backend {what}{place}"),
        1 => format!("the backend's thread {id} ({name}) {what}{place}"),
        count => {
            let more = count - 1;
            format!(
                "the backend's thread {id} ({name}) {what}{place}; {more} more are in the same state"
            )
        }
    })
}

fn does_not_answer(device: &Device) -> Vec<String> {
    let text = |unanswered: &crate::picture::Unanswered| {
        let (by, what, age) = (&unanswered.by, &unanswered.what, duration(unanswered.age));
        format!("the {by} has not answered {what}, asked {age} before the end")
    };
    device.unanswered.iter().map(text).collect()
}

fn ignores_config_change(device: &Device) -> Vec<String> {
    let text = format!(
        "the interrupt is asserted and the driver has not acknowledged it (InterruptStatus {:#x}): \
         the configuration or the status has changed",
        device.driver.interrupt_status
    );
    when(device.driver.ignores_config_change, text)
}

/// What is said of a device that nothing else is said of.
pub fn rest(device: &Device) -> Option<String> {
    let is_silent =
        device.diagnoses.is_empty() && device.queues.iter().all(|queue| queue.diagnoses.is_empty());
    // A trace says when something went wrong, and nothing where all went well.
    if !is_silent || device.driver.status.is_none() {
        return None;
    }
    let requests = || {
        let running = device
            .queues
            .iter()
            .filter(|queue| queue.state == QueueState::Running);
        running.filter(|queue| !queue.is_filled_ahead)
    };
    let finished: u32 = requests().map(|queue| u32::from(queue.finished())).sum();
    let apart = duration(device.apart);
    if finished > 0 {
        return Some(format!(
            "it works: {finished} requests were finished in {apart}"
        ));
    }
    if !device
        .queues
        .iter()
        .all(|queue| queue.before.is_none() || queue.is_still())
    {
        return Some(format!("it works: its queues have changed within {apart}"));
    }
    let in_flight: u64 = requests().filter_map(|queue| queue.in_flight()).sum();
    (in_flight == 0).then(|| "idle: nothing is asked of it".into())
}
