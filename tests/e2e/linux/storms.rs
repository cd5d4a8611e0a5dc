//! Linux while its backends are killed, its drivers taken away, and its kernel
//! replaced by another, in the middle of its work.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tests::backend::Backend;
use tests::network::{self, WebServer, guest_address};
use tests::vmm::Vmm;
use tests::{backend, guest, program, repetitions, scratch};

use crate::machine::{BOOT, linux};

/// Of each kind of queues; `make soak` asks for more. Each is a second or two in the bed.
fn kills() -> u64 {
    repetitions("OUTBOARD_LINUX_KILLS", 100)
}

/// How often each driver is taken away; `make soak` asks for more.
fn cycles() -> u64 {
    repetitions("OUTBOARD_CYCLES", 100)
}

/// How often a guest reboots; `make soak` asks for more.
fn reboots() -> u64 {
    repetitions("OUTBOARD_LINUX_REBOOTS", 10)
}

/// The host's directory under virtiofsd, and where the host listens for streams.
const TAG: &str = "the-host";
const PORT: u32 = 1234;

/// TCP sees lost packets and nothing else: the file arrives as it was.
#[test]
fn a_tcp_stream_survives_killed_network_backends() {
    a_tcp_stream_survives("otap2", "");
}

#[test]
fn a_tcp_stream_survives_them_on_split_queues() {
    a_tcp_stream_survives("otap3", ",features=-packed");
}

fn a_tcp_stream_survives(tap: &'static str, options: &str) {
    const PART: usize = 128 << 10;
    let guest = guest::linux();
    let tap = network::LastingTap::new(tap);
    let body = network::noise(PART * (kills() as usize + 1));
    let parts = body.chunks(PART).map(<[u8]>::to_vec).collect();
    let (begun, begins) = mpsc::channel();
    let server = WebServer::start_in_parts(parts, move |part| begun.send(part).unwrap()).unwrap();
    let what = format!(
        "outboard.run=net outboard.ip={} outboard.url={} outboard.patience={}",
        guest_address(),
        server.url(),
        60 + 10 * kills(),
    );
    let command = format!(
        "{} --tap {}",
        program::own("outboard-net").display(),
        tap.name
    );
    let mut vmm = linux(&guest.bzimage, &guest, &what)
        .arg("--device", format!("net,exec=\"{command}\"{options}"))
        .start();
    vmm.process.close_stdin();
    let first = "the backend's process has started";
    let mut line = 0;
    let mut start = Instant::now();
    for kill in 0..=kills() {
        let (next, started) = vmm.process.wait_for_after(line, first, BOOT);
        // Into a part of the stream, while the one before may still be on its way.
        let part = begins.recv_timeout(BOOT);
        let part = part.unwrap_or_else(|_| panic!("no progress\n{}", vmm.process.transcript()));
        assert_eq!(part as u64, kill);
        if kill % 20 == 0 {
            // Past the capture of output: who watches the bed ends a silent one.
            let _ = writeln!(std::io::stderr(), "{kill} of {} backends killed", kills());
        }
        if kill == 0 {
            start = Instant::now();
        }
        if kill < kills() {
            vmm.kill_backend(&started);
            line = next;
        }
    }
    vmm.process.expect_exit(0, BOOT + BOOT);
    println!("{} kills in {:.1?}", kills(), start.elapsed());
    assert_eq!(vmm.guest_value("net"), "ok");
    assert_eq!(vmm.guest_value("net-sum"), network::md5(&body));
    assert!(
        !vmm.messages().contains("needs a reset"),
        "{}",
        vmm.messages()
    );
}

#[test]
fn drivers_are_taken_away_and_given_back_in_the_middle_of_io() {
    let guest = guest::linux();
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let net = network::outboard_net(dir.path(), "otap3", &[]);
    let rng = backend::outboard_rng(dir.path(), "/dev/urandom".as_ref());
    let what = format!(
        "outboard.ip={} outboard.peer={}",
        guest_address(),
        network::HOST
    );
    let drivers = ["virtio_blk", "virtio_net", "virtio_rng"];
    let vmm = rebinding(&guest, &drivers, &what)
        .cpus(2)
        .device("blk", &disk.socket)
        .device("net", &net.socket)
        .device("rng", &rng.socket);
    are_taken_away(vmm, &drivers);
}

/// One vCPU: while the driver runs on one, another that waits in `put_chars` leaves a
/// character array in the output queue, which the driver then frees as a port's buffer.
/// Linux 6.1 then hangs or faults, under QEMU too.
#[test]
fn the_console_s_driver_is_taken_away_and_given_back_in_the_middle_of_io() {
    let guest = guest::linux();
    let dir = scratch();
    let (console, terminal) = backend::outboard_console(dir.path());
    network::echo(UnixStream::connect(terminal).unwrap());
    let drivers = ["virtio_console"];
    let vmm = rebinding(&guest, &drivers, "").device("console", &console.socket);
    are_taken_away(vmm, &drivers);
}

