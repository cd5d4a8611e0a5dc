//! This project's backends under QEMU's frontend. Its emulator will do, because the
//! frontend is the same with KVM, so that Linux guests need no KVM here either.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use devices::virtio::DeviceType;
use tests::backend::{self, Backend};
use tests::network::{self, Passt, WebServer};
use tests::process::{Process, Stream, wait_until};
use tests::{DEADLINE, guest, program, scratch};

use super::assert_agreed;
use crate::host::provides;

/// A Linux guest under QEMU's emulator.
const BOOT: Duration = Duration::from_secs(180);

/// QEMU with the Linux guest, which does `what`. Not on its microvm: under emulation
/// Linux hangs there now and then when it calibrates its clock.
fn qemu(what: &str) -> Command {
    let guest = guest::linux();
    let mut command = Command::new(program::system("qemu-system-x86_64"));
    command
        .args(["-accel", "tcg", "-m", "256M", "-smp", "2"])
        .args(["-M", "q35,memory-backend=ram"])
        .args(["-object", "memory-backend-memfd,id=ram,size=256M,share=on"])
        .args(["-nodefaults", "-no-reboot", "-display", "none"])
        .args(["-serial", "stdio"])
        .arg("-kernel")
        .arg(guest.bzimage)
        .arg("-initrd")
        .arg(guest.initramfs)
        .arg("-append")
        .arg(format!("console=ttyS0 quiet panic=-1 tsc=reliable {what}"));
    command
}

/// Gives the machine a device whose backend `options` call `name`.
fn attach(command: &mut Command, name: &str, backend: &Backend, options: &[&str]) {
    let path = backend.socket.display();
    command
        .arg("-chardev")
        .arg(format!("socket,id={name},path={path}"))
        .args(options);
}

/// One boot for all; QEMU has no vhost-user frontend for consoles.
#[test]
fn disk_network_and_entropy_of_linux_under_qemu() {
    linux_under_qemu("packed=off");
}

#[test]
fn the_same_on_packed_queues() {
    linux_under_qemu("packed=on");
}

fn linux_under_qemu(packed: &str) {
    if !provides("qemu-system-x86_64") {
        return;
    }
    let dir = scratch();
    let image = backend::ext4_image(dir.path(), 64);
    let disk = backend::outboard_blk(dir.path(), &image, &["--queues", "2"]);
    let passt = Passt::start(dir.path());
    let net = backend::outboard_net(dir.path(), &["--passt", passt.socket()]);
    let source = dir.path().join("source");
    let bytes = network::noise(1 << 16);
    std::fs::write(&source, &bytes).unwrap();
    let rng = backend::outboard_rng(dir.path(), &source);
    net.process.wait_for("the network peer is here", DEADLINE);
    let body = network::noise(1 << 20);
    let sum = network::md5(&body);
    let server = WebServer::start_at(Ipv4Addr::LOCALHOST, body).unwrap();

    let mut command = qemu(&format!(
        "outboard.run=disk,net,rng outboard.mib=16 outboard.ip=10.0.2.15/24 \
         outboard.gateway=10.0.2.2 outboard.url=http://10.0.2.2:{}/file",
        server.port()
    ));
    let device = format!("vhost-user-blk-pci,chardev=disk,{packed}");
    attach(&mut command, "disk", &disk, &["-device", &device]);
    // Without a ROM that would look for a system to boot on the network first.
    let netdev = ["-netdev", "vhost-user,id=link,chardev=net"];
    let device = format!("virtio-net-pci,netdev=link,romfile=,{packed}");
    let link = [&netdev[..], &["-device", &device]].concat();
    attach(&mut command, "net", &net, &link);
    let device = format!("vhost-user-rng-pci,chardev=rng,{packed}");
    attach(&mut command, "rng", &rng, &["-device", &device]);
    let mut qemu = Process::start("qemu", &mut command);
    qemu.expect_exit(0, BOOT);

    let said = qemu.printed(Stream::Out);
    let sum = format!("net-sum={sum}");
    for line in ["disk-queues=2", "disk=ok", &sum, "net=ok", "rng=ok"] {
        let line = format!("outboard-guest: {line}");
        assert!(said.contains(&line), "no {line}: {said}");
    }
    let random = said
        .lines()
        .find_map(|line| line.strip_prefix("outboard-guest: rng-bytes="));
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(hex.contains(random.unwrap()), "not the source's bytes");

    let mut rings = vec!["VERSION_1", "INDIRECT_DESC", "EVENT_IDX"];
    if packed == "packed=on" {
        rings.push("RING_PACKED");
    }
    let of_disk = ["BLK_FLUSH", "BLK_MQ", "MQ", "CONFIG", "INFLIGHT_SHMFD"];
    assert_agreed(disk, DeviceType::BLK, &[&rings[..], &of_disk].concat());
    // The rest of a network device QEMU does itself, its control queue too.
    let of_net = ["NET_MRG_RXBUF", "MQ", "REPLY_ACK"];
    assert_agreed(net, DeviceType::NET, &[&rings[..], &of_net].concat());
    assert_agreed(rng, DeviceType::RNG, &rings);
}

