//! COM1 with readers of every kind: slow, asleep, gone, and one who types fast.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::process::Process;
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, gdb, guest, program, scratch};

use crate::control::{ctl, socket, status};

/// Bytes of a line of the guest `serial`.
const LINE: usize = 64;

fn serial(cmdline: &str) -> Vmm {
    Vmm::new(guest::bare("serial")).cmdline(cmdline)
}

/// What the guest sends, line by line.
fn expected(lines: usize) -> String {
    let mut text: String = (0..lines)
        .map(|n| format!("serial: {n:08x} {}\n", ".".repeat(LINE - 18)))
        .collect();
    text += &format!("serial: ok lines={lines}\n");
    text
}

/// More than a pipe and the VMM keep, at 200 kB/s.
#[test]
fn a_slow_reader_gets_every_byte() {
    const LINES: usize = 8192;
    for output in ["polled", "interrupt"] {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut vmm =
            serial(&format!("output={output} lines={LINES}")).start_with(writer, Stdio::piped());
        let mut text = Vec::new();
        let mut piece = [0; 2048];
        loop {
            match reader.read(&mut piece).unwrap() {
                0 => break,
                len => text.extend(&piece[..len]),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        vmm.process.expect_exit(0, DEADLINE);
        let text = String::from_utf8(text).unwrap();
        let expected = expected(LINES);
        for (found, expected) in text.lines().zip(expected.lines()) {
            assert_eq!(found, expected, "{output}\n{}", vmm.messages());
        }
        assert_eq!(text.len(), expected.len(), "{output}");
        assert!(!vmm.messages().contains("lost"), "{}", vmm.messages());
    }
}

#[test]
fn what_nobody_reads_is_lost_and_counted() {
    const LINES: usize = 16384;
    // An exit for each byte takes long where the processor is emulated.
    const PRINTED: Duration = Duration::from_secs(600);
    let (mut reader, writer) = io::pipe().unwrap();
    let mut vmm = serial(&format!("output=blind lines={LINES}")).start_with(writer, Stdio::piped());
    vmm.process.expect_exit(0, PRINTED);
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    let messages = vmm.messages();
    let lost: usize = messages
        .lines()
        .filter_map(|line| line.split_once(" bytes of the guest's output were lost"))
        .map(|(before, _)| before.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(read.len() + lost, expected(LINES).len(), "{messages}");
    assert!(expected(LINES).as_bytes().starts_with(&read[..LINE * 100]));
}

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    // Far more than it takes, and less than the patience that anybody has for a vCPU.
    const AT_ONCE: Duration = Duration::from_secs(8);
    let begun = Instant::now();
    let result = run();
    assert!(begun.elapsed() < AT_ONCE, "{what}: {:?}", begun.elapsed());
    result
}

/// The guest prints without end to a reader that sleeps.
fn expect_obedience(dir: &std::path::Path, mut vmm: Running) {
    vmm.process.wait_for("nobody reads", DEADLINE);
    timed("pause", || ctl(dir, &["pause"], 0));
    assert_eq!(status(dir)["state"], "paused");
    timed("resume", || ctl(dir, &["resume"], 0));
    let exits = |status: &Value| status["vcpus"][0]["exits"]["IO_OUT"].as_u64();
    let before = exits(&status(dir));
    tests::process::wait_until("the guest runs on", DEADLINE, || {
        exits(&status(dir)) > before
    });
    timed("reset", || {
        ctl(dir, &["reset"], 0);
        vmm.process.wait_for("the guest reboots", DEADLINE);
    });
    let seen = timed("gdb", || {
        let commands = ["output forever", "detach"];
        gdb::run(vmm.gdb_socket(), &guest::bare("serial"), &commands)
    });
    assert!(seen.contains("true"), "{seen}");
    timed("shutdown", || {
        ctl(dir, &["shutdown"], 0);
        vmm.process.expect_exit(0, DEADLINE);
    });
}

fn endless(dir: &std::path::Path, output: &str) -> Vmm {
    serial(&format!("output={output} forever"))
        .gdb(dir)
        .arg("--api", socket(dir))
}

#[test]
fn nothing_waits_for_the_reader_of_a_pipe() {
    for output in ["polled", "interrupt", "blind"] {
        let dir = scratch();
        let (_reader, writer) = io::pipe().unwrap();
        let vmm = endless(dir.path(), output).start_with(writer, Stdio::piped());
        expect_obedience(dir.path(), vmm);
    }
}

#[test]
fn nothing_waits_for_the_client_of_a_socket_or_of_a_pty() {
    let dir = scratch();
    let path = dir.path().join("console");
    let target = format!("unix={}", path.display());
    let vmm = endless(dir.path(), "interrupt")
        .arg("--serial", target)
        .start();
    tests::process::wait_until("the console", DEADLINE, || path.exists());
    let _client = UnixStream::connect(&path).unwrap();
    expect_obedience(dir.path(), vmm);

    let dir = scratch();
    let vmm = endless(dir.path(), "polled").arg("--serial", "pty").start();
    expect_obedience(dir.path(), vmm);
}

#[test]
fn a_console_that_cannot_be_written_is_said_once() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (_, broken) = io::pipe().unwrap();
    for (stdout, problem) in [(Stdio::from(full), "No space"), (broken.into(), "Broken")] {
        let mut vmm = serial("output=polled").start_with(stdout, Stdio::piped());
        vmm.process.expect_exit(0, DEADLINE);
        let messages = vmm.messages();
        let told = messages.matches("the guest's output is lost").count();
        assert_eq!(told, 1, "{messages}");
        assert!(messages.contains(problem), "{messages}");
    }
}

#[test]
fn all_that_is_pasted_at_once_arrives() {
    const COUNT: usize = 4000;
    let typed: Vec<u8> = (b'a'..=b'z').cycle().take(COUNT).collect();
    let sum = typed.iter().fold(0u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    let expected = format!("serial: received={COUNT} sum={sum:x}");
    // script gives the VMM a terminal.
    let command = format!(
        "{} run --kernel {} --memory 64M --cmdline 'input={COUNT} lines=0'",
        program::own("outboard").display(),
        guest::bare("serial").display()
    );
    let mut shell = Command::new(program::system("script"));
    shell.args(["-qec", &command, "/dev/null"]);
    let mut terminal = Process::start("script", &mut shell);
    terminal.wait_for("serial: listens", DEADLINE);
    terminal.send(&typed);
    terminal.wait_for(&expected, DEADLINE);
    terminal.expect_exit(0, DEADLINE);

    let mut vmm = serial(&format!("input={COUNT} lines=0")).start();
    vmm.process.wait_for("serial: listens", DEADLINE);
    vmm.process.send(&typed);
    vmm.process.wait_for(&expected, DEADLINE);
    vmm.process.expect_exit(0, DEADLINE);
}
