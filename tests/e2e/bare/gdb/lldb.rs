//! LLDB, the other debugger that speaks the protocol.

use tests::vmm::Vmm;
use tests::{DEADLINE, guest, lldb, scratch};

use super::Guest;
use crate::host::provides;

#[test]
fn lldb_breaks_steps_reads_and_leaves_the_guest_running() {
    if !provides("lldb") {
        return;
    }
    let guest = Guest::debuggee();
    let output = lldb::run(
        guest.vmm.gdb_socket(),
        &guest.symbols,
        DEADLINE,
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
    let expect = |command, part| lldb::expect(&output, command, part);
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

#[test]
fn lldb_sees_what_the_page_tables_map() {
    if !provides("lldb") {
        return;
    }
    let guest = Guest::debuggee();
    let output = lldb::run(
        guest.vmm.gdb_socket(),
        &guest.symbols,
        DEADLINE,
        &[
            "memory region &primes[7]",
            "memory region 0x8000000000",
            "process detach",
        ],
    );
    // The guest maps the first 4 GiB, for reading, writing and executing.
    lldb::expect(
        &output,
        "memory region &primes[7]",
        "[0x0000000000000000-0x0000000100000000) rwx",
    );
    lldb::expect(&output, "memory region 0x8000000000", ") ---");
    guest.finish();
}

#[test]
fn lldb_kills_the_guest_if_it_may() {
    if !provides("lldb") {
        return;
    }
    let dir = scratch();
    let mut vmm = Vmm::new(guest::bare("debug"))
        .gdb(dir.path())
        .gdb_kill()
        .start();
    vmm.process.wait_for("debug: ready", DEADLINE);
    let symbols = guest::bare("debug");
    let output = lldb::run(vmm.gdb_socket(), &symbols, DEADLINE, &["process kill"]);
    lldb::expect(&output, "process kill", "exited with status = 9");
    vmm.process.expect_exit(0, DEADLINE);
}
