//! Tracepoints on the toy machine: raw packets, and the real gdb.

use super::gdb_test::{assert_lines, output};
use super::tests::LOOP;
use crate::testing::Guest;

/// What gdb collects where, for its command `source`.
const SCRIPT: &str = "\
trace *0x1006
actions
collect $rax, *(unsigned char *)0x8000
end
condition 1 $rbx == 0x8000 && ($rax & 3) == 2
passcount 2
tstart
";

#[test]
fn gdb_traces_a_guest_that_runs_on() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("trace.gdb");
    std::fs::write(&script, SCRIPT).unwrap();
    let text = output(
        &guest,
        &[
            &format!("source {}", script.display()),
            "break *0x1000 thread 1",
            // Nine passes of vCPU 0 between its stops there: every fourth is traced.
            "continue",
            "ignore 2 8",
            "continue",
            "delete 2",
            "tstatus",
            "tfind 0",
            "print $rip",
            "print $rbx",
            "print ($rax & 3) == 2 && *(unsigned char *)0x8000 == ($rax & 255)",
            "set $first = $rax",
            "tfind tracepoint 1",
            "print $rax - $first",
            "tfind",
            "tfind none",
            "print $rbx",
        ],
    );
    assert_lines(
        &text,
        &[
            "Trace stopped by tracepoint 1.",
            "Collected 2 trace frames.",
            "Found trace frame 0, tracepoint 1",
            "$1 = (void (*)()) 0x1006",
            "$2 = <unavailable>",
            "$3 = 1",
            "Found trace frame 1, tracepoint 1",
            "$4 = 4",
            "No trace frame found",
            "No longer looking at any trace frame",
            "$5 = 32768",
        ],
    );
    guest.until_undisturbed();
}

/// `tvariable` in a condition, in `collect` and in `teval`.
const VARIABLES: &str = "\
tvariable $passes = 10
tvariable $odd = -1
trace *0x1006 if ($passes & 1) == 1
actions
collect $passes
teval $odd = $odd + 2
collect $odd
end
trace *0x1003
actions
teval $passes = $passes + 1
end
tstart
";

#[test]
fn gdb_counts_in_trace_state_variables() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("trace.gdb");
    std::fs::write(&script, VARIABLES).unwrap();
    let text = output(
        &guest,
        &[
            "break *0x1000",
            "continue",
            &format!("source {}", script.display()),
            "ignore 1 3",
            "continue",
            "tstop",
            "info tvariables",
            "tfind tracepoint 2",
            "print $passes",
            "print $odd",
            "tfind tracepoint 2",
            "print $passes",
            "print $odd",
            "tfind tracepoint 3",
            "print $passes",
            "tfind none",
            "print $passes",
        ],
    );
    assert_lines(
        &text,
        &[
            "Name            Initial     Current",
            "$passes         10          14",
            "$odd            -1          3",
            "Found trace frame 1, tracepoint 2",
            "$1 = 11",
            "$2 = 1",
            "Found trace frame 4, tracepoint 2",
            "$3 = 13",
            "$4 = 3",
            "Found trace frame 5, tracepoint 3",
            // Only reckoned with there.
            "$5 = void",
            "$6 = 14",
        ],
    );
    guest.until_undisturbed();
}

/// Two more instructions behind each hit, of which the second is a tracepoint too.
pub(super) const STEPPING: &str = "\
trace *0x1003
actions
while-stepping 4
collect $rax, *(unsigned char *)0x8000
end
end
trace *0x1006
tstart
";

