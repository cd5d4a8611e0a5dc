//! `outboard trace` between a machine and a backend.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::backend::{self, Backend};
use tests::process::{Stream, wait_until};
use tests::vmm::Vmm;
use tests::{DEADLINE, guest, program, scratch};

use crate::host::shown;
use crate::killstorm;
use crate::replay::assert_private;
use crate::supervise::outboard_blk;
use crate::virtio::{SEED, check_image};

/// A proxy that frontends reach at its socket.
pub fn proxy(backend: &Backend, file: &Path, options: &[&str]) -> Backend {
    let socket = file.with_file_name("disk.sock");
    let mut command = Command::new(program::own("outboard"));
    command.arg("trace").args(["--type", "blk"]).args(options);
    command.arg("--listen").arg(&socket);
    command.arg("--connect").arg(&backend.socket);
    command.arg("--output").arg(file);
    Backend::start("trace", &mut command, socket)
}

/// Runs a guest that writes and reads a disk through a proxy, and returns the trace.
fn traced(dir: &Path, disk: &Backend, name: &str) -> PathBuf {
    let file = dir.join(name);
    let mut proxy = proxy(disk, &file, &[]);
    let vmm = Vmm::new(guest::bare("virtio"))
        .cmdline(&format!("sectors=64 seed={SEED} event_idx"))
        .device("blk", &proxy.socket)
        .run(0);
    let console = vmm.console();
    assert!(
        console.contains("blk: ok sectors=64 written=1"),
        "{console}"
    );
    // Requests take the same way as without it.
    assert_eq!(vmm.device_counter("blk0", "notify-exits"), 0);
    end(&mut proxy);
    file
}

fn expect(text: &str, lines: &[&str]) {
    let mut rest = text.lines();
    for expected in lines {
        let found = rest.any(|line| line.contains(expected));
        assert!(found, "no {expected:?} behind those before it in\n{text}");
    }
}

#[test]
fn a_guest_s_disk_works_through_a_proxy_that_tells_what_was_said() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let text = std::fs::read_to_string(traced(dir.path(), &disk, "trace.txt")).unwrap();
    check_image(&image, 64);
    expect(
        &text,
        &[
            "disk#1 connected",
            "-> SET_OWNER",
            "<- GET_FEATURES reply after ",
            "-> SET_FEATURES features=0x160000200 (BLK_FLUSH|EVENT_IDX|PROTOCOL_FEATURES|VERSION_1)",
            "-> ADD_MEM_REG guest=0x0 size=0x4000000 user=0x200000000000 offset=0x0 [2 memfd:outboard-ram] NEED_REPLY",
            "<- ADD_MEM_REG reply after ",
            "-> SET_VRING_KICK index=0 [",
            "-> SET_STATUS status=0xf (ACKNOWLEDGE|DRIVER|DRIVER_OK|FEATURES_OK)",
            "<- GET_VRING_BASE reply after ",
            "disk#1 closed by the frontend",
        ],
    );
}

#[test]
fn the_storage_daemon_of_qemu_is_traced_too() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::qemu_storage_daemon(dir.path(), &image);
    let records = read(&traced(dir.path(), &disk, "trace.jsonl"));
    check_image(&image, 64);
    let features = &requests(&records, "SET_FEATURES")[0]["fields"]["features"];
    assert!(
        features.as_array().unwrap().contains(&"EVENT_IDX".into()),
        "{features}"
    );
    let is_config = |record: &&Value| record["name"] == "GET_CONFIG" && record["reply"] == true;
    let reply = records.iter().find(is_config).unwrap();
    // The capacity, 8192 sectors, is at the begin of the configuration space.
    let bytes = reply["fields"]["bytes"].as_str().unwrap();
    assert!(bytes.starts_with("0020000000000000"), "{bytes}");
    assert!(reply["latency"].as_u64().unwrap() > 0);
}

fn end(proxy: &mut Backend) {
    proxy.process.signal(libc::SIGINT);
    proxy.process.expect_exit(0, DEADLINE);
}

