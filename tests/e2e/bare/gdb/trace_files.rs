//! Traces that gdb saves in files.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Guest, MARK, answer, assert_lines};

/// What a gdb without a guest makes of a trace file.
fn opened(guest: &Guest, file: &Path, commands: &[&str]) -> Vec<String> {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-q", "-batch"]).arg(&guest.symbols);
    gdb.stdin(Stdio::null());
    let open = format!("target tfile {}", file.display());
    for command in [&["set pagination off", &open, MARK], commands].concat() {
        gdb.args(["-ex", command]);
    }
    let output = gdb.output().expect("gdb is not installed");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    answer(&String::from_utf8_lossy(&output.stdout))
}

#[test]
fn a_trace_is_read_without_its_guest() {
    let guest = Guest::debuggee();
    let file = guest.dir.path().join("trace.tf");
    let script = "\
tvariable $calls = 5
trace inner if value == 3
actions
collect $regs, value, primes, first_widget
end
trace *registers_loaded
actions
teval $calls = $calls + 1
while-stepping 3
collect $rax, $calls
end
end
tstart
";
    let saved = guest.trace(
        script,
        &[
            "break scenario",
            "eval \"monitor break-if %#lx hits=2\", scenario",
            "continue",
            "tstop",
            &format!("tsave {}", file.display()),
        ],
    );
    assert!(file.exists(), "{saved:#?}");
    guest.expect_undisturbed();
    let lines = opened(
        &guest,
        &file,
        &[
            "tfind start",
            "print $pc == inner",
            "print value",
            "print primes",
            "print first_widget.name",
            "print $calls",
            "print/x $cs",
            "print stop_requested",
            "print second_widget.id",
            "tfind",
            "print/x $rip",
            "tfind",
            "print/x $rip",
            "print/x $rax",
            "print $calls",
            "tfind 6",
            "tfind",
            "print $calls",
            "tfind",
            "tfind",
            "tfind",
        ],
    );
    let lines: Vec<_> = lines
        .into_iter()
        .filter(|line| !line.starts_with("#0 ") && !line.contains("__asm__"))
        .filter(|line| !line.starts_with("59\t"))
        .collect();
    assert_lines(
        &lines,
        &[
            "Found trace frame 0, tracepoint 1",
            "$1 = 1",
            "$2 = 3",
            "$3 = {2, 3, 5, 7, 11, 13, 17, 19}",
            r#"$4 = "first\000\000\000\000\000\000\000\000\000\000""#,
            "$5 = void",
            "$6 = 0x8",
            "$7 = <unavailable>",
            // Of the file.
            "$8 = 2",
            "Found trace frame 1, tracepoint 2",
            "$9 = 0x100113",
            "Found trace frame 2, tracepoint 2",
            "$10 = 0x100117",
            "$11 = 0xa0a1a2a3a4a5a6a8",
            "$12 = 6",
            "Found trace frame 6, tracepoint 2",
            "Found trace frame 7, tracepoint 2",
            "$13 = 7",
            "Found trace frame 8, tracepoint 2",
            "Found trace frame 9, tracepoint 2",
            "No trace frame found",
        ],
    );
    guest.finish();
}

#[test]
fn files_are_written_by_gdb_alone() {
    let guest = Guest::debuggee();
    let file = guest.dir.path().join("trace.tf");
    let save = format!("tsave -r {}", file.display());
    assert_lines(
        &guest.trace(
            "trace inner\ntstart\ntstop\n",
            &[&save, "print stop_requested"],
        ),
        &[
            "this end writes no files for gdb: use tsave without -r",
            "Target returns error code '79'.",
            "$1 = 0",
        ],
    );
    assert!(!file.exists());
    guest.expect_undisturbed();
    guest.finish();
}
