use super::*;
use crate::trace::record::{Available, Event, Message, Side, Used};
use vhost::vhost_user::message::FrontendReq as F;

const SECOND: u64 = 1_000_000_000;

/// Records with their times in seconds.
fn explained(events: Vec<(u64, Event)>) -> String {
    let record = |(seconds, event)| Record {
        number: 0,
        time: seconds * SECOND,
        device: "disk".into(),
        device_type: Some(2),
        connection: 1,
        event,
    };
    explain(&events.into_iter().map(record).collect::<Vec<_>>())
}

fn say(code: F, flags: u32, words: &[u32]) -> Event {
    let payload: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    Event::Message(Message {
        channel: Side::Frontend,
        from: Side::Frontend,
        request: code.into(),
        flags,
        size: payload.len() as u32,
        payload,
        files: Vec::new(),
        latency: None,
    })
}

fn started() -> Vec<(u64, Event)> {
    vec![
        (0, say(F::SET_FEATURES, 1, &[1 << 30, 1])),
        (0, say(F::SET_VRING_KICK, 1, &[0, 0])),
        (0, say(F::SET_VRING_ENABLE, 1, &[0, 1])),
    ]
}

fn available(head: u16) -> Event {
    Event::Available(Available {
        queue: 0,
        head,
        what: "IN sector 5, 4096 bytes".into(),
        buffers: Vec::new(),
    })
}

fn used(head: u16) -> Event {
    Event::Used(Used {
        queue: 0,
        head,
        written: 1,
        what: None,
        result: None,
        latency: None,
    })
}

#[test]
fn a_request_that_the_backend_does_not_finish_is_named() {
    let mut events = started();
    events.extend([(1, Event::Kick { queue: 0 }), (1, available(3))]);
    events.extend([
        (1, available(4)),
        (2, used(4)),
        (2, Event::Call { queue: 0 }),
    ]);
    events.push((31, say(F::SET_OWNER, 1, &[])));
    let text = explained(events);
    let expected = "=> the oldest of 1 requests in flight has waited for 30 s (IN sector 5, 4096 \
                    bytes): the backend was kicked last 30 s before the end, and it has finished \
                    later requests since";
    assert!(text.contains(expected), "{text}");
    assert!(
        text.contains("queue 0: started, 1 kicks, 1 calls, 2 chains, 1 used"),
        "{text}"
    );
}

#[test]
fn a_backend_that_does_not_answer_is_named() {
    let text = explained(vec![
        (0, say(F::GET_FEATURES, 1, &[])),
        (1, say(F::GET_FEATURES, 5, &[0, 0])),
        (1, say(F::SET_VRING_NUM, 9, &[0, 256])),
        (16, say(F::SET_OWNER, 1, &[])),
    ]);
    let expected = "=> the backend has not answered SET_VRING_NUM, asked 15 s before the end";
    assert!(text.contains(expected), "{text}");
    assert!(!text.contains("GET_FEATURES"), "{text}");
}

#[test]
fn a_queue_that_was_never_enabled_is_named() {
    let mut events = started();
    events.pop();
    let text = explained(events);
    assert!(
        text.contains("=> it was started and is not enabled"),
        "{text}"
    );
    assert!(text.contains("they are traced with --rings"), "{text}");
}

#[test]
fn a_queue_that_the_driver_never_filled_is_named() {
    let mut events = started();
    events.extend([
        (0, say(F::SET_VRING_KICK, 1, &[1, 0])),
        (1, Event::Kick { queue: 0 }),
    ]);
    events.push((0, say(F::SET_VRING_ENABLE, 1, &[1, 1])));
    let text = explained(events);
    let (_, queue) = text.split_once("queue 1:").unwrap();
    assert!(
        queue.contains("=> the driver has not made any buffer available"),
        "{text}"
    );
}

#[test]
fn a_call_that_was_never_sent_is_named() {
    let mut events = started();
    events.extend([
        (1, Event::Kick { queue: 0 }),
        (1, available(3)),
        (2, used(3)),
    ]);
    events.push((20, say(F::SET_OWNER, 1, &[])));
    let text = explained(events);
    assert!(
        text.contains("=> the backend has used chains and sent no call"),
        "{text}"
    );
}

#[test]
fn a_backend_that_leaves_requests_behind_is_named_and_one_that_works_is_not() {
    let mut events = started();
    events.extend([(1, Event::Kick { queue: 0 }), (1, available(3))]);
    events.push((2, Event::Closed { by: Side::Backend }));
    let text = explained(events);
    assert!(text.contains("disk#1: closed by the backend"), "{text}");
    assert!(text.contains("=> 1 requests were in flight"), "{text}");
    let mut events = started();
    events.extend([
        (1, Event::Kick { queue: 0 }),
        (1, available(3)),
        (1, used(3)),
    ]);
    events.extend([
        (1, Event::Call { queue: 0 }),
        (30, say(F::SET_OWNER, 1, &[])),
    ]);
    let text = explained(events);
    assert!(!text.contains("=>"), "{text}");
}

#[test]
fn faults_on_purpose_are_named() {
    let mut events = started();
    for (time, what) in [(1, "delay by 5 ms"), (2, "drop")] {
        let (at, what) = ("kick, queue 0".into(), what.into());
        events.push((time, Event::Fault { at, what }));
    }
    events.push((30, say(F::SET_OWNER, 1, &[])));
    let text = explained(events);
    let expected = "=> 2 faults were injected on purpose, the last 28 s before the end: drop \
                    (kick, queue 0)";
    assert!(text.contains(expected), "{text}");
}