#[test]
fn gdb_sees_what_follows_a_tracepoint() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("trace.gdb");
    std::fs::write(&script, STEPPING).unwrap();
    let shown = dir.path().join("shown.gdb");
    let each = "printf \"%d at %#lx\\n\", $tracepoint, $pc\ntfind\n";
    std::fs::write(&shown, format!("tfind start\n{}", each.repeat(9))).unwrap();
    let text = output(
        &guest,
        &[
            "break *0x1000 thread 1",
            "continue",
            &format!("source {}", script.display()),
            "set scheduler-locking on",
            "continue",
            "stepi",
            "stepi",
            "stepi",
            "tstop",
            "tstatus",
            &format!("source {}", shown.display()),
            "tfind 1",
            "print $first = $rax",
            "print *(unsigned char *)0x8000 != ($rax & 255)",
            "tfind 2",
            "print *(unsigned char *)0x8000 == ($rax & 255)",
            "tfind 5",
            "print $rax - $first",
            "print $rip",
        ],
    );
    assert_lines(
        &text,
        &[
            "Collected 9 trace frames.",
            "2 at 0x1003",
            "2 at 0x1004",
            "2 at 0x1006",
            "3 at 0x1006",
            "2 at 0x1007",
            "2 at 0x1000",
            // gdb's own steps count too.
            "2 at 0x1003",
            "2 at 0x1004",
            "2 at 0x1006",
            "$2 = 1",
            "$3 = 1",
            "$4 = 0",
            "$5 = (void (*)()) 0x1000",
        ],
    );
    guest.until_undisturbed();
}

#[test]
fn trace_state_variables_by_packets() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = guest.attach();
    assert_eq!(rsp.ask("QTinit"), "OK");
    assert_eq!(rsp.ask("qTfV"), "l");
    assert_eq!(rsp.ask("QTDP:1:1003:E:0:0-"), "OK");
    assert_eq!(rsp.ask("QTDP:-1:1003:X4,2e000127"), "OK");
    assert_eq!(rsp.ask("QTDV:1:fffffffffffffffe:0:6162"), "OK");
    assert_eq!(rsp.ask("QTDV:2:7:0:63"), "OK");
    assert_eq!(rsp.ask("qTfV"), "1:fffffffffffffffe:0:6162");
    assert_eq!(rsp.ask("qTsV"), "2:7:0:63");
    assert_eq!(rsp.ask("qTsV"), "l");
    assert_eq!(rsp.ask("qTsV"), "l");
    assert_eq!(rsp.ask("qTV:1"), "Vfffffffffffffffe");
    assert_eq!(rsp.ask("qTV:3"), "U");
    for (nonsense, answer) in [
        ("QTDV", "E16"),
        ("qTV", "E16"),
        ("qTV:x", "E16"),
        ("QTDV:1:2", "E79"),
        ("QTDV:1:2:0:6g", "E79"),
    ] {
        rsp.send(nonsense);
        assert_eq!(rsp.told().1, answer, "{nonsense}");
    }
    rsp.send("QTDV:3:0:1:74");
    let (why, answer) = rsp.told();
    assert_eq!(answer, "E79");
    assert!(why.contains("no trace state variable is built in"), "{why}");
    assert_eq!(rsp.ask("QTStart"), "OK");
    assert_eq!(rsp.ask("Z0,1000,1"), "OK");
    for _ in 0..2 {
        rsp.send("vCont;c");
        rsp.told();
    }
    assert_eq!(rsp.ask("z0,1000,1"), "OK");
    rsp.send("vCont;c");
    // While the guest runs there is no telling.
    assert_eq!(rsp.ask("qTV:1"), "E10");
    rsp.send_raw(b"\x03");
    rsp.told();
    assert_eq!(rsp.ask("QTFrame:0"), "F00T01");
    assert_eq!(rsp.ask("qTV:1"), "Vfffffffffffffffe");
    assert_eq!(rsp.ask("qTV:2"), "U", "not collected");
    assert_eq!(rsp.ask("QTFrame:ffffffff"), "F-1");
    assert_eq!(rsp.ask("qTV:2"), "V7");
    assert_eq!(rsp.ask("QTinit"), "OK");
    assert_eq!(rsp.ask("qTfV"), "l");
    assert_eq!(rsp.ask("D"), "OK");
    guest.until_undisturbed();
}

