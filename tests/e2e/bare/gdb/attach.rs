//! Coming and going: nothing that a gdb does on its way out harms the guest.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use tests::gdb::{self, Sysroot};
use tests::process::{Process, Stream, wait_until};
use tests::vmm::Vmm;
use tests::{DEADLINE, guest, scratch};

use super::{Guest, MARK, answer, assert_lines};
use crate::control;

/// Has gdb show its packets, so that one can see when the guest runs.
const SHOW_PACKETS: &str = "set debug remote 1";

#[test]
fn attaches_and_detaches_twenty_times() {
    let guest = Guest::debuggee();
    let mut last = 0;
    for round in 0..20 {
        let lines = guest.gdb(&["break inner", "continue", "output loop_counter"]);
        let counter = lines.last().and_then(|line| line.parse().ok());
        let counter: u64 = counter.unwrap_or_else(|| panic!("round {round}: {lines:?}"));
        assert!(
            round == 0 || counter > last,
            "round {round}: the guest stood still at pass {counter}"
        );
        last = counter;
    }
    guest.expect_undisturbed();
    guest.finish();
}

/// One gdb, so that it is the stub's work that is done two hundred times. The
/// debuggee checks its own sums at every pass.
#[test]
fn two_hundred_attachments_leave_the_guest_unharmed() {
    const CYCLES: usize = 200;
    let guest = Guest::debuggee();
    let attach = format!("target remote {}", guest.vmm.gdb_socket().display());
    let mut commands = vec![MARK, "break inner", "set $first = loop_counter"];
    for cycle in 0..CYCLES {
        if cycle > 0 {
            commands.push(&attach);
        }
        commands.extend(["continue", "detach"]);
    }
    let output = gdb::run(guest.vmm.gdb_socket(), &guest.symbols, &commands);
    let count = |text| output.matches(text).count();
    assert_eq!(count("Breakpoint 1, inner ("), CYCLES, "{output}");
    assert_eq!(count("[Inferior 1 (process 1) detached]"), CYCLES);
    guest.expect_undisturbed();
    guest.finish();
}

#[test]
fn gdb_gets_the_programs_symbols_from_outboard() {
    let guest = Guest::debuggee();
    let commands = [
        MARK,
        "monitor lx ps",
        "break inner",
        "continue",
        "output loop_counter > 0",
    ];
    let output = gdb::run_alone(guest.vmm.gdb_socket(), Sysroot::Guest, &commands);
    let name = guest.symbols.canonicalize().unwrap();
    let read = format!("Reading symbols from target:{}...", name.display());
    assert!(output.contains(&read), "{output}");
    let lines = answer(&output);
    assert!(
        lines.iter().any(|line| line.contains("inner (")),
        "{output}"
    );
    assert_eq!(lines.last().map(String::as_str), Some("1"), "{output}");
    // What gdb does not ask for by itself cannot be had either.
    let stolen = guest.dir.path().join("stolen");
    let steal = format!("remote get /etc/hostname {}", stolen.display());
    let output = gdb::run_alone(guest.vmm.gdb_socket(), Sysroot::Guest, &[&steal, "detach"]);
    assert!(
        output.contains("Remote I/O error: No such file"),
        "{output}"
    );
    guest.expect_undisturbed();
    guest.finish();
}

#[test]
fn killed_while_the_guest_is_stopped() {
    let guest = Guest::debuggee();
    // Breakpoints stay planted while the guest is stopped.
    let gdb = guest.open(&[
        "set breakpoint always-inserted on",
        "break inner",
        "hbreak outer",
        "continue",
        "echo @stopped\\n",
    ]);
    gdb.wait_for("@stopped", DEADLINE);
    kill(gdb);
    guest.expect_undisturbed();
    guest.finish();
}

#[test]
fn killed_while_the_guest_runs() {
    let guest = Guest::held("debug", "", 1);
    // Never hit, since panic() is not called.
    let gdb = guest.open(&["hbreak panic", "break triple_fault", "continue"]);
    guest.vmm.process.wait_for("debug: ready", DEADLINE);
    kill(gdb);
    guest.expect_undisturbed();
    guest.finish();
}

#[test]
fn killed_in_the_middle_of_a_step() {
    let guest = Guest::debuggee();
    for _ in 0..5 {
        let mut gdb = guest.open(&[]);
        let before = gdb.lines().len();
        gdb.send(b"while 1\nstepi\nend\n");
        wait_until("gdb steps", DEADLINE, || gdb.lines().len() > before + 20);
        kill(gdb);
        guest.expect_undisturbed();
    }
    guest.finish();
}

#[test]
fn killed_before_the_first_instruction() {
    let mut guest = Guest::held("hello", "", 2);
    kill(guest.open(&[]));
    guest.vmm.process.expect_exit(0, DEADLINE);
}

fn kill(mut gdb: Process) {
    gdb.signal(libc::SIGKILL);
    gdb.wait(DEADLINE);
}

#[test]
fn second_gdb_is_refused_and_told_why() {
    let guest = Guest::debuggee();
    let mut first = guest.open(&[]);
    let second = guest.transcript(&["echo @resumes\\n"]);
    assert!(
        second.contains(
            "another debugger is attached to this guest; only one can be at a time\n@resumes"
        ),
        "{second}"
    );
    // The first is none the worse for it, and makes room when it leaves.
    first.send(b"output 6 * 7\necho \\n\nquit\n");
    first.wait_for("42", DEADLINE);
    first.expect_exit(0, DEADLINE);
    assert_eq!(guest.value("6 * 7"), 42);
    guest.finish();
}

