//! What programs say, where nobody can hear it: no program ends of that, none waits.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::process::{Process, Stream};
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, backend, guest, program, scratch};

use crate::control::{ctl, socket};
use crate::supervise::outboard_blk as outboard_blk_command;

/// A full disk, a pipe whose reader has gone, and one whose reader sleeps, which
/// must be kept.
fn deaf() -> [(Stdio, Option<io::PipeReader>); 3] {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (_, broken) = io::pipe().unwrap();
    let (sleeper, unread) = io::pipe().unwrap();
    fill(&unread);
    [
        (full.into(), None),
        (broken.into(), None),
        (unread.into(), Some(sleeper)),
    ]
}

#[allow(unsafe_code)]
fn fill(pipe: &io::PipeWriter) {
    use std::os::fd::AsRawFd;
    let fd = pipe.as_raw_fd();
    // SAFETY: a system call on integers.
    let set = |flags: libc::c_int| unsafe { libc::fcntl(fd, libc::F_SETFL, flags) };
    assert_eq!(set(libc::O_NONBLOCK), 0);
    let mut pipe = pipe;
    while io::Write::write(&mut pipe, &[b'.'; 4096]).is_ok() {}
    assert_eq!(set(0), 0);
}

fn outboard_blk(dir: &Path, stderr: impl Into<Stdio>) -> Process {
    let mut command = Command::new(program::own("outboard-blk"));
    command.env("RUST_LOG", "trace").arg("--path");
    command.arg(backend::disk_image(dir, 1)).arg("--socket");
    command.arg(dir.join("blk.sock"));
    let process = Process::start_with("outboard-blk", &mut command, Stdio::piped(), stderr);
    tests::process::wait_until("outboard-blk listens", DEADLINE, || {
        dir.join("blk.sock").exists()
    });
    process
}

#[test]
fn a_backend_serves_whoever_reads_its_log() {
    for (stderr, _sleeper) in deaf() {
        let dir = scratch();
        let mut blk = outboard_blk(dir.path(), stderr);
        let vmm = Vmm::new(guest::bare("virtio"))
            .cmdline("sectors=64")
            .device("blk", &dir.path().join("blk.sock"))
            .run(0);
        assert!(
            vmm.console().contains("blk: ok"),
            "{}",
            vmm.process.transcript()
        );
        blk.signal(libc::SIGTERM);
        blk.expect_exit(0, DEADLINE);
    }
}

/// A status report, more log than a pipe takes, a lost backend, a reboot.
#[test]
fn a_machine_runs_whoever_reads_its_messages() {
    for (stderr, _sleeper) in deaf() {
        let dir = scratch();
        let blk = outboard_blk(dir.path(), Stdio::null());
        let mut vmm = Vmm::new(guest::bare("misbehave"))
            .cmdline("case=reboot")
            .log("trace")
            .device("blk", &dir.path().join("blk.sock"))
            .start_with(Stdio::piped(), stderr);
        let mut line = 0;
        let mut reboots = |vmm: &tests::vmm::Running| {
            for _ in 0..3 {
                let found = vmm.process.wait_for_after(line, "reboot", DEADLINE);
                line = found.0;
            }
        };
        reboots(&vmm);
        vmm.process.signal(libc::SIGUSR1);
        reboots(&vmm);
        drop(blk);
        reboots(&vmm);
        vmm.process.signal(libc::SIGTERM);
        vmm.process.expect_exit(0, DEADLINE);
    }
}

fn doctor(stdout: impl Into<Stdio>) -> (Option<i32>, String) {
    let outboard = program::own("outboard");
    let mut doctor = Command::new(outboard);
    let output = doctor.arg("doctor").stdout(stdout).stderr(Stdio::piped());
    let output = output.spawn().unwrap().wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[test]
fn an_answer_that_nobody_wants_to_the_end_is_no_failure() {
    let (_, broken) = io::pipe().unwrap();
    assert_eq!(doctor(broken), (Some(0), String::new()));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (status, said) = doctor(full);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("cannot write to standard output"), "{said}");
}

#[test]
fn bad_usage_is_bad_usage_whoever_hears_of_it() {
    for (stderr, _sleeper) in deaf() {
        let mut command = Command::new(program::own("outboard"));
        command.args(["run", "--kernel", "/nonexistent"]);
        let mut vmm = Process::start_with("outboard", &mut command, Stdio::piped(), stderr);
        vmm.expect_exit(2, DEADLINE);
        assert_eq!(vmm.printed(Stream::Out), "");
    }
}

/// A machine that starts its disk's backend, and a guest that leaves it alone.
fn with_backend(image: &Path) -> Vmm {
    let blk = program::own("outboard-blk");
    let command = format!("{} --path {}", blk.display(), image.display());
    Vmm::new(guest::bare("hello"))
        .arg("--device", format!("blk,exec=\"{command}\""))
        .log_by_default()
}

#[test]
fn a_machine_that_is_well_says_nothing() {
    let dir = scratch();
    let vmm = with_backend(&backend::disk_image(dir.path(), 1)).run(0);
    assert_eq!(vmm.messages(), "");
}