#[test]
fn definitions_that_gdbstub_would_end_the_connection_at() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = guest.attach();
    assert!(
        rsp.ask("qSupported:swbreak+")
            .ends_with(";ConditionalTracepoints+;tracenz+;TracepointSource+;DisconnectedTracing+")
    );
    assert_eq!(rsp.ask("qTStatus").split(';').next(), Some("T0"));
    assert_eq!(rsp.ask("QTinit"), "OK");
    assert_eq!(rsp.ask("QTDP:1:1003:E:0:3:X3,220127-"), "OK");
    assert_eq!(rsp.ask("QTDP:-1:1003:R1M-1,8000,2"), "OK");
    rsp.send("QTDP:9:1003:E:0:0:F5");
    let (why, answer) = rsp.told();
    assert_eq!(answer, "E79");
    assert!(why.contains("fast and static tracepoints are not"), "{why}");
    assert_eq!(rsp.ask("QTStart"), "OK");
    assert_eq!(rsp.ask("Z0,1000,1"), "OK");
    // The breakpoint is once in a pass as well.
    for _ in 0..4 {
        rsp.send("vCont;c");
        assert!(rsp.told().1.contains("swbreak"));
    }
    let status = rsp.ask("qTStatus");
    assert!(
        status.starts_with("T0;tpasscount:01;tframes:03;"),
        "{status}"
    );
    assert_eq!(rsp.ask("qTP:1:1003").split(':').next(), Some("V03"));
    for (request, answer) in [
        ("QTFrame:0", "F00T01"),
        ("QTFrame:2", "F02T01"),
        ("QTFrame:3", "F-1"),
        ("QTFrame:tdp:1", "F00T01"),
        ("QTFrame:pc:1003", "F01T01"),
        ("QTFrame:range:1003:1003", "F02T01"),
        ("QTFrame:range:1003:1003", "F-1"),
        ("QTFrame:outside:1003:1003", "F-1"),
        ("QTFrame:0", "F00T01"),
    ] {
        assert_eq!(rsp.ask(request), answer, "{request}");
    }
    assert_eq!(rsp.ask("m8000,8").len(), 4, "two bytes");
    assert_eq!(rsp.ask("m1000,1"), "E0e", "not collected");
    assert_eq!(rsp.register(16), 0x1003);
    assert_eq!(rsp.ask("p1"), "E79", "not collected");
    assert_eq!(rsp.ask("M8000,1:00"), "E10");
    assert_eq!(rsp.ask("QTFrame:ffffffff"), "F-1");
    assert_eq!(rsp.ask("m1000,1").len(), 2);
    assert_eq!(rsp.ask("D"), "OK");
    guest.until_undisturbed();
}

/// `delete` in the middle of a trace, `kill`, and a connection that is cut.
#[test]
fn a_trace_ends_with_its_gdb() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    for (leave, answer) in [("D", "OK"), ("k", "X09"), ("", "")] {
        let mut rsp = guest.attach();
        assert_eq!(
            rsp.ask("qTStatus").split(";tframes").next(),
            Some("T0;tnotrun:0")
        );
        assert_eq!(rsp.ask("qTfP"), "l", "nothing is left of the last one's");
        assert_eq!(rsp.ask("QTinit"), "OK");
        assert_eq!(rsp.ask("QTDP:1:1003:E:0:0-"), "OK");
        assert_eq!(rsp.ask("QTDP:-1:1003:R1"), "OK");
        assert_eq!(rsp.ask("QTStart"), "OK");
        let before = guest.watcher.state().executed;
        rsp.send("vCont;c");
        guest
            .watcher
            .until("the trace has hits", |state| state.executed >= before + 64);
        if leave.is_empty() {
            drop(rsp);
        } else {
            rsp.send_raw(b"\x03");
            rsp.told();
            assert_eq!(rsp.ask(leave), answer);
        }
        guest.until_undisturbed();
    }
}