/// gdb may be where nobody can reach it: on a machine that has gone.
#[test]
fn gdb_is_detached_through_the_control_api() {
    let dir = scratch();
    let api = control::socket(dir.path());
    let guest = Guest::launch("debug", |vmm| vmm.arg("--api", &api));
    guest.vmm.process.wait_for("debug: ready", DEADLINE);
    let detach = |status| control::ctl(dir.path(), &["detach-gdb"], status);
    assert!(detach(1).contains("no debugger is attached"));
    for state in ["echo @here\\n", "continue"] {
        let gdb = guest.open(&["hbreak panic", "break panic", SHOW_PACKETS, state]);
        let reached = match state {
            "continue" => "Sending packet: $vCont;c",
            _ => "@here",
        };
        gdb.wait_for(reached, DEADLINE);
        gdb.signal(libc::SIGSTOP);
        assert_eq!(detach(0), "detach-gdb: done\n");
        guest.expect_undisturbed();
        kill(gdb);
    }
    assert!(detach(1).contains("no debugger is attached"));
    guest.finish();
}

#[test]
fn tcp_address_serves_as_the_socket_does() {
    let symbols = guest::bare("debug");
    let mut vmm = Vmm::new(&symbols).arg("--gdb", "127.0.0.1:0").start();
    let line = vmm.process.wait_for("gdb may attach", DEADLINE).text;
    let (_, address) = line.split_once("address=").unwrap();
    let expected = [
        ("output sizeof(greeting)", "10"),
        ("output primes[7]", "19"),
    ];
    for (command, printed) in expected {
        let commands = [MARK, command];
        let mut gdb = gdb::start_merged(address.as_ref(), &symbols, &commands);
        gdb.expect_exit(0, DEADLINE);
        let lines = answer(&gdb.printed(Stream::Out));
        assert!(lines[0].starts_with(printed), "{lines:?}");
    }
    vmm.process.signal(libc::SIGTERM);
    vmm.process.expect_exit(0, DEADLINE);
}

#[test]
fn interrupt_stops_every_vcpu_again_and_again() {
    let guest = Guest::start("smp", "forever", 2);
    let mut gdb = guest.open(&[SHOW_PACKETS]);
    for _ in 0..5 {
        let from = gdb.lines().len();
        gdb.send(b"continue\n");
        let (from, _) = gdb.wait_for_after(from, "Sending packet: $vCont;c", DEADLINE);
        gdb.signal(libc::SIGINT);
        let (from, _) = gdb.wait_for_after(from, "received signal SIGINT, Interrupt.", DEADLINE);
        gdb.send(b"set $first = shared_counter\n");
        gdb.send(b"printf \"@moved=%d\\n\", shared_counter - $first\n");
        gdb.wait_for_after(from, "@moved=0", DEADLINE);
    }
    gdb.send(b"quit\n");
    gdb.expect_exit(0, DEADLINE);
    let before = guest.value("shared_counter");
    wait_until("the guest runs", DEADLINE, || {
        guest.value("shared_counter") > before
    });
}

#[test]
fn interrupt_stops_a_halted_guest() {
    let guest = Guest::start("misbehave", "case=halt-forever", 1);
    guest.vmm.process.wait_for("halt-forever", DEADLINE);
    let commands = [
        MARK,
        SHOW_PACKETS,
        "continue",
        "set debug remote 0",
        "output $_thread",
    ];
    let mut gdb = gdb::start_merged(guest.vmm.gdb_socket(), &guest.symbols, &commands);
    gdb.wait_for("Sending packet: $vCont;c", DEADLINE);
    gdb.signal(libc::SIGINT);
    gdb.expect_exit(0, DEADLINE);
    let expected = [
        "Program received signal SIGINT, Interrupt.",
        "halt_forever () at guests/misbehave/cpu.c:55",
        "55\t\tfor (;;)",
        "1",
    ];
    assert_lines(&answer(&gdb.printed(Stream::Out)), &expected);
}

#[test]
fn client_that_dies_within_a_packet_leaves_the_guest_running() {
    let guest = Guest::debuggee();
    for half in [
        "m100000,1000#",
        "X100000,1000:\x7f",
        "vCont;c",
        "z0,10004b,1#c",
    ] {
        let mut client = UnixStream::connect(guest.vmm.gdb_socket()).unwrap();
        for packet in ["$?#3f", "+$Z0,10004b,1#6a", "+$Z1,10004b,1#6b"] {
            client.write_all(packet.as_bytes()).unwrap();
            let mut answer = BufReader::new(&mut client);
            answer.read_until(b'#', &mut Vec::new()).unwrap();
            answer.read_exact(&mut [0; 2]).unwrap();
        }
        client.write_all(format!("+${half}").as_bytes()).unwrap();
        drop(client);
        guest.expect_undisturbed();
    }
    guest.finish();
}

#[test]
fn gdb_killed_while_it_dumps_memory_leaves_the_guest_running() {
    let guest = Guest::debuggee();
    let file = guest.dir.path().join("dump");
    let dump = format!("dump binary memory {} 0 0x1000000", file.display());
    for packets in [1, 10, 100] {
        let commands = ["break inner", "continue", SHOW_PACKETS, &dump];
        let gdb = gdb::start_merged(guest.vmm.gdb_socket(), &guest.symbols, &commands);
        wait_until("gdb dumps", DEADLINE, || {
            gdb.printed(Stream::Out).matches("packet: $m").count() >= packets
        });
        kill(gdb);
        guest.expect_undisturbed();
    }
    guest.finish();
}
