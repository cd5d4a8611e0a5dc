//! The same toy machine under the real gdb, in batch mode.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::tests::LOOP;
use crate::testing::Guest;

/// gdb that carries out `before`, and attaches.
pub(super) fn gdb(guest: &Guest, before: &[&str]) -> Command {
    let mut gdb = Command::new("gdb");
    gdb.args([
        "-nx",
        "-q",
        "-ex",
        "set confirm off",
        "-ex",
        "set pagination off",
    ]);
    for command in before {
        gdb.args(["-ex", command]);
    }
    gdb.arg("-ex")
        .arg(format!("target remote {}", guest.socket.display()));
    gdb
}

/// What gdb prints for these commands, on both streams, without its warning that
/// there is no executable.
pub(super) fn output(guest: &Guest, commands: &[&str]) -> String {
    let mut gdb = gdb(guest, &[]);
    gdb.arg("-batch").stdin(Stdio::null());
    for command in commands {
        gdb.args(["-ex", command]);
    }
    let output = gdb.output().expect("gdb is not installed");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    println!("{text}");
    text
}

/// Fails unless the lines occur in this order.
pub(super) fn assert_lines(text: &str, expected: &[&str]) {
    let mut lines = text.lines();
    for line in expected {
        assert!(
            lines.any(|found| found.trim_end() == *line),
            "no {line:?} in its place in:\n{text}"
        );
    }
}

#[test]
fn shows_vcpus_registers_and_memory() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    let text = output(
        &guest,
        &[
            "break *0x1003",
            "continue",
            "info threads",
            "info registers rip cr3 efer fs_base cr0 cr4 eflags cs mxcsr",
            "p $st0",
            "p $xmm15.uint128",
            "x/5i 0x1000",
            "p $_siginfo",
            "monitor info host",
        ],
    );
    assert_lines(
        &text,
        &[
            "rip            0x1003              0x1003",
            "cr3            0xf0000             983040",
            "efer           0xd00               [ LME LMA NXE ]",
            "fs_base        0xf5f5              62965",
            "cr0            0x80000001          [ PE PG ]",
            "cr4            0x20                [ PAE ]",
            "eflags         0x2                 [ IOPL=0 ]",
            "cs             0x10                16",
            "mxcsr          0x1f80              [ IM DM ZM OM UM PM RC=0 ]",
            "$1 = 0",
            "$2 = 0",
            "   0x1000:\tinc    %rax",
            "=> 0x1003:\tnop",
            "   0x1004:\tmov    %al,(%rbx)",
            "   0x1006:\tnop",
            "   0x1007:\tjmp    0x1000",
        ],
    );
    for vcpu in 0..2 {
        let line = format!("Thread 1.{} (CPU {vcpu}, running, CPL 0)", vcpu + 1);
        assert!(text.contains(&line), "{line}");
    }
    assert!(text.contains("ring 0: single-step traps, int3 traps"));
    guest.until_undisturbed();
}

#[test]
fn breaks_steps_and_goes_on() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let text = output(
        &guest,
        &[
            "break *0x1003",
            "continue",
            "set $first = $rax",
            "stepi",
            "stepi",
            "continue",
            "p $rax - $first",
            "delete",
            "hbreak *0x1006",
            "continue",
            "delete",
            "watch *(char *)0x8000",
            "continue",
            "p $rip",
            "delete",
            "detach",
        ],
    );
    assert_lines(
        &text,
        &[
            "Breakpoint 1, 0x0000000000001003 in ?? ()",
            "0x0000000000001004 in ?? ()",
            "0x0000000000001006 in ?? ()",
            "Breakpoint 1, 0x0000000000001003 in ?? ()",
            "$1 = 1",
            "Breakpoint 2, 0x0000000000001006 in ?? ()",
            "Hardware watchpoint 3: *(char *)0x8000",
            "0x0000000000001006 in ?? ()",
            "$2 = (void (*)()) 0x1006",
            "[Inferior 1 (process 1) detached]",
        ],
    );
    guest.until_undisturbed();
}

#[test]
fn breaks_on_every_vcpu_and_locks_the_scheduler() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    let text = output(
        &guest,
        &[
            "break *0x1003 thread 2",
            "continue",
            "p $_thread",
            "set scheduler-locking on",
            "thread 1",
            "set $before = $rax",
            "thread 2",
            "continue",
            "continue",
            "p $_thread",
            "thread 1",
            "p $rax - $before",
            "set scheduler-locking off",
            "thread 2",
            "continue",
            "continue",
            "thread 1",
            "p $rax - $before > 0",
        ],
    );
    assert_lines(&text, &["$1 = 2", "$2 = 2", "$3 = 0", "$4 = 1"]);
    assert_eq!(text.matches("hit Breakpoint 1,").count(), 5);
    guest.until_undisturbed();
}

