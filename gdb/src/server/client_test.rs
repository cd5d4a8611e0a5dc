use std::os::unix::net::UnixStream;

use super::*;
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

    let requests = packet(b"m0,f000").repeat(2000);
    let mut asked = 0;
    for _ in 0..1000 {
        if let Ok(count) = gdb.write(&requests[asked..]) {
            asked += count;
        }
        client.on_ready(&mut session).unwrap();
        let pending = wire_of(&mut client.machine).unwrap().pending().len();
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
    for garbage in [&b"$g#00"[..], b"-", b"\x80", &b"$".repeat(PACKET_SIZE + 1)] {
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
