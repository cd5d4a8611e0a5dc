//! Each rule for queues finds what it is for, and nothing where one fact is another.

use crate::picture::{
    Backend, Device, Driver, Indices, Look, Oldest, Queue, QueueState, Ring, Seen, Thread, Wish,
};

pub const SECOND: u64 = 1_000_000_000;

/// A look at a split ring of 256 entries, of a backend that has read its kicks.
pub fn look(available: u16, used: u16) -> Look {
    Look {
        ring: Some(Ring {
            size: 256,
            indices: Some(Indices { available, used }),
            is_touched: available != 0,
            has_used: used != 0,
            ..Ring::default()
        }),
        unread_kicks: Some(0),
        taken: None,
    }
}

pub fn queue(before: Look, now: Look) -> Queue {
    Queue {
        state: QueueState::Running,
        now: Some(now),
        before: Some(before),
        ..Queue::default()
    }
}

/// A device whose backend sleeps.
pub fn device(queues: Vec<Queue>) -> Device {
    Device {
        id: "disk".into(),
        driver: Driver {
            status: Some("ACKNOWLEDGE|DRIVER|FEATURES_OK|DRIVER_OK".into()),
            acknowledged: Some(7),
            ..Driver::default()
        },
        backend: Some(Backend {
            is_connected: true,
            pid: Some(7),
            threads: vec![Thread {
                state: 'S',
                ..Thread::default()
            }],
            ..Backend::default()
        }),
        queues,
        apart: 300_000_000,
        ..Device::default()
    }
}

/// The queue stays as it is through both looks.
fn still(look: Look) -> Queue {
    queue(look.clone(), look)
}

fn diagnoses(queue: Queue) -> Vec<String> {
    let mut device = device(vec![queue]);
    device.diagnose();
    device.queues.remove(0).diagnoses
}

#[track_caller]
fn expect(queue: Queue, expected: &[&str]) {
    assert_eq!(diagnoses(queue), expected);
}

fn with(mut look: Look, change: impl FnOnce(&mut Ring)) -> Look {
    change(look.ring.as_mut().unwrap());
    look
}

#[test]
fn a_ring_that_is_broken_in_both_looks_is_named() {
    let broken = |defects: &[&str]| {
        let defects = defects.iter().map(ToString::to_string).collect();
        with(look(9, 7), |ring| ring.broken = defects)
    };
    let all = broken(&["a", "b", "c", "d", "e", "f"]);
    let text = "the driver has broken the ring: a; b; c; d; and 2 more";
    expect(still(all.clone()), &[text]);
    let passing = queue(broken(&["c"]), all);
    expect(passing, &["the driver has broken the ring: c"]);
    let mended = queue(broken(&["c"]), look(12, 12));
    expect(mended, &[]);
}

#[test]
fn a_queue_that_does_not_run_is_named() {
    let state = |state| Queue {
        state,
        ..still(look(7, 7))
    };
    let text = "it was started and is not enabled: the backend must not serve it";
    expect(state(QueueState::Disabled), &[text]);
    let text = "the driver has set it up, and the device does not work on it";
    expect(state(QueueState::Stopped), &[text]);
    expect(state(QueueState::Running), &[]);
}

fn receive(look: Look) -> Queue {
    Queue {
        is_filled_ahead: true,
        ..still(look)
    }
}

#[test]
fn a_receive_queue_without_room_is_named() {
    let text = "the driver never filled the receive queue: the device has nothing to put into it";
    expect(receive(look(0, 0)), &[text]);
    let text = "the driver has given the device no buffers in place of those that it has used: \
                the receive queue is empty";
    expect(receive(look(7, 7)), &[text]);
    expect(receive(look(9, 7)), &[]);
    expect(still(look(0, 0)), &[]);
}

#[test]
fn a_kick_that_is_not_read_is_named() {
    let unread = |unread| Look {
        unread_kicks: Some(unread),
        ..look(9, 7)
    };
    let text = "the kick is waiting in the eventfd: the backend has not read it for 300 ms (2 \
                signals)";
    expect(still(unread(2)), &[text]);
    let long = Queue {
        stalled: 12 * SECOND,
        ..still(unread(2))
    };
    expect(long, &[&text.replace("300 ms", "12 s")]);
    expect(queue(unread(0), unread(2)), &[]);
    let polled = with(unread(2), |ring| ring.kicks = Wish::Never);
    expect(still(polled), &[]);
    expect(receive(unread(2)), &[]);
}

#[test]
fn a_kick_that_was_not_sent_is_named() {
    let asked = |event| with(look(42, 40), |ring| ring.kicks = Wish::AtIndex(event));
    let text = "the backend has not been kicked since it asked for kicks: avail_event was 40 and \
                passed at 41, and the available index is 42";
    expect(still(asked(40)), &[text]);
    let on_its_way = Look {
        unread_kicks: Some(1),
        ..asked(40)
    };
    expect(queue(look(42, 40), on_its_way), &[]);
}

