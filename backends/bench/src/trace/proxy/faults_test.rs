use std::fs::File;
use std::os::fd::OwnedFd;

use vhost_user_wire::HEADER_SIZE;

use super::*;

fn request(code: F) -> u32 {
    code.into()
}

fn faults(records: &[Record]) -> Vec<&str> {
    let fault = |record: &'_ Record| matches!(&record.event, Event::Fault { .. });
    let records = records.iter().filter(|record| fault(record));
    records
        .filter_map(|record| match &record.event {
            Event::Fault { what, .. } => Some(&what[..]),
            _ => None,
        })
        .collect()
}

#[test]
fn messages_are_dropped_doubled_and_put_behind_the_next() {
    let text = "[[fault]]\nmessage = \"SET_OWNER\"\nnth = 2\ndo = \"drop\"\n\
                [[fault]]\nmessage = \"GET_STATUS\"\nnth = 1\ndo = \"double\"\n\
                [[fault]]\nmessage = \"GET_FEATURES\"\nnth = 1\ndo = \"reorder\"\n";
    let bench = Bench::with_faults(text);
    let (frontend, mut backend) = bench.connect();
    let sent = [F::SET_OWNER, F::SET_OWNER, F::GET_FEATURES, F::GET_STATUS];
    sent.into_iter()
        .for_each(|code| send(&frontend, code, &[], &[]));
    let got = [F::SET_OWNER, F::GET_STATUS, F::GET_STATUS, F::GET_FEATURES];
    for code in got {
        assert_eq!(receive(&mut backend).header.request, request(code));
    }
    let schedule = bench.faults.schedule();
    let records = bench.finish();
    assert_eq!(faults(&records), ["drop", "reorder", "double"]);
    assert!(
        schedule.starts_with("# 3 faults were injected\nseed = 7\n"),
        "{schedule}"
    );
    assert_eq!(FaultFile::parse(&schedule).unwrap().rules.len(), 3);
}

#[test]
fn a_message_that_is_held_back_is_sent_when_its_sender_hangs_up() {
    let text = "[[fault]]\nmessage = \"any\"\nnth = 1\ndo = \"reorder\"\n";
    let bench = Bench::with_faults(text);
    let (frontend, mut backend) = bench.connect();
    send(&frontend, F::SET_OWNER, &[], &[]);
    drop(frontend);
    assert_eq!(receive(&mut backend).header.request, request(F::SET_OWNER));
    bench.finish();
}

#[test]
fn messages_are_truncated_and_corrupted() {
    let text = "[[fault]]\nmessage = \"SET_FEATURES\"\nnth = 1\ndo = \"corrupt\"\nbyte = 12\n\
                [[fault]]\nmessage = \"SET_FEATURES\"\nnth = 2\ndo = \"truncate\"\nbytes = 15\n";
    let bench = Bench::with_faults(text);
    let (frontend, mut backend) = bench.connect();
    send(&frontend, F::SET_FEATURES, &[5; 8], &[]);
    send(&frontend, F::SET_FEATURES, &[5; 8], &[]);
    assert_eq!(receive(&mut backend).payload, [0xfa, 5, 5, 5, 5, 5, 5, 5]);
    drop(frontend);
    let mut rest = Vec::new();
    io::Read::read_to_end(&mut backend.stream(), &mut rest).unwrap();
    assert_eq!(rest[HEADER_SIZE..], [5; 3]);
    assert_eq!(
        faults(&bench.finish()),
        ["corrupt byte 12", "truncate to 15 bytes"]
    );
}

#[test]
fn replies_are_slow() {
    let text = "[[fault]]\nmessage = \"any\"\nfrom = \"backend\"\nevery = 1\ndo = \"delay\"\n\
                milliseconds = 100\n";
    let bench = Bench::with_faults(text);
    let (mut frontend, mut backend) = bench.connect();
    let began = Instant::now();
    send(&frontend, F::GET_FEATURES, &[], &[]);
    let reply = receive(&mut backend).header.reply(8);
    backend.send(reply, &[0; 8], &[], &deadline()).unwrap();
    receive(&mut frontend);
    assert!(began.elapsed() >= Duration::from_millis(100));
    // A delay does not outlast its connection.
    assert_eq!(faults(&bench.finish()), ["delay by 100 ms"]);
}