#[test]
fn a_log_file_has_lines_of_machine_and_backends_with_one_time_and_no_colour() {
    let dir = scratch();
    let log = dir.path().join("log");
    std::fs::write(&log, "an earlier line\n").unwrap();
    let vmm = with_backend(&backend::disk_image(dir.path(), 1))
        .arg("--log", "info")
        .arg("--log-file", &log)
        .run(0);
    assert_eq!(vmm.messages(), "");
    let text = std::fs::read_to_string(&log).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("an earlier line"));
    let (mut own, mut backends) = (0, 0);
    for line in lines.filter(|line| line.contains(" INFO ")) {
        assert_eq!(line.matches("Z  INFO ").count(), 1, "{line}");
        assert_eq!(line.matches("INFO").count(), 1, "{line}");
        match line.contains("backend: blk0: ") {
            true => backends += 1,
            false => own += 1,
        }
    }
    assert!(own > 0 && backends > 0, "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn bad_filters_and_log_files_are_refused() {
    for (option, value, part) in [
        ("--log", "outboard=loud", "cannot be understood"),
        ("--log-file", "/nonexistent/log", "/nonexistent/log"),
    ] {
        let vmm = Vmm::new(guest::bare("hello")).arg(option, value).run(2);
        assert!(vmm.messages().contains(part), "{}", vmm.messages());
    }
}

#[test]
fn colours_are_for_terminals() {
    let coloured = |environment: &str| {
        let command = format!(
            "{environment} RUST_LOG=info {} run --kernel {} --memory 64M",
            program::own("outboard").display(),
            guest::bare("hello").display()
        );
        let mut shell = Command::new(program::system("script"));
        shell.args(["-qec", &command, "/dev/null"]);
        let mut terminal = Process::start("script", &mut shell);
        terminal.expect_exit(0, DEADLINE);
        let printed = terminal.printed(Stream::Out);
        assert!(printed.contains("INFO"), "{printed}");
        printed.contains('\x1b')
    };
    assert!(coloured("NO_COLOR="));
    assert!(!coloured("NO_COLOR=1"));
    let piped = Vmm::new(guest::bare("hello")).log_by_default().log("info");
    let messages = piped.run(0).messages();
    assert!(messages.contains("INFO"), "{messages}");
    assert!(!messages.contains('\x1b'), "{messages}");
}

/// Each line of the file is an object, also one about what a backend prints.
#[test]
fn log_lines_are_json_if_that_is_asked_for() {
    let dir = scratch();
    let log = dir.path().join("log");
    let image = backend::disk_image(dir.path(), 1);
    let spec = format!("blk,exec=\"{}\"", outboard_blk_command(&image, ""));
    Vmm::new(guest::bare("virtio"))
        .cmdline("sectors=64")
        .arg("--device", spec)
        .arg("--log", "debug")
        .arg("--log-format", "json")
        .arg("--log-file", &log)
        .run(0);
    let text = std::fs::read_to_string(log).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let from = |target: &str| {
        let found = |line: &&Value| line["target"].as_str().unwrap().starts_with(target);
        lines.iter().find(found).unwrap_or_else(|| panic!("{text}"))
    };
    assert_eq!(from("devices")["fields"]["device"], "blk0");
    let backend = from("backend")["message"].as_str().unwrap();
    assert!(backend.starts_with("blk0: "), "{backend}");
    for line in &lines {
        assert!(line["timestamp"].is_string() && line["level"].is_string());
        assert!(line["message"].is_string(), "{line}");
    }
}

#[test]
fn another_filter_counts_from_here_on() {
    let dir = scratch();
    let mut vmm = Vmm::new(guest::bare("misbehave"))
        .cmdline("case=halt-forever")
        .log("warn")
        .arg("--api", socket(dir.path()))
        .start();
    vmm.process.wait_for("halt-forever", DEADLINE);
    assert_eq!(ctl(dir.path(), &["log"], 0).trim(), "log: warn");
    // A reboot is told of at level info.
    let reboots = |vmm: &Running| vmm.messages().matches("the guest reboots").count();
    let reset = |vmm: &Running| {
        let lines = vmm.process.lines().len();
        ctl(dir.path(), &["reset"], 0);
        vmm.process.wait_for_after(lines, "halt-forever", DEADLINE);
    };
    reset(&vmm);
    assert_eq!(reboots(&vmm), 0);
    ctl(dir.path(), &["log", "info"], 0);
    reset(&vmm);
    vmm.process.wait_for("the guest reboots", DEADLINE);
    let refused = ctl(dir.path(), &["log", "loud=very"], 1);
    assert!(refused.contains("cannot be understood"), "{refused}");
    assert_eq!(ctl(dir.path(), &["log"], 0).trim(), "log: info");
    let lines = vmm.process.lines().len();
    ctl(dir.path(), &["log", "off"], 0);
    reset(&vmm);
    ctl(dir.path(), &["shutdown"], 0);
    vmm.process.expect_exit(0, DEADLINE);
    assert_eq!(reboots(&vmm), 1, "{:?}", &vmm.process.lines()[lines..]);
}