#[test]
fn drivers_of_other_people_s_backends_are_taken_away_and_given_back_in_the_middle_of_io() {
    let guest = guest::linux();
    let dir = scratch();
    let (fs, vsock) = other_people_s(dir.path());
    let what = format!("outboard.tag={TAG} outboard.port={PORT}");
    let drivers = ["virtiofs", "vmw_vsock_virtio_transport"];
    let vmm = rebinding(&guest, &drivers, &what)
        .cpus(2)
        .device("fs", &fs.socket)
        .device("vsock", &vsock.socket);
    are_taken_away(vmm, &drivers);
}

/// A directory of the host's, and streams that send back what they get.
fn other_people_s(dir: &Path) -> (Backend, Backend) {
    let shared = dir.join("shared");
    std::fs::create_dir(&shared).unwrap();
    let fs = backend::virtiofsd(dir, &shared, &["--tag", TAG]);
    let streams = dir.join("streams");
    let vsock = backend::vhost_device_vsock(dir, &streams);
    network::echo_all(&dir.join(format!("streams_{PORT}")));
    (fs, vsock)
}

/// Each driver has found its device sound and is at work when the machine is reset.
#[test]
fn a_guest_reboots_in_the_middle_of_all_its_io() {
    let guest = guest::linux();
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let net = network::outboard_net(dir.path(), "otap4", &[]);
    let rng = backend::outboard_rng(dir.path(), "/dev/urandom".as_ref());
    let (console, terminal) = backend::outboard_console(dir.path());
    network::echo(UnixStream::connect(terminal).unwrap());
    let (fs, vsock) = other_people_s(dir.path());
    let drivers = "virtio_blk,virtio_net,virtio_rng,virtio_console,virtiofs,\
        vmw_vsock_virtio_transport";
    let what = format!(
        "outboard.run=rebind,reboot outboard.cycles=busy outboard.drivers={drivers} \
        outboard.ip={} outboard.peer={} outboard.tag={TAG} outboard.port={PORT}",
        guest_address(),
        network::HOST,
    );
    let mut vmm = linux(&guest.bzimage, &guest, &what)
        .arg("--on-reboot", "reset")
        .cpus(2)
        .device("blk", &disk.socket)
        .device("net", &net.socket)
        .device("rng", &rng.socket)
        .device("console", &console.socket)
        .device("fs", &fs.socket)
        .device("vsock", &vsock.socket)
        .start();
    let start = Instant::now();
    let mut line = 0;
    for boot in 0..=reboots() {
        let (next, result) = vmm.process.wait_for_after(line, "rebind=", BOOT);
        let busy = result.text.ends_with("rebind=ok");
        assert!(busy, "boot {boot}:\n{}", vmm.process.transcript());
        line = next;
        if boot % 20 == 0 {
            // Past the capture of output: who watches the bed ends a silent one.
            let _ = writeln!(std::io::stderr(), "{boot} of {} reboots", reboots());
        }
    }
    println!("{} reboots in {:.1?}", reboots(), start.elapsed());
    vmm.process.signal(libc::SIGTERM);
    vmm.process.expect_exit(0, tests::DEADLINE);
    assert!(
        !vmm.messages().contains("needs a reset"),
        "{}",
        vmm.messages()
    );
}

fn rebinding(guest: &guest::Linux, drivers: &[&str], what: &str) -> Vmm {
    let what = format!(
        "outboard.run=rebind outboard.drivers={} outboard.cycles={} {what}",
        drivers.join(","),
        cycles(),
    );
    linux(&guest.bzimage, guest, &what)
}

fn are_taken_away(vmm: Vmm, drivers: &[&str]) {
    let mut vmm = vmm.start();
    vmm.process.close_stdin();
    // Three drivers take 0.4 s a cycle in the bed, and twice that on a busy machine.
    let patience = BOOT + Duration::from_millis(1500) * cycles() as u32;
    vmm.process.expect_exit(0, patience);
    assert_eq!(
        vmm.guest_value("rebind"),
        "ok",
        "{}",
        vmm.process.transcript()
    );
    for driver in drivers {
        println!("{driver}: {}", vmm.guest_value(&format!("rebind-{driver}")));
    }
}

#[test]
fn stock_debian_kernel_starts_another_in_the_middle_of_io() {
    let guest = guest::stock_linux();
    let dir = scratch();
    let files = scratch();
    std::fs::copy(&guest.bzimage, files.path().join("vmlinuz")).unwrap();
    std::fs::copy(&guest.initramfs, files.path().join("initramfs.gz")).unwrap();
    let image = backend::ext4_image_of(dir.path(), 128, files.path());
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let what = "outboard.run=kexec outboard.then=disk outboard.mib=4";
    let mut vmm = linux(&guest.bzimage, &guest, what)
        .device("blk", &disk.socket)
        .start();
    vmm.process.close_stdin();
    // Two stock kernels, one behind the other.
    vmm.process.expect_exit(0, 2 * BOOT);
    assert_eq!(vmm.console().matches("init: reached").count(), 2);
    assert_eq!(vmm.guest_value("disk"), "ok");
}