/// QEMU's monitor for people.
struct Monitor(UnixStream);

impl Monitor {
    fn connect(socket: &Path) -> Self {
        wait_until("QEMU's monitor", DEADLINE, || socket.exists());
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(BOOT)).unwrap();
        let mut monitor = Self(stream);
        monitor.answer();
        monitor
    }

    /// Gives a command, and returns what is shown until it is done.
    fn run(&mut self, command: &str) -> String {
        self.0.write_all(format!("{command}\n").as_bytes()).unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut shown = Vec::new();
        while !shown.ends_with(b"(qemu) ") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            shown.push(byte[0]);
        }
        String::from_utf8_lossy(&shown).into_owned()
    }
}

/// The log of written pages: without it, what the disk writes into memory while that is being
/// copied is missing in the copy.
#[test]
fn a_guest_that_reads_its_disk_is_migrated() {
    if !provides("qemu-system-x86_64") {
        return;
    }
    let dir = scratch();
    let image = backend::ext4_image(dir.path(), 64);
    let state = dir.path().join("state");
    let start = |more: &[&str]| {
        let disk = backend::outboard_blk(dir.path(), &image, &["--queues", "2"]);
        let mut command = qemu("outboard.run=disk outboard.mib=32 outboard.again=12");
        let device = ["-device", "vhost-user-blk-pci,chardev=disk"];
        attach(&mut command, "disk", &disk, &device);
        let monitor = dir.path().join("monitor");
        let socket = format!("unix:{},server=on,wait=off", monitor.display());
        command.args(["-monitor", &socket]).args(more);
        (Process::start("qemu", &mut command), disk, monitor)
    };
    let (source, disk, monitor) = start(&[]);
    source.wait_for("outboard-guest: disk=again", BOOT);
    let mut monitor = Monitor::connect(&monitor);
    let shown = monitor.run(&format!("migrate \"exec:cat > {}\"", state.display()));
    let after = monitor.run("info migrate");
    assert!(after.contains("completed"), "{shown}{after}");
    assert!(
        !source.printed(Stream::Out).contains("disk=ok"),
        "it was still at work"
    );
    drop(source);
    let log = disk.process.transcript();
    assert!(log.contains("logging the pages that are written"), "{log}");
    assert_agreed(disk, DeviceType::BLK, &["LOG_SHMFD"]);

    let incoming = format!("exec:cat {}", state.display());
    let (mut target, _disk, _) = start(&["-incoming", &incoming]);
    target.expect_exit(0, BOOT);
    let said = target.printed(Stream::Out);
    assert!(said.contains("outboard-guest: disk=ok"), "{said}");
}
