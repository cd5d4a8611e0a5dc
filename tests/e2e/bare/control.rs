//! The control API, and backends restarted through it under a working guest.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::process::{Process, Stream, stop, wait_until};
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, backend, guest, program, scratch};

use crate::killstorm;
use crate::replay::assert_private;
use crate::supervise::{backend_of, outboard_blk};

const MIB: u64 = 8;
const QUEUES: &str = "--queues 4";

pub fn socket(dir: &Path) -> PathBuf {
    dir.join("api.sock")
}

/// A guest that works on four queues until it is told to finish.
fn start(dir: &Path, spec: &str) -> Running {
    killstorm::start(killstorm::storming(spec, "event_idx").arg("--api", socket(dir)))
}

/// What `outboard ctl` prints, which ends with `status`.
pub fn ctl(dir: &Path, words: &[&str], status: i32) -> String {
    let mut command = Command::new(program::own("outboard"));
    command.arg("ctl").arg("--api").arg(socket(dir)).args(words);
    let mut ctl = Process::start("ctl", &mut command);
    ctl.expect_exit(status, DEADLINE);
    ctl.printed(if status == 0 {
        Stream::Out
    } else {
        Stream::Err
    })
}

pub fn status(dir: &Path) -> Value {
    serde_json::from_str(&ctl(dir, &["--json", "status"], 0)).unwrap()
}

#[test]
fn the_status_says_what_the_machine_is_and_does() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), MIB);
    let spec = format!("blk,exec=\"{}\",id=the disk", outboard_blk(&image, QUEUES));
    let vmm = start(dir.path(), &spec);
    let status = status(dir.path());
    assert_eq!(status["pid"], vmm.process.pid());
    assert!(status["vcpus"][0]["exits"]["MMIO_WRITE"].as_u64() > Some(0));
    let disk = &status["devices"][0];
    assert_eq!(
        (&disk["id"], &disk["type"]),
        (&"the disk".into(), &"blk".into())
    );
    assert!(disk["status"].as_str().unwrap().contains("DRIVER_OK"));
    assert_eq!(disk["queues"][0]["running"], true);
    assert_eq!(disk["backend"]["connected"], true);
    assert_eq!(disk["backend"]["connections"], 1);
    let restarted = ctl(dir.path(), &["restart", "the disk"], 0);
    assert!(
        restarted.starts_with("the disk: restarted in "),
        "{restarted}"
    );
    killstorm::finish(vmm);
    assert!(!socket(dir.path()).exists());
}

#[test]
fn a_working_guest_sees_nothing_of_thirty_restarts() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), MIB);
    let vmm = start(
        dir.path(),
        &format!("blk,exec=\"{}\"", outboard_blk(&image, QUEUES)),
    );
    for _ in 0..30 {
        ctl(dir.path(), &["restart", "blk0"], 0);
    }
    assert_eq!(
        status(dir.path())["devices"][0]["backend"]["connections"],
        31
    );
    killstorm::finish(vmm);
}

/// What the driver has set goes from one process to the next.
#[test]
fn a_network_backend_is_restarted_under_a_working_guest() {
    for options in ["event_idx", "packed event_idx"] {
        let dir = scratch();
        let vmm = killstorm::storming_on_a_network(dir.path(), options);
        let vmm = vmm.arg("--api", socket(dir.path()));
        let mut vmm = killstorm::start_on_a_network(vmm);
        for _ in 0..10 {
            ctl(dir.path(), &["restart", "net0"], 0);
        }
        let connections = &status(dir.path())["devices"][0]["backend"]["connections"];
        assert_eq!(*connections, 11);
        killstorm::finish_on_a_network(&mut vmm);
    }
}

