//! Other people's backends under Linux guests of this VMM.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;

use tests::vmm::Running;
use tests::{backend, guest, network, scratch};

use crate::machine::{BOOT, linux, run};

/// What `vmm` and the backend of device `id` have agreed on, as the log has it.
fn agreed(vmm: &Running, id: &str) -> String {
    let text = format!("connected to the backend device=\"{id}\"");
    let line = vmm.process.wait_for(&text, BOOT).text;
    println!("{line}");
    line
}

/// Reads, writes and flushes; then the daemon's user gives the disk another size, and
/// the guest hears of it by a configuration interrupt.
#[test]
fn storage_daemon_of_qemu_serves_a_linux_disk_and_resizes_it() {
    let guest = guest::linux();
    let dir = scratch();
    let image = backend::ext4_image(dir.path(), 64);
    let disk = backend::qemu_storage_daemon(dir.path(), &image);
    let what = "outboard.run=disk,resize outboard.mib=16";
    let mut vmm = linux(&guest.bzimage, &guest, what)
        .cpus(2)
        .device("blk", &disk.socket)
        .start();
    vmm.process.close_stdin();
    let sectors = |mib: u64| (mib << 20) / 512;
    let from = format!("resize-from={}", sectors(64));
    vmm.process.wait_for(&from, BOOT);
    backend::qemu_storage_daemon_resize(dir.path(), 80 << 20);
    vmm.process.expect_exit(0, BOOT);
    assert_eq!(vmm.guest_value("disk"), "ok");
    assert_eq!(vmm.guest_value("disk-queues"), "2");
    assert_eq!(vmm.guest_value("resize-to"), sectors(80).to_string());
    assert_eq!(vmm.guest_value("resize"), "ok");
    assert_eq!(vmm.device_counter("blk0", "config-interrupts"), 1);
    let agreed = agreed(&vmm, "blk0");
    for feature in ["BLK_FLUSH", "BLK_MQ", "EVENT_IDX", "CONFIG"] {
        assert!(agreed.contains(feature), "no {feature}: {agreed}");
    }
}

#[test]
fn virtiofsd_shares_a_directory_with_linux() {
    let guest = guest::linux();
    let dir = scratch();
    let shared = dir.path().join("shared");
    std::fs::create_dir_all(shared.join("below")).unwrap();
    // More than one request can carry, and not whole pages.
    let bytes = network::noise((3 << 20) + 77);
    std::fs::write(shared.join("from-host"), &bytes).unwrap();
    let fs = backend::virtiofsd(dir.path(), &shared, &["--tag", "the-host"]);
    let vmm = linux(
        &guest.bzimage,
        &guest,
        "outboard.run=fs outboard.tag=the-host",
    )
    .cpus(2)
    .device("fs", &fs.socket);
    let vmm = run(vmm);
    assert_eq!(vmm.guest_value("fs"), "ok", "{}", vmm.console());
    assert_eq!(vmm.guest_value("fs-list"), "./below ./from-host");
    assert_eq!(vmm.guest_value("fs-sum"), network::md5(&bytes));
    // The highest of the numbers that are the contents of files; how many entries.
    assert_eq!(vmm.guest_value("fs-many"), "200 201");
    // Renamed; links; read through a symbolic link; mode; size; written near the end.
    assert_eq!(vmm.guest_value("fs-files"), "1 2 2 640 1000000 end");
    assert_eq!(vmm.guest_value("fs-mapped").trim(), "run 5 echo from-guest");
    println!("{}", agreed(&vmm, "fs0"));
    let written = std::fs::read(shared.join("below/from-guest")).unwrap();
    assert!(written == bytes, "the guest's copy is not the file");
}

/// One boot for three backends of the vhost-device project.
#[test]
fn vhost_devices_rng_console_and_vsock_serve_linux() {
    const PORT: u32 = 1234;
    let guest = guest::linux();
    let dir = scratch();
    let path = |name: &str| dir.path().join(name);
    let rng = backend::vhost_device("rng", "--socket-path", &path("rng.sock"), &[]);
    let terminal_port = free_port();
    let options = ["--backend", "network", "--tcp-port", &terminal_port];
    let console = backend::vhost_device("console", "--socket-path", &path("hvc.sock"), &options);
    let streams = path("streams");
    let vsock = backend::vhost_device_vsock(dir.path(), &streams);
    // Where the backend connects to when the guest does.
    let host = UnixListener::bind(path(&format!("streams_{PORT}"))).unwrap();
    let what = format!("outboard.run=rng,terminal,vsock outboard.port={PORT}");
    let mut vmm = linux(&guest.bzimage, &guest, &what)
        .device("rng", &rng.socket)
        .device("console", &console.socket)
        .device("vsock", &vsock.socket)
        .start();
    vmm.process.close_stdin();

    let mut terminal = TcpStream::connect(format!("127.0.0.1:{terminal_port}")).unwrap();
    terminal.set_read_timeout(Some(BOOT)).unwrap();
    let mut line = String::new();
    let mut reader = BufReader::new(terminal.try_clone().unwrap());
    while !line.contains("hello from the guest") {
        line.clear();
        assert_ne!(
            reader.read_line(&mut line).unwrap(),
            0,
            "the terminal is gone"
        );
    }
    // One key: vhost-device-console 0.1.0 completes a buffer once for each byte in it.
    terminal.write_all(b"k").unwrap();

    let (mut stream, _) = host.accept().unwrap();
    stream.set_read_timeout(Some(BOOT)).unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    assert_eq!(line, "hello from the guest\n");
    stream.write_all(b"and from the host").unwrap();
    drop(stream);

    vmm.process.expect_exit(0, BOOT);
    assert_eq!(vmm.guest_value("rng"), "ok");
    assert_eq!(vmm.guest_value("terminal-key"), "k");
    assert_eq!(vmm.guest_value("vsock-answer"), "and from the host");
    for id in ["rng0", "console0", "vsock0"] {
        assert!(agreed(&vmm, id).contains("VERSION_1"));
    }
}

/// It takes reads only.
#[test]
fn vhost_device_scsi_serves_a_linux_disk() {
    let guest = guest::linux();
    let dir = scratch();
    let image = dir.path().join("image");
    let bytes = network::noise(16 << 20);
    std::fs::write(&image, &bytes).unwrap();
    let options = ["--read-only", image.to_str().unwrap()];
    let socket = dir.path().join("scsi.sock");
    let scsi = backend::vhost_device("scsi", "--socket-path", &socket, &options);
    let what = "outboard.run=sum outboard.disk=/dev/sda";
    let vmm = linux(&guest.bzimage, &guest, what).device("scsi", &scsi.socket);
    let vmm = run(vmm);
    assert_eq!(vmm.guest_value("sum-driver"), "sd");
    assert_eq!(vmm.guest_value("sum"), network::md5(&bytes));
    assert!(agreed(&vmm, "scsi0").contains("VERSION_1"));
}

/// A TCP port of the loopback interface that nobody listens on.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}