#[test]
fn kicks_calls_and_requests_are_seen_on_their_way() {
    let start: [fn(&Path, &Path) -> Backend; 2] = [
        |dir, image| backend::outboard_blk(dir, image, &[]),
        backend::qemu_storage_daemon,
    ];
    for start in start {
        let dir = scratch();
        let image = backend::disk_image(dir.path(), 4);
        let disk = start(dir.path(), &image);
        let file = dir.path().join("trace.txt");
        let mut proxy = proxy(&disk, &file, &["--rings"]);
        for mode in ["", "indirect", "event_idx", "indirect poll ring=0"] {
            let vmm = Vmm::new(guest::bare("virtio"))
                .cmdline(&format!("sectors=64 seed={SEED} {mode}"))
                .device("blk", &proxy.socket)
                .run(0);
            let console = vmm.console();
            let verdict = "blk: ok sectors=64 written=1";
            assert!(console.contains(verdict), "{mode}: {console}");
            check_image(&image, 64);
        }
        end(&mut proxy);
        let text = std::fs::read_to_string(&file).unwrap();
        // Of the last one, which polls, chains are seen late; on one processor also of the
        // one before, to which the backend sends no call.
        let cpus = std::thread::available_parallelism().unwrap().get();
        let timely = shown(
            cpus > 1,
            "status bytes of requests without a call, in a trace",
        );
        for connection in 1..=if timely { 3 } else { 2 } {
            let of_it = |line: &&str| line.contains(&format!("disk#{connection} "));
            let lines: Vec<_> = text.lines().filter(of_it).collect();
            expect(
                &lines.join("\n"),
                &[
                    "-> SET_VRING_KICK index=0 [",
                    "-> kick, queue 0",
                    ": OUT sector 0, ",
                    "used after ",
                    "FLUSH: OK, 1 bytes written",
                    ": IN sector 0, ",
                ],
            );
        }
    }
}

/// Neither a kick nor a call is lost on its way, whenever a backend dies.
#[test]
fn a_storm_on_a_disk_that_is_killed_goes_through_a_proxy_that_looks_into_rings() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let start = || backend::outboard_blk(dir.path(), &image, &[]);
    let mut disk = start();
    let file = dir.path().join("trace.jsonl");
    let mut proxy = proxy(&disk, &file, &["--rings"]);
    let spec = format!("blk,socket={}", proxy.socket.display());
    for options in ["", "packed"] {
        let vmm = killstorm::storming_on(1, &spec, options).start();
        vmm.process.wait_for("storm: start queues=1", DEADLINE);
        let mut last = 0;
        for _ in 0..3 {
            disk.process.signal(libc::SIGKILL);
            disk = start();
            let back = "the backend is back";
            (last, _) = vmm.process.wait_for_after(last, back, DEADLINE);
        }
        killstorm::finish_on(1, vmm);
    }
    end(&mut proxy);
}

/// A machine writes down itself what is said to its backends, however it reaches them.
#[test]
fn a_machine_traces_its_devices_and_a_backend_that_is_killed() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let source = dir.path().join("source");
    std::fs::write(&source, [7; 4096]).unwrap();
    let rng = backend::outboard_rng(dir.path(), &source);
    let disk = format!("blk,exec=\"{}\",id=disk", outboard_blk(&image, ""));
    let file = dir.path().join("trace.jsonl");
    let vmm = killstorm::storming_on(1, &disk, "")
        .device("rng", &rng.socket)
        .arg("--trace", &file)
        .start();
    let started = "the backend's process has started";
    vmm.process.wait_for("storm: start queues=1", DEADLINE);
    let (next, line) = vmm.process.wait_for_after(0, started, DEADLINE);
    vmm.kill_backend(&line);
    vmm.process.wait_for_after(next, started, DEADLINE);
    killstorm::finish_on(1, vmm);
    let records = read(&file);
    let connections = |device: &str| {
        let is_it = |record: &&Value| record["device"] == device && record["event"] == "connected";
        records.iter().filter(is_it).count()
    };
    assert_eq!((connections("disk"), connections("rng0")), (2, 1));
    let is_closed = |record: &Value| record["event"] == "closed" && record["by"] == "backend";
    assert!(records.iter().any(is_closed));
    // The second process gets the record of requests in flight that the first has kept.
    let regions: Vec<_> = requests(&records, "SET_INFLIGHT_FD")
        .iter()
        .filter(|record| record["device"] == "disk")
        .map(|record| &record["files"][0]["number"])
        .collect();
    assert_eq!(regions.len(), 2);
    assert_eq!(regions[0], regions[1]);
}

/// Of the machine's own trace, and of rings of both kinds.
/// The backend does not look for requests that nobody has told it of. It finds some all the
/// same while it has others, and of those in a packed ring the trace knows the end alone.
#[test]
fn a_machine_traces_the_requests_of_its_devices() {
    const REQUESTS: [&str; 3] = [": OUT sector ", "used after ", ": IN sector "];
    const ALL_REQUESTS: [&str; 5] = [
        ": GET_ID [",
        ": OUT sector 0, ",
        "used after ",
        "FLUSH: OK, 1 bytes written",
        ": IN sector 0, ",
    ];
    for (options, requests) in [
        ("event_idx", &ALL_REQUESTS[..]),
        ("packed", &REQUESTS),
        ("packed indirect event_idx", &REQUESTS),
    ] {
        let dir = scratch();
        let image = backend::disk_image(dir.path(), 4);
        let file = dir.path().join("trace.txt");
        let disk = outboard_blk(&image, "--poll-us 0");
        let vmm = Vmm::new(guest::bare("virtio"))
            .cmdline(&format!("sectors=64 seed={SEED} {options}"))
            .arg("--device", format!("blk,exec=\"{disk}\",id=disk"))
            .arg("--trace", &file)
            .flag("--rings")
            .run(0);
        assert!(vmm.console().contains("blk: ok sectors=64 written=1"));
        check_image(&image, 64);
        assert_private(&file);
        let text = std::fs::read_to_string(&file).unwrap();
        expect(&text, &["disk#1 -> kick, queue 0"]);
        expect(&text, requests);
        expect(&text, &["disk#1 <- call, queue 0"]);
        let unknown = text.lines().filter(|line| line.contains("unknown")).count();
        assert_eq!(unknown, 0, "{options}\n{text}");
    }
}

