//! The frontend on a backend that is not ours: the vhost-user-blk export of
//! QEMU's storage daemon.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use devices::vhost_user::{Frontend, Options, Reconnect};
use devices::virtio::spec::Register;
use devices::virtio::status::Status;
use devices::virtio::{DeviceEvent, DeviceType};
use support::blk::{self, SECTOR};
use support::{Machine, Ring, wait};

const DISK: usize = 1 << 20;

/// All but VIRTIO_F_EVENT_IDX, which the test's driver does not do.
const FEATURES: u64 = !(1 << 29);

/// A storage daemon on a fresh disk; it ends with the value.
struct Daemon {
    process: Child,
    dir: tempfile::TempDir,
}

impl Daemon {
    fn start(queues: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk.img");
        fs::write(&disk, pattern(DISK)).unwrap();
        let process = spawn(dir.path(), queues, &[], "disk");
        Self { process, dir }
    }

    /// Another on the same disk and socket.
    fn restart(&mut self, queues: u16) {
        self.process = spawn(self.dir.path(), queues, &[], "disk");
    }

    /// Another that takes minutes for each request but the first.
    fn restart_slow(&mut self) {
        let options = [
            "--object",
            "throttle-group,id=slow,x-iops-total=1,x-iops-size=8",
            "--blockdev",
            "driver=throttle,node-name=slow,throttle-group=slow,file=disk",
        ];
        self.process = spawn(self.dir.path(), 1, &options, "slow");
    }

    fn connect(&self, queues: Option<u16>) -> Machine {
        self.connect_with(queues, Reconnect::Forever)
    }

    fn connect_with(&self, queues: Option<u16>, reconnect: Reconnect) -> Machine {
        let memory = support::shared_memory();
        let options = Options {
            queues,
            reconnect,
            connect_deadline: Duration::from_secs(20),
            ..Options::new("disk", DeviceType::BLK, socket(self.dir.path()))
        };
        let frontend = Frontend::connect(options, memory.clone()).unwrap();
        Machine::new(frontend, memory)
    }

    /// Has the daemon resize the disk, to so many bytes.
    fn resize(&self, size: usize) {
        let stream = UnixStream::connect(monitor(self.dir.path())).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut answers = BufReader::new(&stream).lines();
        let resize = format!(
            r#"{{"execute":"block_resize","arguments":{{"node-name":"disk","size":{size}}}}}"#
        );
        for command in [r#"{"execute":"qmp_capabilities"}"#, &resize] {
            (&stream).write_all(command.as_bytes()).unwrap();
            let is_answer = |line: &String| line.contains("return") || line.contains("error");
            let mut lines = answers.by_ref().map(Result::unwrap);
            let answer = lines.find(is_answer).unwrap();
            assert!(answer.contains("return"), "{answer}");
        }
    }

