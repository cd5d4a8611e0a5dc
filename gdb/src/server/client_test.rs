use std::os::unix::net::UnixStream;

use super::*;
use crate::limits::PACKET_SIZE;
use crate::testing::{Scripted, packet};

/// A client on a socket, and the other end.
fn connected<'t>(session: &mut Session<'t>) -> (Client<'t>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let stream = Stream::Unix(ours);
    stream.prepare().unwrap();
    theirs.set_nonblocking(true).unwrap();
    (Client::new(stream, session).unwrap(), theirs)
}

/// Most that may be kept for a client: one answer.
const ANSWER: usize = PACKET_SIZE + 8;

#[test]
fn a_client_that_asks_and_does_not_read_is_not_hoarded_for() {
    let (mut target, hand) = Scripted::new(&[0]);
    // Nothing that repeats, so that no run length shortens an answer.
    let noise = (0..0x1_0000u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 13) as u8);
    hand.script().ram = noise.collect();
    let mut session = Session::new(&mut target);
    let (mut client, mut gdb) = connected(&mut session);

    gdb.write_all(&packet(b"QStartNoAckMode")).unwrap();
    client.check(&mut session).unwrap();
    assert_eq!(gdb.read(&mut [0; 16]).unwrap(), b"+$OK#9a".len());
    let requests = packet(b"m0,f000").repeat(2000);
    let mut asked = 0;
    for _ in 0..1000 {
        if let Ok(count) = gdb.write(&requests[asked..]) {
            asked += count;
        }
        client.on_ready(&mut session).unwrap();
        let pending = client.wire().unwrap().pending().len();
        assert!(pending <= ANSWER, "{pending} bytes wait");
        assert!(client.input.len() <= BUFFER_SIZE);
    }
    assert!(client.is_blocked());

    // Once it reads, it gets every answer that it asked for.
    let mut answers = 0;
    let mut buf = vec![0; 1 << 16];
    let complete = asked / packet(b"m0,f000").len();
    while answers < complete {
        if let Ok(count) = gdb.read(&mut buf) {
            answers += buf[..count].iter().filter(|byte| **byte == b'#').count();
        }
        client.on_ready(&mut session).unwrap();
    }
}

#[test]
fn the_end_of_a_connection_is_found_behind_its_data() {
    let (mut target, _) = Scripted::new(&[0]);
    let mut session = Session::new(&mut target);
    let (mut client, mut gdb) = connected(&mut session);
    assert!(client.check(&mut session).is_ok());
    gdb.write_all(&b"+".repeat(100_000)).unwrap();
    drop(gdb);
    assert!(matches!(client.check(&mut session), Err(Leave::Closed)));
}

#[test]
fn garbage_ends_the_connection_with_its_reason() {
    let (mut target, _) = Scripted::new(&[0]);
    let mut session = Session::new(&mut target);
    let long = [b"$", &b"x".repeat(PACKET_SIZE + 1)[..]].concat();
    for garbage in [&b"\x80"[..], b"GET / HTTP/1.1\r\n", &long] {
        let (mut client, mut gdb) = connected(&mut session);
        let mut result = Ok(());
        for piece in garbage.chunks(BUFFER_SIZE) {
            gdb.write_all(piece).unwrap();
            result = client.check(&mut session);
        }
        let start = &garbage[..garbage.len().min(8)];
        assert!(
            matches!(result, Err(Leave::Fault(_))),
            "{start:?}: {result:?}"
        );
    }
}

/// What `client` answers to `bytes`.
fn answer<'t>(
    client: &mut Client<'t>,
    gdb: &mut UnixStream,
    session: &mut Session<'t>,
    bytes: &[u8],
) -> String {
    gdb.write_all(bytes).unwrap();
    client.check(session).unwrap();
    let mut answer = vec![0; 1 << 12];
    let count = gdb.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

#[test]
fn a_packet_that_makes_no_sense_is_an_error_of_that_packet_only() {
    let (mut target, _) = Scripted::new(&[0x1000, 0x2000]);
    let mut session = Session::new(&mut target);
    let (mut client, mut gdb) = connected(&mut session);
    let mut ask = |body: &str| {
        let packet = packet(body.as_bytes());
        answer(&mut client, &mut gdb, &mut session, &packet)
    };
    assert!(ask("qSupported:multiprocess+").contains("multiprocess+"));
    assert_eq!(ask("Hgp1.2"), "+$OK#9a");
    let rip = ask("p10");
    for nonsense in [
        "mzz",
        "Z0",
        "Hg-1",
        "T-1",
        "vCont;t",
        "vCont;q:1",
        "P10",
        "g1",
        "vKill",
    ] {
        assert_eq!(ask(nonsense), "+$E16#ac", "{nonsense}");
    }
    // What was agreed on still holds: the thread, processes in thread names.
    assert_eq!(ask("p10"), rip);
    assert_eq!(ask("qfThreadInfo"), "+$mp01.01,p01.02#5a");
    assert_eq!(ask("QStartNoAckMode"), "+$OK#9a");
    assert_eq!(ask("mzz"), "$E16#ac");
    assert_eq!(ask("p10"), rip[1..]);
}

#[test]
fn damage_is_mended_by_sending_again() {
    let (mut target, _) = Scripted::new(&[0]);
    let mut session = Session::new(&mut target);
    let (mut client, mut gdb) = connected(&mut session);
    let mut say = |bytes: &[u8]| answer(&mut client, &mut gdb, &mut session, bytes);
    assert_eq!(say(b"$qAttached#00"), "-");
    let answered = say(b"$qAttached#8f");
    assert_eq!(answered, "+$1#31");
    assert_eq!(say(b"-"), answered[1..]);
}

#[test]
fn packets_of_older_clients_move_the_guest() {
    let (mut target, hand) = Scripted::new(&[0x1000, 0x2000]);
    let mut session = Session::new(&mut target);
    let (mut client, mut gdb) = connected(&mut session);
    for resume in ["s", "c", "vCont;s", "S05"] {
        gdb.write_all(&packet(resume.as_bytes())).unwrap();
        client.check(&mut session).unwrap();
        assert!(session.is_running(), "{resume}");
        gdb.write_all(b"\x03").unwrap();
        client.check(&mut session).unwrap();
        assert!(!session.is_running(), "{resume}");
    }
    drop(hand);
}
