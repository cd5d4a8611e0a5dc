//! `monitor dump`, and gdb when a guest's kernel panics.

use tests::{DEADLINE, gdb};

use super::Guest;

/// All of it that gdb can see, before and after.
const STATE: [&str; 4] = [
    "info registers",
    "x/8i outer",
    "info breakpoints",
    "monitor info breakpoints",
];

#[test]
fn a_dump_from_gdb_has_the_guests_own_code_and_leaves_the_guest_as_it_was() {
    let guest = Guest::debuggee();
    let dump = guest.dir.path().join("vmcore");
    let monitor = format!("monitor dump {}", dump.display());
    let mark = ["echo @state\\n"];
    let commands = [
        &[
            "set breakpoint always-inserted on",
            "break outer",
            "continue",
        ],
        &mark[..],
        &STATE,
        &mark,
        &[&monitor],
        &mark,
        &STATE,
        &mark,
        &["continue", "delete", "detach"],
    ];
    let output = guest.transcript(&commands.concat());
    let parts: Vec<_> = output.split("@state\n").collect();
    let [_, before, said, after, rest] = parts[..] else {
        panic!("{output}");
    };
    assert_eq!(before, after.replace("2 times", "1 time"), "{output}");
    assert!(said.contains("64 MiB of RAM"), "{said}");
    assert!(rest.contains("Breakpoint 1, outer"), "{rest}");
    // Not the planted byte, but what the file has.
    let file = format!("file {}", guest.symbols.display());
    let core = format!("core-file {}", dump.display());
    let code = |commands: &[&str]| {
        let output = gdb::run_offline(&[&[&*file], commands, &["x/8xb outer"]].concat());
        let lines = output.lines().filter(|line| line.contains("<outer"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let own = code(&[]);
    assert!(!own.is_empty());
    assert_eq!(code(&[&core]), own);
    guest.finish();
}

#[test]
fn a_panic_stops_for_gdb() {
    let mut guest = Guest::launch("misbehave", |vmm| {
        vmm.cmdline("case=pvpanic")
            .arg("--on-panic", "exit")
            .gdb_wait()
    });
    let output = guest.transcript(&["continue", "backtrace 1", "continue"]);
    assert!(output.contains("the guest's kernel panicked"), "{output}");
    assert!(
        output.contains("#0  pvpanic ()") || output.contains(" in pvpanic ()"),
        "{output}"
    );
    assert!(output.contains("exited normally"), "{output}");
    guest.vmm.process.expect_exit(0, DEADLINE);
}