#[test]
fn a_connection_is_cut_and_the_next_one_is_not() {
    let text = "[[fault]]\nmessage = \"any\"\nnth = 2\ndo = \"cut\"\n";
    let bench = Bench::with_faults(text);
    let (mut frontend, mut backend) = bench.connect();
    send(&frontend, F::SET_OWNER, &[], &[]);
    send(&frontend, F::GET_FEATURES, &[], &[]);
    receive(&mut backend);
    assert_ended(&mut backend);
    assert_ended(&mut frontend);
    let (frontend, mut backend) = bench.connect();
    send(&frontend, F::GET_FEATURES, &[], &[]);
    receive(&mut backend);
    let records = bench.finish();
    assert_eq!(faults(&records), ["cut"]);
    // Nobody has hung up.
    let is_closed = |record: &Record| matches!(record.event, Event::Closed { .. });
    assert!(!records.iter().any(is_closed), "{records:?}");
}

#[test]
fn the_process_of_the_proxy_itself_is_not_killed() {
    let text = "[[fault]]\nmessage = \"any\"\nnth = 1\ndo = \"kill\"\n";
    let bench = Bench::with_faults(text);
    let (mut frontend, _backend) = bench.connect();
    assert_ended(&mut frontend);
    bench.finish();
}

/// Takes the signal of an eventfd, if one comes in time.
fn take(event: &File, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).unwrap();
    poll(&mut [PollFd::new(event, PollFlags::IN)], Some(&limit)).unwrap();
    rustix::io::read(event, &mut [0; 8]).is_ok()
}

const LONG: Duration = Duration::from_secs(20);

/// A driver's eventfd, and the backend's for the same signal.
fn signals(frontend: &Connection, backend: &mut Connection, code: F) -> (File, File) {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let ours = eventfd(0, flags).unwrap();
    send(frontend, code, &[0; 8], &[ours.as_fd()]);
    let theirs = receive(backend).take_file().unwrap();
    (OwnedFd::into(ours), theirs)
}

fn signal(mut event: &File) {
    event.write_all(&1u64.to_ne_bytes()).unwrap();
}

/// Waits until the proxy has recorded so many kicks.
fn wait_for_kicks(bench: &Bench, count: usize) {
    let began = Instant::now();
    let is_kick = |record: &&Record| matches!(record.event, Event::Kick { .. });
    while bench.kept.0.lock().unwrap().iter().filter(is_kick).count() < count {
        assert!(began.elapsed() < LONG);
        thread::yield_now();
    }
}

#[test]
fn kicks_are_dropped_delayed_and_doubled_and_calls_are_not() {
    let text = "[[fault]]\nkick = 0\nnth = 1\ndo = \"drop\"\n\
                [[fault]]\nkick = 0\nnth = 2\ndo = \"delay\"\nmilliseconds = 100\n\
                [[fault]]\nkick = 0\nnth = 3\ndo = \"double\"\n";
    let bench = Bench::with_faults(text);
    let (frontend, mut backend) = bench.connect();
    let (kick, kicked) = signals(&frontend, &mut backend, F::SET_VRING_KICK);
    let (called, call) = signals(&frontend, &mut backend, F::SET_VRING_CALL);
    signal(&kick);
    wait_for_kicks(&bench, 1);
    // A signal behind it has passed, and the kick has not.
    signal(&call);
    assert!(take(&called, LONG));
    assert!(!take(&kicked, Duration::ZERO));
    let began = Instant::now();
    signal(&kick);
    assert!(take(&kicked, LONG));
    assert!(began.elapsed() >= Duration::from_millis(100));
    signal(&kick);
    assert!(take(&kicked, LONG) && take(&kicked, LONG));
    assert_eq!(
        faults(&bench.finish()),
        ["drop", "delay by 100 ms", "double"]
    );
}

#[test]
fn a_kick_that_is_held_back_when_its_connection_ends_is_the_driver_s() {
    let text = "[[fault]]\nkick = 0\nnth = 1\ndo = \"delay\"\nmilliseconds = 600000\n";
    let bench = Bench::with_faults(text);
    let (frontend, mut backend) = bench.connect();
    let (kick, _kicked) = signals(&frontend, &mut backend, F::SET_VRING_KICK);
    signal(&kick);
    wait_for_kicks(&bench, 1);
    drop(frontend);
    bench.finish();
    assert!(take(&kick, LONG));
}

#[test]
fn a_kick_cuts_the_connection() {
    let text = "[[fault]]\nkick = 0\nnth = 1\ndo = \"cut\"\n";
    let bench = Bench::with_faults(text);
    let (mut frontend, mut backend) = bench.connect();
    let (kick, _kicked) = signals(&frontend, &mut backend, F::SET_VRING_KICK);
    signal(&kick);
    assert_ended(&mut frontend);
    assert_ended(&mut backend);
    bench.finish();
    assert!(take(&kick, LONG));
}
