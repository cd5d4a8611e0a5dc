//! Backends that the VMM starts, starts again and stops (`exec="…"`).

use std::fs;
use std::path::Path;

use tests::process::wait_until;
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, backend, guest, program, scratch};

use crate::host::provides;
use crate::virtio::{SEED, check_image};

const HOST_FAILURE: i32 = 1;

pub fn outboard_blk(image: &Path, more: &str) -> String {
    let program = program::own("outboard-blk");
    format!("{} --path {} {more}", program.display(), image.display())
}

/// A guest that works on a disk whose backend `command` starts.
fn vmm(command: &str, sectors: u64) -> Vmm {
    Vmm::new(guest::bare("virtio"))
        .cmdline(&format!("sectors={sectors} seed={SEED}"))
        .arg("--device", format!("blk,exec=\"{command}\""))
}

fn expect_success(vmm: &mut Running, sectors: u64) {
    vmm.process.close_stdin();
    vmm.process.expect_exit(0, 2 * DEADLINE);
    let verdict = format!("blk: ok sectors={sectors} written=1");
    let console = vmm.console();
    assert!(console.contains(&verdict), "{}", vmm.process.transcript());
}

/// Processes whose command line names `path`.
fn users(path: &Path) -> Vec<u32> {
    let path = path.to_string_lossy().into_owned();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let uses = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&path)
    };
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(uses)
        .collect()
}

/// The backend of a machine, which is its child.
pub fn backend_of(vmm: &Running, image: &Path) -> u32 {
    let own = vmm.process.pid();
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let behind = stat.rsplit(") ").next().unwrap_or_default();
        behind.split_whitespace().nth(1) == Some(&own.to_string())
    };
    let mut found = None;
    wait_until(
        &format!("a backend\n{}", vmm.process.transcript()),
        DEADLINE,
        || {
            found = users(image).into_iter().find(is_child);
            found.is_some()
        },
    );
    found.unwrap()
}

pub fn expect_gone(image: &Path) {
    wait_until("the backend is gone", DEADLINE, || users(image).is_empty());
}

#[test]
fn a_backend_is_started_logged_under_its_devices_name_and_stopped() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 1);
    let mut vmm = vmm(&outboard_blk(&image, ""), 64).start();
    expect_success(&mut vmm, 64);
    let messages = vmm.messages();
    let logged = messages
        .lines()
        .any(|line| line.contains("blk0: ") && line.contains("serving an image"));
    assert!(logged, "{messages}");
    assert_eq!(users(&image), [0; 0]);
    check_image(&image, 64);
}

#[test]
fn a_backend_may_be_given_a_listening_descriptor_or_a_path() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 1);
    let path = outboard_blk(&image, "--socket {socket}");
    expect_success(&mut vmm(&path, 64).start(), 64);
    let storage_daemon = format!(
        "{} --blockdev driver=file,node-name=f,filename={} \
         --export type=vhost-user-blk,id=e,node-name=f,writable=on,addr.type=fd,addr.str={{listen-fd}}",
        program::system("qemu-storage-daemon").display(),
        image.display()
    );
    expect_success(&mut vmm(&storage_daemon, 128).start(), 128);
    assert_eq!(users(&image), [0; 0]);
    check_image(&image, 128);
}

#[test]
fn well_known_programs_need_no_word_of_their_socket() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 1);
    let storage_daemon = format!(
        "{} --blockdev driver=file,node-name=f,filename={} \
         --export type=vhost-user-blk,id=e,node-name=f,writable=on",
        program::system("qemu-storage-daemon").display(),
        image.display()
    );
    expect_success(&mut vmm(&storage_daemon, 64).start(), 64);
    check_image(&image, 64);
    if !provides("virtiofsd") {
        return;
    }
    let virtiofsd = format!(
        "{} --tag rootfs --shared-dir {} --sandbox none",
        program::cached("virtiofsd/bin/virtiofsd").display(),
        dir.path().display()
    );
    let rng = program::cached("vhost-device/bin/vhost-device-rng");
    let vmm = Vmm::new(guest::bare("virtio"))
        .cmdline("bytes=64")
        .arg("--device", format!("fs,exec=\"{virtiofsd}\""))
        .arg("--device", format!("rng,exec={}", rng.display()))
        .run(0);
    let console = vmm.console();
    assert!(console.contains("rng: ok"), "{}", vmm.process.transcript());
}

#[test]
fn a_backend_gets_its_socket_and_no_other_descriptor() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 1);
    let command = format!(
        "sh -c 'ls -l /proc/$$/fd; exec {} --fd {{fd}}'",
        outboard_blk(&image, "")
    );
    let mut vmm = vmm(&command, 64).start();
    expect_success(&mut vmm, 64);
    let messages = vmm.messages();
    let descriptors = messages
        .lines()
        .filter(|line| line.contains(" -> "))
        .count();
    assert_eq!(
        descriptors, 4,
        "three standard ones and the socket: {messages}"
    );
}