/// Whether it is started from here or not; and `reconnect=off` does not count.
#[test]
fn a_working_guest_waits_while_its_backend_is_disconnected() {
    let connected = |dir: &Path| status(dir)["devices"][0]["backend"]["connected"].clone();
    for exec in [true, false] {
        let dir = scratch();
        let image = backend::disk_image(dir.path(), MIB);
        let own = (!exec).then(|| backend::outboard_blk(dir.path(), &image, &["--queues", "4"]));
        let spec = match &own {
            None => format!("blk,exec=\"{}\"", outboard_blk(&image, QUEUES)),
            Some(disk) => format!("blk,socket={},reconnect=off", disk.socket.display()),
        };
        let vmm = start(dir.path(), &spec);
        let refused = ctl(dir.path(), &["connect", "blk0"], 1);
        assert!(refused.contains("has not been disconnected"), "{refused}");
        for _ in 0..5 {
            let said = ctl(dir.path(), &["disconnect", "blk0"], 0);
            assert!(
                said.contains("DRIVER_OK") && !said.contains("NEEDS_RESET"),
                "{said}"
            );
            assert_eq!(connected(dir.path()), false);
            let refused = ctl(dir.path(), &["disconnect", "blk0"], 1);
            assert!(refused.contains("the backend is away"), "{refused}");
            let said = ctl(dir.path(), &["connect", "blk0"], 0);
            assert!(
                said.contains("DRIVER_OK") && !said.contains("NEEDS_RESET"),
                "{said}"
            );
            assert_eq!(connected(dir.path()), true);
        }
        killstorm::finish(vmm);
    }
}

/// A guest that boots meanwhile finds its disk when there is one.
#[test]
fn a_reset_does_not_bring_a_disconnected_backend_back() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), MIB);
    let spec = format!("blk,exec=\"{}\"", outboard_blk(&image, QUEUES));
    let vmm = start(dir.path(), &spec);
    ctl(dir.path(), &["disconnect", "blk0"], 0);
    let lines = vmm.process.lines().len();
    ctl(dir.path(), &["reset"], 0);
    vmm.process
        .wait_for_after(lines, "the guest reboots", DEADLINE);
    wait_until("the device is reset", DEADLINE, || {
        status(dir.path())["devices"][0]["counters"]["resets"].as_u64() > Some(1)
    });
    assert_eq!(
        status(dir.path())["devices"][0]["backend"]["connected"],
        false
    );
    // A restart starts one, too.
    ctl(dir.path(), &["restart", "blk0"], 0);
    killstorm::finish(vmm);
}

/// It keeps no record of requests in flight: they are waited for.
#[test]
fn a_backend_that_tracks_nothing_can_be_restarted_too() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), MIB);
    let spec = format!(
        "blk,exec=\"{} --blockdev driver=file,node-name=f,filename={} \
         --export type=vhost-user-blk,id=e,node-name=f,num-queues=4,writable=on,addr.type=fd,addr.str={{listen-fd}}\"",
        program::system("qemu-storage-daemon").display(),
        image.display()
    );
    let vmm = start(dir.path(), &spec);
    for _ in 0..5 {
        let restarted = ctl(dir.path(), &["restart", "blk0"], 0);
        assert!(
            restarted.contains("DRIVER_OK") && !restarted.contains("NEEDS_RESET"),
            "{restarted}"
        );
    }
    killstorm::finish(vmm);
}

#[test]
fn a_backend_that_hangs_is_replaced_after_its_deadline() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), MIB);
    let vmm = start(
        dir.path(),
        &format!("blk,exec=\"{}\"", outboard_blk(&image, QUEUES)),
    );
    stop(backend_of(&vmm, &image));
    let restarted = ctl(dir.path(), &["restart", "blk0"], 0);
    assert!(
        restarted.contains("DRIVER_OK") && !restarted.contains("NEEDS_RESET"),
        "{restarted}"
    );
    killstorm::finish(vmm);
}

