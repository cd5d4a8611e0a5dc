//! Traces that outlive their gdb: raw packets, and the real gdb.

use super::gdb_test::{assert_lines, output};
use super::tests::LOOP;
use crate::target::HwSlots;
use crate::testing::{Guest, Rsp};

/// Starts a trace that outlives its gdb, and lets the guest run.
fn traced(guest: &Guest) -> Rsp {
    let mut rsp = guest.attach();
    for packet in [
        "QTinit",
        "QTDP:1:1003:E:0:0-",
        "QTDP:-1:1003:R1",
        "QTDPsrc:1:1003:at:0:7:2a307831303033",
        "QTDV:1:0:0:61",
        "QTDisconnected:1",
        "QTStart",
        "Z0,1007,1",
    ] {
        assert_eq!(rsp.ask(packet), "OK", "{packet}");
    }
    rsp
}

fn frames(status: &str) -> u64 {
    let mut fields = status.split(';');
    let frames = fields.find_map(|field| field.strip_prefix("tframes:"));
    u64::from_str_radix(frames.unwrap(), 16).unwrap()
}

#[test]
fn a_trace_survives_every_way_of_leaving() {
    for (leave, answer) in [("D", "OK"), ("k", "X09"), ("", "")] {
        let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
        let mut rsp = traced(&guest);
        if leave.is_empty() {
            assert_eq!(rsp.ask("z0,1007,1"), "OK");
            rsp.send("vCont;c");
            drop(rsp);
        } else {
            assert_eq!(rsp.ask(leave), answer);
        }
        // It collects while nobody is there, and gdb's breakpoint is gone.
        let before = guest.watcher.state().executed;
        guest.watcher.until("the guest runs on", |state| {
            !state.attached && state.executed > before + 200
        });
        let mut rsp = guest.attach();
        let status = rsp.ask("qTStatus");
        assert!(status.starts_with("T1;tframes:"), "{leave}: {status}");
        assert!(status.ends_with(";disconn:1"), "{leave}: {status}");
        assert!(frames(&status) > 5, "{leave}: {status}");
        for (packet, answer) in [
            ("qTfP", "T1:1003:E:0:0"),
            ("qTsP", "A1:1003:R1"),
            ("qTsP", "Z1:1003:at:0:7:2a307831303033"),
            ("qTsP", "l"),
            ("qTfV", "1:0:0:61"),
            ("qTsV", "l"),
            ("QTStop", "OK"),
            ("QTFrame:3", "F03T01"),
            ("p10", "0310000000000000"),
            ("QTFrame:ffffffff", "F-1"),
        ] {
            assert_eq!(rsp.ask(packet), answer, "{packet}");
        }
        assert_eq!(rsp.ask("D"), "OK");
        guest.until_undisturbed();
        let mut rsp = guest.attach();
        assert!(rsp.ask("qTStatus").starts_with("T0;tstop::0;tframes:"));
        assert_eq!(rsp.ask("QTDisconnected:0"), "OK");
        assert_eq!(rsp.ask("D"), "OK");
        guest.until_undisturbed();
        assert!(guest.attach().ask("qTStatus").starts_with("T0;tnotrun:0"));
    }
}

#[test]
fn a_trace_that_ends_alone_lets_the_guest_go() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    let mut rsp = guest.attach();
    for packet in [
        "QTinit",
        "QTDP:1:1003:E:2:9",
        "QTDisconnected:1",
        "QTStart",
        "D",
    ] {
        assert_eq!(rsp.ask(packet), "OK", "{packet}");
    }
    guest.until_undisturbed();
    let mut rsp = guest.attach();
    let status = rsp.ask("qTStatus");
    assert!(status.starts_with("T0;tpasscount:01;"), "{status}");
    assert!(frames(&status) >= 9, "{status}");
}

#[test]
fn a_trace_ends_with_the_server() {
    let guest = Guest::start(LOOP, &[0x1000]);
    assert_eq!(traced(&guest).ask("D"), "OK");
    let watcher = guest.watcher.clone();
    watcher.until("it is traced", |state| state.int3 && !state.attached);
    drop(guest);
    let state = watcher.state();
    assert_eq!((state.int3, state.slots), (false, HwSlots::default()));
    assert_eq!(state.ram[0x1003], 0x90);
}

#[test]
fn gdb_finds_the_trace_of_another_gdb() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("trace.gdb");
    let commands = "\
set disconnected-tracing on
tvariable $passes = 7
trace *0x1003 if $rbx == 0x8000
actions
collect $rax
teval $passes = $passes + 1
while-stepping 1
collect $rbx
end
end
tstart
";
    std::fs::write(&script, commands).unwrap();
    output(&guest, &[&format!("source {}", script.display())]);
    let before = guest.watcher.state().executed;
    guest.watcher.until("the trace has hits", |state| {
        !state.attached && state.executed > before + 200
    });
    let text = output(
        &guest,
        &[
            "tstop",
            "tstatus",
            "info tracepoints",
            "tfind start",
            "set $first = $rax",
            "tfind 2",
            "print $rax - $first",
            "tfind",
            "print $rbx",
            "tfind none",
            "print $passes > 9",
            "set disconnected-tracing off",
        ],
    );
    assert_lines(
        &text,
        &[
            "Trace is already running on the target.",
            "Trace stopped by a tstop command ().",
            "Trace will continue if GDB disconnects.",
            "\ttrace only if $rbx == 0x8000",
            "        collect $rax",
            "        teval $passes = $passes + 1",
            "        while-stepping 1",
            "Found trace frame 0, tracepoint 1",
            "Found trace frame 2, tracepoint 1",
            "$1 = 1",
            "Found trace frame 3, tracepoint 1",
            "$2 = 32768",
            "$3 = 1",
        ],
    );
    guest.until_undisturbed();
}
