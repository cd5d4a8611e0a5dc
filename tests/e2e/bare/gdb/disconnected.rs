//! Traces that outlive their gdb.

use std::fs;

use tests::DEADLINE;
use tests::process::wait_until;

use super::{Guest, assert_lines};
use crate::control::{ctl, socket};

/// Counts passes, and keeps every hundredth.
const SCRIPT: &str = "\
set disconnected-tracing on
tvariable $passes = 0
trace inner if ($passes = $passes + 1) % 100 == 0
actions
collect value, loop_counter, $passes
end
tstart
";

impl Guest {
    /// Writes [`SCRIPT`] and returns the command that has gdb read it.
    fn disconnected_script(&self) -> String {
        let path = self.dir.path().join("disconnected.gdb");
        fs::write(&path, SCRIPT).unwrap();
        format!("source {}", path.display())
    }

    /// Waits until a gdb that comes to look finds so many frames, and leaves.
    fn until_frames(&self, frames: usize) {
        wait_until("the trace collects on", DEADLINE, || {
            let lines = self.gdb(&["tstatus"]);
            let found = lines.iter().find_map(|line| {
                let count = line.strip_prefix("Collected ")?;
                count.split(' ').next()?.parse::<usize>().ok()
            });
            found.unwrap_or_else(|| panic!("no frames in {lines:#?}")) >= frames
        });
    }

    /// Has the next gdb end the trace, and show what it was.
    #[track_caller]
    fn expect_trace(&self) {
        let transcript = self.transcript(&[
            "tstop",
            "info tracepoints",
            "tfind start",
            "print value",
            "print $passes",
            "set $first = loop_counter",
            "tfind",
            "print loop_counter - $first",
            "tfind none",
            "set disconnected-tracing off",
        ]);
        let mut lines = transcript.lines();
        for expected in [
            "Trace is already running on the target.",
            "Tracepoint 1 at 0x10004b: file guests/debug/main.c, line 59.",
            "\ttrace only if ($passes = $passes + 1) % 100 == 0",
            "        collect value, loop_counter, $passes",
            "\tinstalled on target",
            "$1 = 3",
            "$2 = 100",
            "$3 = 100",
        ] {
            assert!(
                lines.any(|line| line == expected),
                "no {expected:?} in its place in:\n{transcript}"
            );
        }
        self.expect_undisturbed();
    }
}

#[test]
fn a_trace_goes_on_without_gdb_until_the_next_one_ends_it() {
    let guest = Guest::debuggee();
    let source = guest.disconnected_script();
    assert_lines(
        &guest.gdb(&[&source, "tstatus"]),
        &[
            "Trace state variable $passes created, with initial value 0.",
            "Tracepoint 1 at 0x10004b: file guests/debug/main.c, line 59.",
            "warning: Target does not support trace user/notes, info ignored",
            "Trace is running on the target.",
            "Collected 0 trace frames.",
            "Trace buffer has 16777216 bytes of 16777216 bytes free (0% full).",
            "Trace will continue if GDB disconnects.",
            "Not looking at any trace frame.",
        ],
    );
    guest.until_frames(3);
    guest.expect_trace();
    guest.finish();
}

#[test]
fn a_trace_survives_a_gdb_that_is_killed() {
    let guest = Guest::debuggee();
    let source = guest.disconnected_script();
    let mut gdb = guest.open(&[&source, "break registers_loaded if 0", "continue"]);
    gdb.wait_for("Continuing.", DEADLINE);
    gdb.signal(libc::SIGKILL);
    gdb.wait(DEADLINE);
    guest.until_frames(2);
    guest.expect_trace();
    guest.finish();
}

/// Neither the guest's end nor its reboot waits for a gdb.
#[test]
fn the_guest_ends_and_starts_again_as_ever() {
    let guest = Guest::debuggee();
    guest.gdb(&[&guest.disconnected_script(), "set var stop_requested = 1"]);
    let Guest { mut vmm, .. } = guest;
    vmm.process.expect_exit(0, DEADLINE);
    assert!(vmm.console().contains("stop_requested=1"));

    let guest = Guest::debuggee();
    guest.gdb(&[&guest.disconnected_script(), "set $rip = reboot"]);
    wait_until("the guest starts again", DEADLINE, || {
        let console = guest.vmm.console();
        console.matches("debug: ready").count() == 2
    });
    let lines = guest.gdb(&["tstatus", "set disconnected-tracing off"]);
    let why = "Trace stopped by an error (the guest was reset).";
    assert!(lines.iter().any(|line| line == why), "{lines:#?}");
    guest.expect_undisturbed();
    guest.finish();
}

/// A resume through the API would let the guest run with nothing armed.
#[test]
fn the_guest_is_not_paused_by_others_while_it_is_traced() {
    let dir = tests::scratch();
    let guest = Guest::launch("debug", |vmm| vmm.arg("--api", socket(dir.path())));
    guest.vmm.process.wait_for("debug: ready", DEADLINE);
    guest.gdb(&[&guest.disconnected_script()]);
    let refused = ctl(dir.path(), &["pause"], 1);
    assert!(refused.contains("its trace runs"), "{refused}");
    guest.gdb(&["set disconnected-tracing off"]);
    ctl(dir.path(), &["pause"], 0);
    ctl(dir.path(), &["resume"], 0);
    guest.expect_undisturbed();
    guest.finish();
}
