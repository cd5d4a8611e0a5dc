use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;
use vhost_user_wire::Payload;

const PROMPT: Duration = Duration::from_secs(20);
/// Long enough for a thread that does not wait to be seen to continue.
const MOMENT: Duration = Duration::from_millis(50);

fn pair(acks: bool) -> (ConfigNotifier, Connection) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let notifier = ConfigNotifier::default();
    notifier.set_channel(Some(ours), acks);
    (notifier, Connection::to_backend(theirs))
}

fn request(frontend: &mut Connection) -> Header {
    let message = frontend.receive(&Deadline::after(PROMPT)).unwrap();
    let change = u32::from(BackendReq::CONFIG_CHANGE_MSG);
    assert_eq!(message.header.request, change);
    message.header
}

fn answer(frontend: &Connection, request: Header) {
    let payload = 0u64.to_bytes();
    let header = request.reply(payload.len());
    frontend.send_now(header, &payload).unwrap();
}

#[test]
fn a_request_that_changes_the_configuration_waits_for_the_frontend() {
    let (notifier, mut frontend) = pair(true);
    let (done, is_done) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            notifier.publish();
            done.send(()).unwrap();
        });
        let asked = request(&mut frontend);
        assert!(asked.needs_reply());
        is_done.recv_timeout(MOMENT).unwrap_err();
        answer(&frontend, asked);
        is_done.recv_timeout(PROMPT).unwrap();
    });
}

#[test]
fn a_frontend_that_does_not_answer_is_not_waited_for_for_ever() {
    let (notifier, mut frontend) = pair(true);
    let start = Instant::now();
    notifier.publish();
    assert!(start.elapsed() >= PUBLISH_DEADLINE);
    let late = request(&mut frontend);
    // The late answer is not taken for that to the next request.
    answer(&frontend, late);
    let (done, is_done) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            notifier.publish();
            done.send(()).unwrap();
        });
        let next = request(&mut frontend);
        is_done.recv_timeout(MOMENT).unwrap_err();
        answer(&frontend, next);
        is_done.recv_timeout(PROMPT).unwrap();
    });
}

#[test]
fn a_frontend_that_does_not_acknowledge_is_only_told() {
    let (notifier, mut frontend) = pair(false);
    notifier.publish();
    assert!(!request(&mut frontend).needs_reply());
    drop(frontend);
    notifier.publish();
    notifier.set_channel(None, false);
    notifier.publish();
}

/// More changes than its socket has room for.
#[test]
fn a_frontend_that_reads_nothing_holds_nobody_up() {
    let (notifier, mut frontend) = pair(false);
    let start = Instant::now();
    for _ in 0..2000 {
        notifier.notify();
    }
    assert!(start.elapsed() < PUBLISH_DEADLINE, "{:?}", start.elapsed());
    let mut unread = 0;
    while frontend.try_receive().unwrap().is_some() {
        unread += 1;
    }
    assert!((1..2000).contains(&unread), "{unread}");
    // It reads again, and is told again.
    notifier.notify();
    request(&mut frontend);
}
