//! Tracepoints: what is collected while the guest runs on.

use std::fs;

use super::vcpus::{all_counting, finish};
use super::{ATTACHED, Guest, MARK, assert_lines};

/// Lines that differ from time to time.
const VARIES: [&str; 2] = ["Trace buffer has ", "loop_counter = "];

/// What gdb says at every `tstart`.
const NO_NOTES: &str = "warning: Target does not support trace user/notes, info ignored";

impl Guest {
    /// [`Guest::gdb_at_scenario`] with a script in front, for commands of several
    /// lines. The first tracepoint is number 2.
    pub(super) fn trace(&self, script: &str, commands: &[&str]) -> Vec<String> {
        let path = self.dir.path().join("trace.gdb");
        fs::write(&path, script).unwrap();
        let source = format!("source {}", path.display());
        let mut lines = self.gdb_at_scenario(&[&[&*source, MARK], commands].concat());
        lines.retain(|line| !VARIES.iter().any(|start| line.starts_with(start)));
        let mark = lines.iter().position(|line| line == ATTACHED);
        lines.split_off(mark.unwrap_or_else(|| panic!("the script failed: {lines:#?}")) + 1)
    }
}

#[test]
fn frames_are_as_many_as_the_guest_counts() {
    let guest = Guest::debuggee();
    let script = "\
trace inner
actions
collect $rip, $rsp, value, loop_counter, primes[2]@2, first_widget.name, $locals
end
trace factorial if n == 3
actions
collect n
end
tstart
";
    let commands = [
        "set $before = loop_counter",
        "break scenario",
        "eval \"monitor break-if %#lx hits=100\", scenario",
        "continue",
        "print loop_counter - $before",
        "tstop",
        "tstatus",
        "info tracepoints",
        "tfind tracepoint 2",
        "tdump",
        "print loop_counter - $before",
        "print stop_requested",
        "print $rbx",
        "tfind 199",
        "print loop_counter - $before",
        "print $rip == inner",
        "print $rsp = 1",
        "set var loop_counter = 1",
        "tfind",
        "tfind start",
        "print n",
        "tfind pc inner",
        "tfind line 52",
        "continue",
        "tfind none",
        "print loop_counter - $before",
    ];
    assert_lines(
        &guest.trace(script, &commands),
        &[
            "Breakpoint 4 at 0x10012b: file guests/debug/main.c, line 123.",
            "breakpoints at 0x10012b stop the guest if hits=100",
            "Breakpoint 4, scenario () at guests/debug/main.c:123",
            "123\t{",
            "$1 = 100",
            "warning: Target does not support trace notes, note ignored",
            "Trace stopped by a tstop command ().",
            "Collected 200 trace frames.",
            "Trace will stop if GDB disconnects.",
            "Not looking at any trace frame.",
            "Num     Type           Disp Enb Address    What",
            "2       tracepoint     keep y   0x000000000010004b in inner at guests/debug/main.c:59",
            "\ttracepoint already hit 100 times",
            "\ttrace buffer usage 31200 bytes",
            "        collect $rip, $rsp, value, loop_counter, primes[2]@2, first_widget.name, $locals",
            "\tinstalled on target",
            "3       tracepoint     keep y   0x0000000000100020 in factorial at guests/debug/main.c:52",
            "\ttrace only if n == 3",
            "\ttracepoint already hit 100 times",
            "\ttrace buffer usage 8000 bytes",
            "        collect n",
            "\tinstalled on target",
            "Found trace frame 1, tracepoint 2",
            "Data collected at tracepoint 2, trace frame 1:",
            "$rip = (void (*)()) 0x10004b <inner>",
            "$rsp = (void *) 0x113f58",
            "value = 3",
            "primes[2]@2 = {5, 7}",
            r#"first_widget.name = "first\000\000\000\000\000\000\000\000\000\000""#,
            "doubled = <optimized out>",
            "$2 = 0",
            "Cannot access memory at address 0x103000",
            "$3 = <unavailable>",
            "Found trace frame 199, tracepoint 2",
            "$4 = 99",
            "$5 = 1",
            "Could not write register \"rsp\"; remote failure reply 'E10'",
            "Cannot access memory at address 0x103010",
            "No trace frame found",
            "Found trace frame 0, tracepoint 3",
            "$6 = 3",
            "Found trace frame 1, tracepoint 2",
            "Found trace frame 2, tracepoint 3",
            "Cannot execute this command while looking at trace frames.",
            "No longer looking at any trace frame",
            "$7 = 100",
        ],
    );
    guest.expect_undisturbed();
    guest.finish();
}