#[test]
fn writes_registers_and_memory() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let text = output(
        &guest,
        &[
            "set $rax = 0x1234",
            "set $rip = 0x1006",
            "set $eflags = 0x202",
            "set $cr3 = $cr3 | 8",
            "set $xmm0.uint128 = 5",
            "set $cs = 0x33",
            "set {int}0x9ffe = 0x01020304",
            "flushregs",
            "p/x $rax",
            "p $rip",
            "p $eflags",
            "p/x $cr3",
            "p $xmm0.v16_int8[0]",
            "p/x $cs",
            "x/4xb 0x9ffe",
            "x/xb 0x500000",
        ],
    );
    assert_lines(
        &text,
        &[
            "$1 = 0x1234",
            "$2 = (void (*)()) 0x1006",
            "$3 = [ IF IOPL=0 ]",
            "$4 = 0xf0008",
            "$5 = 5",
            "$6 = 0x10",
            "0x9ffe:\t0x04\t0x03\t0x02\t0x01",
        ],
    );
    assert!(text.contains("Could not write register \"cs\""), "{text}");
    assert!(
        text.contains("Cannot access memory at address 0x500000"),
        "{text}"
    );
    guest.until_undisturbed();
}

#[test]
fn attaches_ten_times() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    for _ in 0..10 {
        let text = output(&guest, &["break *0x1003", "continue", "detach"]);
        assert!(
            text.contains("hit Breakpoint 1, 0x0000000000001003"),
            "{text}"
        );
        guest.until_undisturbed();
    }
}

#[test]
fn a_second_gdb_reads_why_it_may_not() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut first = guest.attach();
    let text = output(&guest, &[]);
    assert!(
        text.contains("another debugger is attached to this guest"),
        "{text}"
    );
    assert_eq!(first.ask("D"), "OK");
}

/// An interactive gdb that can be killed.
struct Interactive {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Interactive {
    fn start(guest: &Guest) -> Self {
        let mut gdb = gdb(guest, &[]);
        gdb.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = gdb.spawn().expect("gdb is not installed");
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn say(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
    }

    /// Reads until a line contains `text`.
    fn until(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "no {text:?}");
        }
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_killed_gdb_leaves_the_guest_running() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);

    let mut stopped = Interactive::start(&guest);
    stopped.say("break *0x1003");
    stopped.say("set breakpoint always-inserted on");
    stopped.say("continue");
    stopped.until("hit Breakpoint 1");
    stopped.kill();
    guest.until_undisturbed();

    let mut running = Interactive::start(&guest);
    running.say("break *0x1fff");
    running.say("continue");
    running.until("Continuing.");
    guest.watcher.until("the breakpoint is planted", |state| {
        state.ram[0x1fff] == 0xcc
    });
    running.kill();
    guest.until_undisturbed();

    let mut stepping = Interactive::start(&guest);
    stepping.say("while 1\nstepi\nend");
    for _ in 0..10 {
        stepping.until("in ?? ()");
    }
    stepping.kill();
    guest.until_undisturbed();
}

#[test]
fn conditions_are_evaluated_at_this_end() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let text = output(
        &guest,
        &[
            "break *0x1003 if ($rax & 0xff) == 0x7f && *(char *)0x1003 == (char)0x90",
            "continue",
            "p/x $rax & 0xff",
            "continue",
            "p/x $rax & 0xff",
            "info breakpoints",
            "delete",
            "break *0x1003 if *(char *)0x7000000000 == 1",
            "continue",
            "delete",
            "hbreak *0x1006 if ($rax & 0xff) == 0x11",
            "continue",
            "p/x $rax & 0xff",
        ],
    );
    assert_lines(
        &text,
        &[
            "$1 = 0x7f",
            "$2 = 0x7f",
            "\tbreakpoint already hit 2 times",
            "Breakpoint 2, 0x0000000000001003 in ?? ()",
            "$3 = 0x11",
            "Cannot access memory at address 0x7000000000",
        ],
    );
    assert!(text.contains("(target evals)"), "{text}");
    guest.until_undisturbed();
}

#[test]
fn dprintf_prints_without_a_stop() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let text = output(
        &guest,
        &[
            "set dprintf-style agent",
            "dprintf *0x1003,\"low %d of %#lx\\n\", $rax & 0xf, $rax & 0x3f",
            "break *0x1006 if ($rax & 0x3f) == 0x3f",
            "continue",
            "continue",
            "delete",
        ],
    );
    let line = |n| match n {
        0 => "low 0 of 0".to_owned(),
        n => format!("low {} of {n:#x}", n & 0xf),
    };
    let expected: Vec<_> = (0..0x40).map(line).collect();
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    assert_lines(&text, &expected);
    guest.until_undisturbed();
}