#[test]
fn a_trace_that_cannot_be_made_is_an_error_and_no_machine() {
    let dir = scratch();
    let file = dir.path().join("none").join("trace");
    let vmm = Vmm::new(guest::bare("hello")).arg("--trace", &file).run(1);
    let messages = vmm.messages();
    assert!(messages.contains("cannot create the trace"), "{messages}");
}

/// Runs a guest that hangs by the faults of `file`, and returns their schedule.
fn hang(dir: &Path, disk: &Backend, file: &Path) -> String {
    let output = dir.join("trace.jsonl");
    let options = ["--rings", "--seed", "7", "--faults", file.to_str().unwrap()];
    let mut proxy = proxy(disk, &output, &options);
    let vmm = Vmm::new(guest::bare("virtio"))
        .cmdline(&format!("sectors=64 seed={SEED}"))
        .device("blk", &proxy.socket)
        .start();
    wait_until("a fault in the trace", DEADLINE, || {
        std::fs::read_to_string(&output).is_ok_and(|text| text.contains("\"event\":\"fault\""))
    });
    end(&mut proxy);
    drop(vmm);
    let explain = Command::new(program::own("outboard"))
        .arg("explain")
        .arg(&output)
        .output()
        .unwrap();
    let text = String::from_utf8(explain.stdout).unwrap();
    expect(
        &text,
        &[
            "disk#1: open at the end of the trace",
            "=> 1 faults were injected on purpose, the last ",
            "=> the oldest of 1 requests in flight has waited for ",
        ],
    );
    assert!(text.contains("drop (kick, queue 0)"), "{text}");
    proxy.process.printed(Stream::Err)
}

#[test]
fn a_dropped_kick_is_explained_and_its_schedule_repeats_it() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let file = dir.path().join("faults.toml");
    std::fs::write(&file, "[[fault]]\nkick = 0\nafter = 4\ndo = \"drop\"\n").unwrap();
    let schedule = hang(dir.path(), &disk, &file);
    let expected =
        "# 1 faults were injected\nseed = 7\n\n[[fault]]\nkick = 0\nnth = 5\ndo = \"drop\"\n";
    assert_eq!(schedule, expected);
    std::fs::write(&file, &schedule).unwrap();
    assert_eq!(hang(dir.path(), &disk, &file), schedule);
}

#[test]
fn a_backend_is_stopped_and_killed_by_a_fault() {
    for (action, is_dead) in [("stop", false), ("kill", true)] {
        let dir = scratch();
        let image = backend::disk_image(dir.path(), 4);
        let mut disk = backend::outboard_blk(dir.path(), &image, &[]);
        let file = dir.path().join("faults.toml");
        let rule = format!("[[fault]]\nmessage = \"SET_OWNER\"\nnth = 1\ndo = \"{action}\"\n");
        std::fs::write(&file, rule).unwrap();
        let output = dir.path().join("trace.jsonl");
        let mut proxy = proxy(&disk, &output, &["--faults", file.to_str().unwrap()]);
        let mut frontend = UnixStream::connect(&proxy.socket).unwrap();
        // SET_OWNER, without a payload.
        let header = [3u32, 1, 0].map(u32::to_ne_bytes).concat();
        frontend.write_all(&header).unwrap();
        if is_dead {
            use std::os::unix::process::ExitStatusExt;
            let status = disk.process.wait(DEADLINE);
            assert_eq!(status.signal(), Some(libc::SIGKILL));
        } else {
            let stat = format!("/proc/{}/stat", disk.process.pid());
            let is_stopped = || std::fs::read_to_string(&stat).unwrap().contains(") T ");
            wait_until("a stopped backend", DEADLINE, is_stopped);
            disk.process.signal(libc::SIGCONT);
        }
        end(&mut proxy);
    }
}

fn read(file: &Path) -> Vec<Value> {
    let lines = std::fs::read_to_string(file).unwrap();
    let lines = lines.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

fn requests<'a>(records: &'a [Value], name: &str) -> Vec<&'a Value> {
    let is_it = |record: &&Value| record["name"] == name && record["reply"] == false;
    records.iter().filter(is_it).collect()
}
