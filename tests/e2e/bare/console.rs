//! The serial console's other ends.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use tests::process::{Process, wait_until};
use tests::vmm::Vmm;
use tests::{DEADLINE, guest, program, scratch};

const EXPECTED: &str = "hello from bare metal";

#[test]
fn output_goes_to_a_file() {
    let dir = scratch();
    let log = dir.path().join("serial.log");
    let vmm = Vmm::new(guest::bare("hello"))
        .arg("--serial", format!("file={}", log.display()))
        .run(0);
    assert!(std::fs::read_to_string(log).unwrap().starts_with(EXPECTED));
    assert_eq!(vmm.console(), "");
}

#[test]
fn output_can_go_nowhere() {
    let vmm = Vmm::new(guest::bare("hello"))
        .arg("--serial", "none")
        .run(0);
    assert_eq!(vmm.console(), "");
}

#[test]
fn socket_serves_clients_and_is_removed() {
    let dir = scratch();
    let path = dir.path().join("console");
    let mut vmm = Vmm::new(guest::bare("misbehave"))
        .cmdline("case=reboot")
        .arg("--serial", format!("unix={}", path.display()))
        .start();
    wait_until("the console socket", DEADLINE, || path.exists());
    for _ in 0..2 {
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut seen = String::new();
        while !seen.contains("misbehave: reboot") {
            let mut bytes = [0; 256];
            let len = client.read(&mut bytes).unwrap();
            assert_ne!(len, 0, "the VMM hung up after {seen:?}");
            seen += &String::from_utf8_lossy(&bytes[..len]);
        }
    }
    vmm.process.signal(libc::SIGTERM);
    vmm.process.expect_exit(0, DEADLINE);
    assert!(!path.exists());
}

/// A guest on a terminal that `script` makes; `stty` shows its modes before and after.
/// The VMM itself is `exec`ed, so that signals can be sent to it.
fn on_a_terminal(options: &str) -> (Process, u32) {
    let command = format!(
        "stty -g; sh -c 'ulimit -c 0; echo pid=$$; exec {} run --kernel {} --memory 64M \
         --cmdline case=spin-forever {options}'; echo status=$?; stty -g",
        program::own("outboard").display(),
        guest::bare("misbehave").display()
    );
    let mut shell = Command::new(program::system("script"));
    shell.args(["-qec", &command, "/dev/null"]);
    let process = Process::start("script", &mut shell);
    let line = process.wait_for("pid=", DEADLINE).text;
    process.wait_for("spin-forever", DEADLINE);
    let pid = line.trim().split_once('=').unwrap().1.parse().unwrap();
    (process, pid)
}

fn expect_restored(mut process: Process, status: i32) {
    process.wait_for(&format!("status={status}"), DEADLINE);
    process.wait(DEADLINE);
    let lines = process.lines();
    let modes: Vec<_> = lines
        .iter()
        .filter(|line| line.text.matches(':').count() > 20)
        .collect();
    assert_eq!(modes.len(), 2, "{}", process.transcript());
    assert_eq!(modes[0].text, modes[1].text);
}

#[test]
fn ctrl_a_x_quits_and_the_terminal_is_restored() {
    let (mut process, _) = on_a_terminal("");
    process.send(b"typed\x01h");
    process.wait_for("Ctrl-A x       quits", DEADLINE);
    process.send(b"\x01x");
    expect_restored(process, 0);
}

/// In order, as SIGTERM does it, or at the last moment.
#[test]
fn the_terminal_is_restored_whatever_signal_ends_the_machine() {
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
        let (process, pid) = on_a_terminal("");
        signal_process(pid, signal);
        expect_restored(process, 0);
    }
    for signal in [libc::SIGQUIT, libc::SIGSEGV, libc::SIGABRT, libc::SIGALRM] {
        let (process, pid) = on_a_terminal("");
        signal_process(pid, signal);
        expect_restored(process, 128 + signal);
    }
}

#[allow(unsafe_code)]
fn signal_process(pid: u32, signal: libc::c_int) {
    // SAFETY: a system call on integers; the process is a child of a child that has not
    // waited for it, as it has printed what shows that it runs.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

#[test]
fn pty_is_named_and_carries_the_console() {
    let mut vmm = Vmm::new(guest::bare("misbehave"))
        .cmdline("case=reboot")
        .arg("--serial", "pty")
        .start();
    let line = vmm
        .process
        .wait_for("serial console on /dev/pts/", DEADLINE);
    let name = line.text.rsplit(' ').next().unwrap().to_owned();
    let mut terminal = std::fs::File::options()
        .read(true)
        .write(true)
        .open(name)
        .unwrap();
    terminal.write_all(b"x").unwrap();
    let mut seen = String::new();
    while !seen.contains("misbehave: reboot") {
        let mut bytes = [0; 256];
        let len = terminal.read(&mut bytes).unwrap();
        seen += &String::from_utf8_lossy(&bytes[..len]);
    }
    vmm.process.signal(libc::SIGTERM);
    vmm.process.expect_exit(0, DEADLINE);
}
