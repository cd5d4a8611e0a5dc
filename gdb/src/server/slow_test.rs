//! A host that takes its time, under a client that does not.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use super::gdb_test::gdb;
use super::tests::LOOP;
use crate::testing::{Guest, Held, Rsp, packet};

const PAUSE: Held = Held {
    pause: true,
    memory: false,
};
const MEMORY: Held = Held {
    pause: false,
    memory: true,
};

/// What a gdb asks first.
const SUPPORTED: &str = "qSupported:multiprocess+";

fn byte(rsp: &mut Rsp) -> u8 {
    let mut byte = [0];
    rsp.stream.read_exact(&mut byte).unwrap();
    byte[0]
}

#[test]
fn a_packet_is_confirmed_before_the_guest_has_stopped() {
    let guest = Guest::start(LOOP, &[0x1000]);
    guest.watcher.hold(PAUSE);
    let mut rsp = guest.connect();
    rsp.send(SUPPORTED);
    assert_eq!(byte(&mut rsp), b'+');
    guest.watcher.hold(Held::default());
    assert!(rsp.answer().contains("vContSupported+"));
}

#[test]
fn what_is_sent_again_meanwhile_is_not_answered_again() {
    let guest = Guest::start(LOOP, &[0x1000]);
    guest.watcher.hold(PAUSE);
    let mut rsp = guest.connect();
    rsp.send(SUPPORTED);
    assert_eq!(byte(&mut rsp), b'+');
    rsp.send_raw(b"-");
    rsp.send(SUPPORTED);
    rsp.send_raw(b"--");
    guest.watcher.hold(Held::default());
    assert!(rsp.answer().contains("vContSupported+"));
    assert_eq!(rsp.ask("vMustReplyEmpty"), "");
    // An answer that comes damaged is had again all the same.
    rsp.send_raw(b"-");
    assert_eq!(rsp.answer(), "");
    assert_eq!(rsp.ask("QStartNoAckMode"), "OK");
    rsp.send_raw(b"-");
    assert_eq!(rsp.ask("qAttached"), "1");
}

#[test]
fn no_answer_waits_for_the_end_of_the_search_for_the_kernel() {
    let guest = Guest::start(LOOP, &[0x1000]);
    guest.watcher.hold(MEMORY);
    let mut rsp = guest.connect();
    assert!(rsp.ask(SUPPORTED).contains("vContSupported+"));
    assert_eq!(rsp.ask("vMustReplyEmpty"), "");
    assert!(rsp.ask("qSupported").contains(";DisconnectedTracing+"));
    assert_eq!(rsp.ask("?"), "T05thread:p01.01;");
    // This one needs the kernel, and has to do without.
    assert_eq!(rsp.ask("qXfer:exec-file:read:1:0,fff"), "E02");
    assert_eq!(rsp.ask("Hc-1"), "OK");
    assert_eq!(rsp.ask("qOffsets"), "");
    guest.watcher.hold(Held::default());
    let text = rsp.monitor("lx version");
    let (notice, text) = text.split_once('\n').unwrap();
    assert!(notice.contains("attach again (disconnect, target remote)"));
    assert!(
        text.starts_with("what is mapped where Linux has its kernel"),
        "{text}"
    );
}

/// With its own settings, which the other tests leave as they are too.
#[test]
fn gdb_survives_answers_that_take_longer_than_it_waits() {
    let guest = Guest::start(LOOP, &[0x1000]);
    guest.watcher.hold(PAUSE);
    let mut command = gdb(&guest, &["set debug remote 1"]);
    command.args(["-batch", "-ex", "output/x $rbx"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("Timed out") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "gdb ended");
    }
    guest.watcher.hold(Held::default());
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    let output = process.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("0x8000"), "{text}\n{rest}");
}

#[test]
fn a_client_that_asks_twice_on_purpose_gets_two_answers() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = guest.attach();
    for _ in 0..3 {
        assert_eq!(rsp.ask("m1000,1"), "48");
    }
    assert_eq!(rsp.ask("QStartNoAckMode"), "OK");
    rsp.stream.write_all(&packet(b"m1000,1").repeat(3)).unwrap();
    for _ in 0..3 {
        assert_eq!(rsp.answer(), "48");
    }
}
