//! What stopping, watching and stepping mean to a running Linux kernel.

use std::path::{Path, PathBuf};

use tests::process::Stream;
use tests::vmm::Running;
use tests::{gdb, guest, scratch};

use crate::machine::{BOOT, linux};

/// A guest that carries out `action` until told to stop, with its gdb socket.
fn started(dir: &Path, action: &str) -> (Running, PathBuf) {
    let guest = guest::linux();
    let vmlinux = guest.vmlinux.clone().unwrap();
    let running = linux(&vmlinux, &guest, &format!("outboard.run={action}"))
        .cpus(2)
        .gdb(dir)
        .start();
    running.process.wait_for(&format!("{action}=started"), BOOT);
    (running, vmlinux)
}

fn finish(vmm: &mut Running) {
    vmm.process.send(b"\n");
    vmm.process.expect_exit(0, BOOT);
    let console = vmm.console();
    assert!(!console.contains("lockup"), "{console}");
    assert!(!console.contains("WARNING"), "{console}");
}

/// What gdb prints, notices included.
fn merged(vmm: &Running, symbols: &Path, commands: &[&str]) -> String {
    let mut gdb = gdb::start_merged(vmm.gdb_socket(), symbols, commands);
    gdb.expect_exit(0, BOOT);
    gdb.printed(Stream::Out)
}

#[test]
fn kernel_variables_are_watched_by_slots_and_by_pages() {
    let dir = scratch();
    let (mut vmm, vmlinux) = started(dir.path(), "rename");
    for (what, more) in [
        // One byte, the digit.
        ("init_uts_ns.name.nodename[5]", None),
        // 390 bytes.
        ("init_uts_ns.name", Some(" became 0x3")),
    ] {
        let watch = format!("watch {what}");
        let commands = [
            &watch,
            "continue",
            "backtrace",
            "continue",
            "delete",
            "detach",
        ];
        let output = merged(&vmm, &vmlinux, &commands);
        let hits = output
            .matches("hit Hardware watchpoint 1: init_uts_ns.name")
            .count();
        assert_eq!(hits, 2, "{output}");
        for part in [
            "Old value = ",
            "New value = ",
            "proc_do_uts_string",
            "detached",
        ] {
            assert!(output.contains(part), "no {part:?}:\n{output}");
        }
        if let Some(notice) = more {
            assert_eq!(output.matches(notice).count(), 2, "{output}");
        }
    }
    finish(&mut vmm);
    assert_eq!(vmm.guest_value("rename"), "ok");
}

/// Which line calls schedule() is known, but not how many are before it: that depends
/// on when the timer is due. The call is the line that takes most of that half a second.
const NEXT_UNTIL_IT_SLEPT: &str = r#"python exec("""
def jiffies(): return int(gdb.parse_and_eval('jiffies_64'))
took = 0
for _ in range(20):
    before = jiffies()
    gdb.execute('next')
    took = jiffies() - before
    if took >= 20: break
print('slept:', took >= 20)
""")"#;

#[test]
fn next_steps_over_a_function_that_sleeps() {
    let dir = scratch();
    let (mut vmm, vmlinux) = started(dir.path(), "rename");
    let commands = [
        "tbreak schedule_hrtimeout_range_clock",
        "continue",
        "print expires",
        NEXT_UNTIL_IT_SLEPT,
        "info symbol $pc",
        "print expires",
        "detach",
    ];
    let output = merged(&vmm, &vmlinux, &commands);
    // The call of schedule() comes back after a tenth of a second, for the same
    // task: other tasks that come back from theirs meanwhile do not count.
    for part in [
        "slept: True\n",
        "\nschedule_hrtimeout_range_clock + ",
        "detached",
    ] {
        assert!(output.contains(part), "no {part:?}:\n{output}");
    }
    let expires = |name: &str| {
        let (_, value) = output.split_once(name).unwrap();
        value.lines().next().unwrap().to_owned()
    };
    assert_eq!(expires("$1 = "), expires("$2 = "), "{output}");
    finish(&mut vmm);
    assert_eq!(vmm.guest_value("rename"), "ok");
}

/// Both vCPUs take their timer interrupts meanwhile.
#[test]
fn a_whole_kernel_function_is_stepped_through_line_by_line() {
    let dir = scratch();
    let (mut vmm, vmlinux) = started(dir.path(), "rename");
    let commands = [
        "tbreak proc_do_uts_string",
        "continue",
        "python name, lines = gdb.selected_frame().name(), 0",
        "python frame = gdb.selected_frame().older().pc()",
        "python while gdb.selected_frame().name() == name and lines < 100: \
         gdb.execute('next'); lines += 1",
        "python print('lines', 5 < lines < 100)",
        "python print('returned', gdb.selected_frame().pc() >= frame)",
        "backtrace 1",
        "detach",
    ];
    let output = merged(&vmm, &vmlinux, &commands);
    for part in [
        "lines True",
        "returned True",
        "#0  proc_sys_call_handler",
        "detached",
    ] {
        assert!(output.contains(part), "no {part:?}:\n{output}");
    }
    finish(&mut vmm);
    assert_eq!(vmm.guest_value("rename"), "ok");
}