#[test]
fn a_backend_gets_what_it_needs_of_the_environment() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 1);
    let command = format!(
        "env OF_THE_COMMAND=1 sh -c 'xargs -0n1 </proc/$$/environ; exec {} --fd {{fd}}'",
        outboard_blk(&image, "")
    );
    let mut vmm = vmm(&command, 64).start();
    expect_success(&mut vmm, 64);
    let messages = vmm.messages();
    let logged = messages
        .lines()
        .filter_map(|line| line.split_once("blk0: "));
    let variables = logged.filter_map(|(_, line)| line.split_once('='));
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let mut names: Vec<_> = variables
        .map(|(name, _)| name)
        .filter(|name| is_name(name))
        .collect();
    names.retain(|name| !name.starts_with("LC_"));
    assert!(names.contains(&"PATH"), "{messages}");
    assert!(names.contains(&"OF_THE_COMMAND"), "{messages}");
    assert!(names.contains(&"RUST_LOG"), "{messages}");
    let kept = [
        "HOME",
        "LANG",
        "LOGNAME",
        "NO_COLOR",
        "OF_THE_COMMAND",
        "PATH",
        "RUST_BACKTRACE",
        "RUST_LOG",
        "TERM",
        "TMPDIR",
        "TZ",
        "USER",
        "XDG_RUNTIME_DIR",
    ];
    let others: Vec<_> = names.iter().filter(|name| !kept.contains(name)).collect();
    assert!(others.is_empty(), "{others:?} of: {messages}");
}

#[test]
fn a_command_that_cannot_serve_gives_one_clear_error() {
    let refused = |command: &str, parts: &[&str]| {
        let vmm = vmm(command, 64).run(HOST_FAILURE);
        let messages = vmm.messages();
        let errors: Vec<_> = messages
            .lines()
            .filter(|line| line.starts_with("outboard: "))
            .collect();
        assert_eq!(errors.len(), 1, "{}", vmm.process.transcript());
        for part in parts {
            assert!(errors[0].contains(part), "no {part:?} in {:?}", errors[0]);
        }
    };
    refused(
        "sh -c 'echo no such option >&2; exit 3'",
        &[
            "blk0",
            "exit status: 3",
            "no such option",
            "{listen-fd}",
            "{socket}",
        ],
    );
    let absent = outboard_blk(Path::new("/nonexistent/disk.img"), "");
    let words = ["blk0", "exit status: 1", "/nonexistent/disk.img"];
    refused(
        "no-such-backend --x",
        &["blk0", "no-such-backend", "No such file", "PATH"],
    );
    refused(&absent, &words);
    refused(&format!("{absent} --socket {{socket}}"), &words);
    refused("true {socket}", &["blk0", "exit status: 0"]);
    refused("sh -c 'kill -9 $$' {fd}", &["blk0", "signal: 9"]);
    refused("sleep 60 {socket}", &["blk0", "sleep 60", "exit status: 1"]);
    refused(
        "sh -c 'sleep 60' {socket}",
        &["blk0", "{socket}", "does not listen"],
    );
}

#[test]
fn a_backend_that_dies_is_started_again() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 16);
    let mut vmm = vmm(&outboard_blk(&image, ""), 32768).start();
    vmm.process.wait_for("blk: slot=0", DEADLINE);
    let mut last = 0;
    for _ in 0..3 {
        let mut pid = last;
        wait_until("another backend", DEADLINE, || {
            pid = backend_of(&vmm, &image);
            pid != last
        });
        kill(pid);
        last = pid;
    }
    expect_success(&mut vmm, 32768);
    check_image(&image, 32768);
}

#[test]
fn no_backend_outlives_a_machine_that_is_told_to_end_or_killed() {
    let dir = scratch();
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let image = backend::disk_image(dir.path(), 1);
        let mut vmm = Vmm::new(guest::bare("smp"))
            .cmdline("rounds=forever")
            .arg(
                "--device",
                format!("blk,exec=\"{}\"", outboard_blk(&image, "")),
            )
            .start();
        backend_of(&vmm, &image);
        vmm.process.signal(signal);
        vmm.process.wait(DEADLINE);
        expect_gone(&image);
    }
}

#[test]
fn a_backend_that_does_not_want_to_end_is_killed() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 1);
    let stubborn = format!(
        "sh -c 'trap : TERM; {} --fd {{fd}} & while :; do wait; sleep 60; done'",
        outboard_blk(&image, "")
    );
    let mut vmm = vmm(&stubborn, 64).start();
    expect_success(&mut vmm, 64);
    assert!(vmm.messages().contains("is killed"), "{}", vmm.messages());
    assert_eq!(users(&image), [0; 0]);
}

#[allow(unsafe_code)]
fn kill(pid: u32) {
    // SAFETY: a system call on integers; the caller has just seen that it is the
    // machine's child, and the machine has no reason to wait for it.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
}