/// Signals stay in the eventfd of a backend that waits edge-triggered.
#[test]
fn a_kick_that_an_edge_would_have_told_of_is_known_to_be_missing() {
    let unread = Look {
        unread_kicks: Some(9),
        ..with(look(42, 40), |ring| ring.kicks = Wish::AtIndex(40))
    };
    let edge = Queue {
        is_edge_triggered: Some(true),
        ..still(unread)
    };
    let found = diagnoses(edge.clone());
    assert!(
        found[0].starts_with("the backend has not been kicked since"),
        "{found:?}"
    );
    let mut stopped = device(vec![edge]);
    stopped.backend.as_mut().unwrap().threads[0].state = 'T';
    stopped.diagnose();
    let text = "the backend has not seen all of the 2 requests: it does not run";
    assert_eq!(stopped.queues[0].diagnoses, [text]);
}

#[test]
fn a_kick_that_was_not_sent_is_known_from_the_record_too() {
    let by_record = |taken| Look {
        taken: Some(taken),
        ..look(42, 40)
    };
    let text = "the backend has not been kicked: 2 requests are available, and its record has none \
                of them in flight";
    expect(still(by_record(0)), &[text]);
    let text = "the backend has taken 2 requests, and has finished none for 300 ms";
    expect(still(by_record(2)), &[text]);
}

#[test]
fn requests_that_the_backend_does_not_finish_are_named() {
    let seen = with(look(42, 40), |ring| ring.kicks = Wish::AtIndex(42));
    let text = "the backend has seen all 2 requests, and has finished none for 300 ms";
    expect(still(seen), &[text]);
    let text = "2 requests have waited for 300 ms, and the backend has read its kicks: it works \
                on them, or it was not kicked for them";
    expect(still(look(42, 40)), &[text]);
    expect(queue(look(42, 40), look(42, 41)), &[]);
}

#[test]
fn an_interrupt_that_the_driver_waits_for_is_named() {
    let waits = |used, event| {
        with(look(used, used), |ring| {
            ring.interrupts = Wish::AtIndex(event)
        })
    };
    let text = "the driver waits for an interrupt that the backend did not send, or that the \
                guest did not take: used_event was 40 and passed at 41, and the used index is 41";
    expect(still(waits(41, 40)), &[text]);
    assert_eq!(
        diagnoses(still(waits(0, u16::MAX))).len(),
        1,
        "around the end"
    );
    // The driver has seen all; it polls; it has written 0, as Linux does for "never".
    for (used, event) in [(41, 41), (1000, 40), (41, 0)] {
        expect(still(waits(used, event)), &[]);
    }
    assert_eq!(diagnoses(still(waits(1, 0))).len(), 1, "the first one");
}

#[test]
fn a_first_interrupt_that_never_came_is_named() {
    let mut device = device(vec![still(look(2, 2))]);
    device.driver.acknowledged = Some(0);
    device.diagnose();
    let text = "the driver wants interrupts and has acknowledged none, though the device has used \
                chains: the backend did not send them, or the guest did not take them";
    assert_eq!(device.queues[0].diagnoses, [text]);
    let unwanted = with(look(2, 2), |ring| ring.interrupts = Wish::Never);
    device.queues[0] = still(unwanted);
    device.diagnose();
    assert_eq!(device.queues[0].diagnoses, [""; 0]);
}

#[test]
fn errors_that_were_reported_are_counted() {
    let queue = Queue {
        errors: 3,
        ..still(look(7, 7))
    };
    expect(queue, &["the backend has reported 3 errors on it"]);
}

/// A queue in a trace, whose rings nobody has looked at.
fn traced(seen: Seen) -> Queue {
    Queue {
        state: QueueState::Running,
        seen: Some(seen),
        ..Queue::default()
    }
}

#[test]
fn the_oldest_request_of_a_trace_is_named() {
    let seen = Seen {
        kicks: 1,
        chains: 1,
        last_kick: Some(30 * SECOND),
        in_flight: 1,
        oldest: Some(Oldest {
            age: 30 * SECOND,
            what: "FLUSH".into(),
        }),
        ..Seen::default()
    };
    let text = "the oldest of 1 requests in flight has waited for 30 s (FLUSH): the backend was \
                kicked last 30 s before the end, and it has finished none since";
    expect(traced(seen.clone()), &[text]);
    let receive = Queue {
        is_filled_ahead: true,
        ..traced(seen)
    };
    expect(receive, &[]);
}

#[test]
fn a_queue_of_a_trace_without_buffers_or_calls_is_named() {
    expect(
        traced(Seen::default()),
        &["the driver has not made any buffer available, nor kicked"],
    );
    let seen = |last_call| Seen {
        kicks: 1,
        chains: 1,
        used: 1,
        last_used: Some(9 * SECOND),
        last_call,
        ..Seen::default()
    };
    let text = "the backend has used chains and sent no call for them: the driver has to poll, or \
                have said that it wants none";
    expect(traced(seen(None)), &[text]);
    expect(traced(seen(Some(9 * SECOND))), &[]);
}

#[test]
fn a_device_that_is_broken_or_away_has_queues_that_wait_for_nothing() {
    let mut device = device(vec![still(look(42, 40))]);
    device.driver.status = Some("ACKNOWLEDGE|DRIVER|DRIVER_OK|NEEDS_RESET".into());
    device.diagnose();
    assert_eq!(device.queues[0].diagnoses, [""; 0]);
}
