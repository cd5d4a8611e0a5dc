//! LLDB, the other debugger that speaks the protocol.

use std::process::Command;

use tests::process::{Process, Stream};
use tests::{DEADLINE, program};

use super::Guest;
use crate::host::provides;

fn lldb(guest: &Guest, commands: &[&str]) -> String {
    let mut command = Command::new(program::system("lldb"));
    command.args(["--no-lldbinit", "--batch", "--no-use-colors"]);
    let create = format!("target create {}", guest.symbols.display());
    let socket = guest.vmm.gdb_socket().display();
    let connect = format!("process connect unix-connect://{socket}");
    for line in [create.as_str(), &connect].iter().chain(commands) {
        command.args(["-o", line]);
    }
    let mut process = Process::start("lldb", &mut command);
    process.expect_exit(0, DEADLINE);
    process.printed(Stream::Out)
}

/// The text between the echo of `command` and that of the next one.
fn answer<'a>(output: &'a str, command: &str) -> &'a str {
    let prompt = format!("(lldb) {command}\n");
    let (_, rest) = output
        .split_once(&prompt)
        .unwrap_or_else(|| panic!("no {command:?} in\n{output}"));
    rest.split("(lldb) ").next().unwrap_or_default()
}

#[test]
fn lldb_breaks_steps_reads_and_leaves_the_guest_running() {
    if !provides("lldb") {
        return;
    }
    let guest = Guest::debuggee();
    let output = lldb(
        &guest,
        &[
            "breakpoint set --name inner",
            "process continue",
            "thread backtrace --count 3",
            "thread step-inst",
            "thread step-over",
            "register read cs",
            "register write r15 0x1234",
            "register read r15",
            "memory read --format x --size 4 --count 1 &primes[7]",
            "process detach",
        ],
    );
    let expect = |command, part: &str| {
        let found = answer(&output, command);
        assert!(
            found.contains(part),
            "no {part:?} behind {command:?}\n{output}"
        );
    };
    expect("process continue", "stop reason = breakpoint 1.1");
    let backtrace = "thread backtrace --count 3";
    for frame in [
        "frame #0",
        "inner(value=3)",
        "middle(value=2)",
        "outer(value=1)",
    ] {
        expect(backtrace, frame);
    }
    expect("thread step-inst", "stop reason = instruction step into");
    expect("thread step-over", "stop reason = step over");
    expect("register read cs", "cs = 0x00000008");
    expect("register read r15", "r15 = 0x0000000000001234");
    expect(
        "memory read --format x --size 4 --count 1 &primes[7]",
        "0x00000013",
    );
    expect("process detach", "detached");
    guest.expect_undisturbed();
    guest.finish();
}