    fn disk(&self) -> Vec<u8> {
        fs::read(self.dir.path().join("disk.img")).unwrap()
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(dir: &Path, queues: u16, options: &[&str], node: &str) -> Child {
    let disk = dir.join("disk.img");
    Command::new("qemu-storage-daemon")
        .arg("--blockdev")
        .arg(format!("driver=file,node-name=disk,filename={}", disk.display()))
        .args(options)
        .arg("--chardev")
        .arg(format!(
            "socket,id=qmp,server=on,wait=off,path={}",
            monitor(dir).display()
        ))
        .args(["--monitor", "chardev=qmp"])
        .arg("--export")
        .arg(format!(
            "type=vhost-user-blk,id=export,node-name={node},writable=on,num-queues={queues},addr.type=unix,addr.path={}",
            socket(dir).display()
        ))
        .spawn()
        .expect("qemu-storage-daemon (Debian package qemu-utils or qemu-system-common) must be installed")
}

fn monitor(dir: &Path) -> PathBuf {
    dir.join("qmp.sock")
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("blk.sock")
}

/// Bytes of which no two sectors are alike.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / SECTOR * 31 + i) as u8).collect()
}

#[test]
fn reads_writes_and_flushes_reach_the_disk() {
    let daemon = Daemon::start(1);
    let mut machine = daemon.connect(None);
    let mut rings = [Ring::new(0, 0x4000)];
    machine.bring_up(FEATURES, &mut rings);
    assert!(!machine.has_status(Status::NEEDS_RESET));

    let capacity = machine.read_config(0, 8).try_into().unwrap();
    assert_eq!(u64::from_le_bytes(capacity), (DISK / SECTOR) as u64);

    let [ring] = &mut rings;
    let read = blk::read(&mut machine, ring, 3, 4096);
    assert_eq!(read, pattern(DISK)[3 * SECTOR..][..4096]);
    blk::write(&mut machine, ring, 5, &[0xa5; 4096]);
    blk::flush(&mut machine, ring);
    assert_eq!(daemon.disk()[5 * SECTOR..][..4096], [0xa5; 4096]);
    assert_eq!(blk::read(&mut machine, ring, 5, 4096), [0xa5; 4096]);

    let info = machine.transport.info();
    assert_eq!(info.counters.interrupts_acknowledged, 4);
    assert_eq!(info.counters.notify_exits, 0);
}

#[test]
fn the_daemon_tells_what_it_writes() {
    let daemon = Daemon::start(1);
    let mut machine = daemon.connect(None);
    let mut rings = [Ring::new(0, 0x4000)];
    machine.bring_up(FEATURES, &mut rings);
    let [ring] = &mut rings;
    let used = ring.used()..ring.used() + 0x1000;
    blk::read(&mut machine, ring, 3, 4096);
    machine.set_dirty_log(true).unwrap();
    blk::read(&mut machine, ring, 3, 4096);
    let read = vec![used, blk::written(0).start..blk::written(4096).end];
    assert_eq!(machine.backend.dirty_pages(), Some(read));
    machine.set_dirty_log(false).unwrap();
    blk::read(&mut machine, ring, 3, 4096);
    assert_eq!(machine.backend.dirty_pages(), None);
}

#[test]
fn the_device_works_again_after_resets_on_the_same_connection() {
    let daemon = Daemon::start(1);
    let mut machine = daemon.connect(None);
    let mut rings = [Ring::new(0, 0x4000)];
    for round in 0..20u8 {
        machine.bring_up(FEATURES, &mut rings);
        let [ring] = &mut rings;
        blk::write(&mut machine, ring, 1, &[round; SECTOR]);
        assert_eq!(blk::read(&mut machine, ring, 1, SECTOR), [round; SECTOR]);
    }
    machine.write(Register::Status, 0);
    assert_eq!(machine.read(Register::Status), 0);
}

/// Its requests are waited for at a reset, but not by one that does nothing any more.
#[test]
fn a_reset_of_a_daemon_that_hangs_over_a_request_costs_one_deadline() {
    let daemon = Daemon::start(1);
    let memory = support::shared_memory();
    let deadline = Duration::from_secs(1);
    let options = Options {
        deadline,
        reconnect: Reconnect::Off,
        ..Options::new("disk", DeviceType::BLK, socket(daemon.dir.path()))
    };
    let frontend = Frontend::connect(options, memory.clone()).unwrap();
    let mut machine = Machine::new(frontend, memory);
    let mut rings = [Ring::new(0, 0x4000)];
    machine.bring_up(FEATURES, &mut rings);
    let [ring] = &mut rings;
    let pid = daemon.process.id().to_string();
    let stopped = Command::new("kill").args(["-STOP", &pid]).status();
    assert!(stopped.unwrap().success());
    blk::begin_flush(&mut machine, ring);
    let begun = Instant::now();
    machine.write(Register::Status, 0);
    let took = begun.elapsed();
    assert!(deadline <= took && took < deadline * 7 / 4, "{took:?}");
}

#[test]
fn each_queue_of_several_works() {
    let daemon = Daemon::start(4);
    let mut machine = daemon.connect(None);
    assert_eq!(machine.read_config(34, 2), [4, 0], "num_queues");
    let mut rings: Vec<_> = (0..4)
        .map(|index| Ring::new(index, 0x4000 + 0x4000 * u64::from(index)))
        .collect();
    machine.bring_up(FEATURES, &mut rings);
    for (sector, ring) in (0..).zip(&mut rings) {
        blk::write(&mut machine, ring, sector, &[sector as u8 + 1; SECTOR]);
    }
    for (sector, ring) in (0..).zip(rings.iter_mut().rev()) {
        let expected = [sector as u8 + 1; SECTOR];
        assert_eq!(blk::read(&mut machine, ring, sector, SECTOR), expected);
    }
}

#[test]
fn fewer_queues_than_the_backend_has_are_what_the_driver_is_told() {
    let daemon = Daemon::start(4);
    let mut machine = daemon.connect(Some(2));
    assert_eq!(machine.read_config(34, 2), [2, 0], "num_queues");
    machine.write(Register::QueueSel, 2);
    assert_eq!(machine.read(Register::QueueSizeMax), 0);
}

#[test]
fn a_killed_backend_that_is_not_waited_for_makes_the_device_need_a_reset() {
    let mut daemon = Daemon::start(1);
    let mut machine = daemon.connect_with(None, Reconnect::Off);
    let mut rings = [Ring::new(0, 0x4000)];
    machine.bring_up(FEATURES, &mut rings);
    daemon.kill();

    assert!(wait(&machine.transport.event_fd().unwrap()));
    let event = machine.transport.handle_event();
    assert!(matches!(event, DeviceEvent::Broken(_)), "{event:?}");
    assert!(machine.has_status(Status::NEEDS_RESET));
    assert_eq!(machine.read(Register::InterruptStatus), 3);
    assert!(wait(&machine.config_call()));

    // The driver's reset ends at once, and the next attempt fails again.
    machine.bring_up(u64::MAX, &mut rings);
    assert!(machine.has_status(Status::NEEDS_RESET));
}

#[test]
fn a_killed_backend_that_comes_back_goes_on_in_every_queue() {
    let mut daemon = Daemon::start(2);
    let mut machine = daemon.connect(None);
    let mut rings = [Ring::new(0, 0x4000), Ring::new(1, 0x8000)];
    machine.bring_up(FEATURES, &mut rings);
    for round in 1..=3u8 {
        for ring in &mut rings {
            blk::write(&mut machine, ring, ring.index.into(), &[round; SECTOR]);
        }
        daemon.kill();
        machine.notice_loss();
        // One request while nobody is there.
        let [ring, _] = &mut rings;
        blk::begin_flush(&mut machine, ring);
        daemon.restart(2);
        machine.handle_until_complete(ring);
        assert!(!machine.has_status(Status::NEEDS_RESET));
        for ring in &mut rings {
            let sector = u64::from(ring.index);
            assert_eq!(
                blk::read(&mut machine, ring, sector, SECTOR),
                [round; SECTOR]
            );
        }
    }
}

/// This daemon uses requests in any order and does not track them.
#[test]
fn a_request_in_flight_when_the_backend_is_killed_needs_a_reset_and_no_more() {
    let mut daemon = Daemon::start(1);
    let mut machine = daemon.connect(None);
    let mut rings = [Ring::new(0, 0x4000)];
    machine.bring_up(FEATURES, &mut rings);
    daemon.kill();
    machine.notice_loss();
    daemon.restart_slow();
    let [ring] = &mut rings;
    blk::begin_write(&mut machine, ring, 5, &[1; 8 * SECTOR]);
    machine.handle_until_complete(ring);
    blk::begin_write(&mut machine, ring, 5, &[2; 8 * SECTOR]);
    daemon.kill();
    machine.notice_loss();
    daemon.restart(1);
    machine.handle_until("the backend is back", |machine| {
        machine.has_status(Status::NEEDS_RESET)
    });
    machine.bring_up(FEATURES, &mut rings);
    assert!(!machine.has_status(Status::NEEDS_RESET));
    let [ring] = &mut rings;
    blk::write(&mut machine, ring, 5, &[3; 8 * SECTOR]);
    assert_eq!(daemon.disk()[5 * SECTOR..][..8 * SECTOR], [3; 8 * SECTOR]);
}

#[test]
fn a_resized_disk_is_announced_by_an_interrupt() {
    let mut daemon = Daemon::start(1);
    let mut machine = daemon.connect(None);
    let mut rings = [Ring::new(0, 0x4000)];
    machine.bring_up(FEATURES, &mut rings);
    let capacity = |machine: &mut Machine| {
        let bytes = machine.read_config(0, 8).try_into().unwrap();
        u64::from_le_bytes(bytes) as usize * SECTOR
    };
    // The second time with another daemon on the same disk.
    for factor in [2, 3] {
        let generation = machine.read(Register::ConfigGeneration);
        daemon.resize(factor * DISK);
        let interrupt = machine.config_call();
        machine.handle_until("the interrupt comes", |_| interrupt.read().is_ok());
        assert_eq!(machine.read(Register::InterruptStatus), 3);
        assert_ne!(machine.read(Register::ConfigGeneration), generation);
        assert_eq!(capacity(&mut machine), factor * DISK);
        let [ring] = &mut rings;
        let last = (factor * DISK / SECTOR) as u64 - 1;
        blk::write(&mut machine, ring, last, &[9; SECTOR]);
        machine.write(Register::InterruptAck, 2);
        daemon.kill();
        machine.notice_loss();
        daemon.restart(1);
        let call = machine.call(0);
        machine.handle_until("the backend is back", |_| call.read().is_ok());
    }
}