#[test]
fn a_trace_ends_by_itself_when_it_was_told_to_or_is_full() {
    let guest = Guest::debuggee();
    let script = "\
trace inner
passcount 7
tstart
";
    let commands = [
        "break scenario",
        "eval \"monitor break-if %#lx hits=20\", scenario",
        "continue",
        "tstatus",
        "passcount 0 2",
        "set trace-buffer-size 500",
        "tstart",
        "eval \"monitor break-if %#lx hits=20\", scenario",
        "continue",
        "tstatus",
        "set circular-trace-buffer on",
        "tstart",
        "eval \"monitor break-if %#lx hits=20\", scenario",
        "continue",
        "tstatus",
    ];
    let stopped = [
        "breakpoints at 0x10012b stop the guest if hits=20",
        "Breakpoint 3, scenario () at guests/debug/main.c:123",
        "123\t{",
    ];
    let ending = [
        "Trace will stop if GDB disconnects.",
        "Not looking at any trace frame.",
    ];
    let expected = [
        &["Breakpoint 3 at 0x10012b: file guests/debug/main.c, line 123."][..],
        &stopped,
        &[
            "Trace stopped by tracepoint 2.",
            "Collected 7 trace frames.",
        ],
        &ending,
        &[NO_NOTES],
        &stopped,
        // Of 72 bytes each.
        &[
            "Trace stopped because the buffer was full.",
            "Collected 6 trace frames.",
        ],
        &ending,
        &[NO_NOTES],
        &stopped,
        &[
            "Trace is running on the target.",
            "Buffer contains 6 trace frames (of 20 created total).",
            ending[0],
            "Trace buffer is circular.",
            ending[1],
        ],
    ];
    assert_lines(&guest.trace(script, &commands), &expected.concat());
    guest.expect_undisturbed();
    guest.finish();
}

#[test]
fn what_cannot_be_had_is_refused_with_the_reason() {
    let guest = Guest::debuggee();
    let script = "\
trace *0x8000000000000000
trace inner
";
    let commands = ["tstart", "tstatus"];
    let refused = "Target returns error code '79'.";
    assert_lines(
        &guest.trace(script, &commands),
        &[
            NO_NOTES,
            "tracepoint 2 at 0x8000000000000000 refused: address 0x8000000000000000 is not canonical in this paging mode",
            refused,
            "No trace has been run on the target.",
            "Collected 0 trace frames.",
            "Trace will stop if GDB disconnects.",
            "Not looking at any trace frame.",
        ],
    );
    guest.expect_undisturbed();
    guest.finish();
}

/// With the same tracepoints again, where the last gdb has left in the middle.
#[test]
fn a_trace_ends_with_its_gdb() {
    let guest = Guest::debuggee();
    for _ in 0..2 {
        let lines = guest.trace("trace inner\ntstart\n", &["tstatus"]);
        assert_lines(
            &lines,
            &[
                "Trace is running on the target.",
                "Collected 0 trace frames.",
                "Trace will stop if GDB disconnects.",
                "Not looking at any trace frame.",
            ],
        );
        guest.expect_undisturbed();
    }
    guest.finish();
}

/// Whether both vCPUs have frames.
const TALLY: &str = "\
set $seen = 0
tfind start
while $trace_frame != -1
set $seen |= 1 << index
tfind
end
printf \"@seen=%d\\n\", $seen
";

/// Both vCPUs at once, with a breakpoint at the same place that counts the same
/// hits and stops at the last.
#[test]
fn hits_of_every_vcpu_are_collected_and_none_twice() {
    const HITS: u64 = 300;
    let guest = Guest::start("smp", "forever", 2);
    let script = guest.dir.path().join("trace.gdb");
    let collect = "trace main.c:28\nactions\ncollect index, shared_counter\nend\ntstart\n";
    fs::write(&script, collect).unwrap();
    let tally = guest.dir.path().join("tally.gdb");
    fs::write(&tally, TALLY).unwrap();
    let lines = guest.gdb(&[
        &all_counting(2),
        "continue",
        &format!("source {}", script.display()),
        "set $before = shared_counter",
        "break main.c:28",
        &format!("eval \"monitor break-if %#lx hits={HITS}\", $rip"),
        "continue",
        "printf \"@passes=%ld\\n\", shared_counter - $before",
        "tstop",
        "tstatus",
        &format!("source {}", tally.display()),
    ]);
    let number = |start: &str| -> u64 {
        let found = lines.iter().find_map(|line| line.strip_prefix(start));
        let digits = found.and_then(|rest| rest.split(' ').next());
        let number = digits.and_then(|digits| digits.parse().ok());
        number.unwrap_or_else(|| panic!("no {start} in {lines:#?}"))
    };
    // Each vCPU may stand between the tracepoint and what it counts, and one that
    // has yet to leave the breakpoint has not collected.
    let (passes, frames) = (number("@passes="), number("Collected "));
    assert!(
        frames.abs_diff(passes) <= 2,
        "{frames} frames, {passes} passes"
    );
    assert!((HITS - 2..=HITS).contains(&frames), "{frames} frames");
    assert!(lines.iter().any(|line| line == "@seen=3"), "{lines:#?}");
    finish(guest, 2);
}