/// Edit, build, restart: also when the build is broken at first.
#[test]
fn a_restart_runs_what_the_command_has_become() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), MIB);
    let script = dir.path().join("backend");
    let install = |text: &str| {
        let new = dir.path().join("new");
        program::write_script(&new, text);
        fs::rename(new, &script).unwrap();
    };
    let serve = format!("exec {} \"$@\"", outboard_blk(&image, QUEUES));
    install(&format!("echo version 1\n{serve}"));
    let vmm = start(dir.path(), &format!("blk,exec={}", script.display()));
    install("echo cannot start; exit 7");
    let refused = ctl(dir.path(), &["restart", "blk0"], 1);
    assert!(
        refused.contains("exit status: 7") && refused.contains("cannot start"),
        "{refused}"
    );
    install(&format!("echo version 3\n{serve}"));
    ctl(dir.path(), &["restart", "blk0"], 0);
    vmm.process.wait_for("blk0: version 3", DEADLINE);
    killstorm::finish(vmm);
}

#[test]
fn what_cannot_be_is_said_and_no_client_holds_up_another() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), MIB);
    let disk = backend::outboard_blk(dir.path(), &image, &["--queues", "4"]);
    let vmm = start(dir.path(), &format!("blk,socket={}", disk.socket.display()));
    let silent = UnixStream::connect(socket(dir.path())).unwrap();
    let asked = Instant::now();
    let ask = |request: &str| {
        let mut client = UnixStream::connect(socket(dir.path())).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert!(body["error"].is_string(), "{answer}");
        answer
    };
    let expect = |request: &str, code: &str, part: &str| {
        let answer = ask(&format!("{request} HTTP/1.1\r\n\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
        assert!(answer.contains(part), "{answer}");
    };
    assert_private(&socket(dir.path()));
    expect("GET /", "404", "/v1/status");
    expect("PUT /v1/status", "405", "Allow: GET");
    expect("POST /v1/pause?now=1", "400", "takes none");
    expect("POST /v1/dump?file=relative", "400", "absolute path");
    expect("POST /v1/dump?file=/a&file=/b", "400", "given twice");
    assert_eq!(status(dir.path())["state"], "running");
    expect("POST /v1/devices/none/restart", "404", "blk0");
    expect("POST /v1/devices/blk0/restart", "409", "exec=");
    assert!(ask("what?\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "nobody waited for the silent one"
    );
    let mut answer = String::new();
    (&silent).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let refused = ctl(dir.path(), &["restart", "blk0"], 1);
    assert!(
        refused.contains("was not started by this program"),
        "{refused}"
    );
    killstorm::finish(vmm);
    let absent = ctl(dir.path(), &["status"], 1);
    assert!(absent.contains("--api"), "{absent}");
}

/// A guest that halts, and dies of any interrupt.
fn halted(dir: &Path) -> Running {
    let vmm = Vmm::new(guest::bare("misbehave")).cmdline("case=halt-forever");
    let vmm = vmm.cpus(2).arg("--api", socket(dir)).start();
    vmm.process.wait_for("halt-forever", DEADLINE);
    vmm
}

#[test]
fn each_vcpu_takes_an_nmi() {
    let dir = scratch();
    let mut vmm = halted(dir.path());
    // A stopped vCPU would take it when it is resumed, and a reset comes first.
    ctl(dir.path(), &["pause"], 0);
    assert_eq!(ask(dir.path(), "POST /v1/nmi")["vcpus"], 2);
    let lines = vmm.process.lines().len();
    ctl(dir.path(), &["reset"], 0);
    vmm.process.wait_for_after(lines, "halt-forever", DEADLINE);
    // One that runs takes it at once.
    ctl(dir.path(), &["nmi"], 0);
    vmm.process.expect_exit(3, DEADLINE);
}

/// The body of the API's answer to `request`.
pub fn ask(dir: &Path, request: &str) -> Value {
    let mut client = UnixStream::connect(socket(dir)).unwrap();
    let head = format!("{request} HTTP/1.1\r\n\r\n");
    client.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}
