//! Linux on out-of-process disk and network.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use tests::network::{self, WebServer, guest_address};
use tests::process::Stream;
use tests::{backend, guest, scratch};

use crate::machine::{BOOT, linux, run};

#[test]
fn disk_data_survives_on_1_2_and_4_vcpus() {
    let guest = guest::linux();
    for cpus in [1, 2, 4] {
        let dir = scratch();
        let image = backend::ext4_image(dir.path(), 128);
        let disk = backend::outboard_blk(dir.path(), &image, &[]);
        let vmm = linux(&guest.bzimage, &guest, "outboard.run=disk outboard.mib=32")
            .cpus(cpus)
            .device("blk", &disk.socket);
        let vmm = run(vmm);
        assert_eq!(vmm.guest_value("disk"), "ok", "{cpus} vCPUs");
        assert_eq!(
            vmm.guest_value("disk-written"),
            vmm.guest_value("disk-read")
        );
        assert_eq!(vmm.device_counter("blk0", "read-exits"), 0);
        assert_eq!(vmm.device_counter("blk0", "notify-exits"), 0);
        assert!(vmm.device_counter("blk0", "interrupts") > 50);
        let writes = vmm.device_counter("blk0", "write-exits");
        assert!(
            writes < 60,
            "{writes} register writes are more than a probe"
        );
    }
}

#[test]
fn disk_has_a_queue_for_every_vcpu() {
    let guest = guest::linux();
    let dir = scratch();
    let image = backend::ext4_image(dir.path(), 128);
    let disk = backend::outboard_blk(dir.path(), &image, &["--queues", "4"]);
    let vmm = linux(&guest.bzimage, &guest, "outboard.run=disk outboard.mib=32")
        .cpus(4)
        .device("blk", &disk.socket);
    let vmm = run(vmm);
    assert_eq!(vmm.guest_value("disk"), "ok");
    assert_eq!(vmm.guest_value("disk-queues"), "4");
    // Which of them had work is for Linux to say, but one vCPU did not do all of it.
    let log = disk.process.printed(Stream::Err);
    let kicked = log
        .lines()
        .filter(|line| line.contains("ring stopped") && !line.contains("kicks=0"));
    assert!(kicked.count() > 1, "{log}");
}

#[test]
fn linux_sets_the_mode_of_the_write_cache() {
    let guest = guest::linux();
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 16);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let vmm = linux(&guest.bzimage, &guest, "outboard.run=cache").device("blk", &disk.socket);
    let vmm = run(vmm);
    for mode in ["write back", "write through"] {
        let before = format!("outboard-guest: cache-before={mode}");
        assert!(vmm.console().contains(&before), "{}", vmm.console());
    }
    assert_eq!(vmm.guest_value("cache"), "ok");
}

#[test]
fn file_arrives_over_http() {
    let guest = guest::linux();
    let dir = scratch();
    let net = network::outboard_net(dir.path(), "otap0", &["--mac", "02:00:00:00:77:01"]);
    let body = network::noise(1 << 20);
    let server = WebServer::start(body.clone()).unwrap();
    let what = format!(
        "outboard.run=net outboard.ip={} outboard.url={}",
        guest_address(),
        server.url()
    );
    let vmm = run(linux(&guest.bzimage, &guest, &what)
        .cpus(2)
        .device("net", &net.socket));
    assert_eq!(vmm.guest_value("net"), "ok");
    assert_eq!(vmm.guest_value("net-mac"), "02:00:00:00:77:01");
    assert_eq!(vmm.guest_value("net-bytes"), body.len().to_string());
    assert_eq!(vmm.guest_value("net-sum"), network::md5(&body));
}

#[test]
fn random_bytes_reach_dev_hwrng() {
    let guest = guest::linux();
    let dir = scratch();
    let source = dir.path().join("source");
    let bytes = network::noise(1 << 16);
    std::fs::write(&source, &bytes).unwrap();
    let rng = backend::outboard_rng(dir.path(), &source);
    let vmm = run(
        linux(&guest.bzimage, &guest, "outboard.run=rng outboard.bytes=32")
            .device("rng", &rng.socket),
    );
    assert_eq!(vmm.guest_value("rng"), "ok");
    assert_eq!(vmm.guest_value("rng-source"), "virtio_rng.0");
    // The kernel has taken some for itself before.
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(hex.contains(&vmm.guest_value("rng-bytes")));
}

#[test]
fn console_on_hvc0_carries_a_session() {
    let guest = guest::linux();
    let dir = scratch();
    let (console, path) = backend::outboard_console(dir.path());
    let mut vmm = linux(&guest.bzimage, &guest, "outboard.run=hvc console=hvc0")
        .device("console", &console.socket)
        .start();
    vmm.process.close_stdin();
    let mut user = UnixStream::connect(path).unwrap();
    user.set_read_timeout(Some(BOOT)).unwrap();
    let mut answers = BufReader::new(user.try_clone().unwrap());
    let mut text = String::new();
    while !text.contains("hvc=waiting") {
        assert_ne!(answers.read_line(&mut text).unwrap(), 0, "{text}");
    }
    user.write_all(b"through the virtio console\n").unwrap();
    // The connection outlives the guest: its backend serves the next.
    while !text.contains("hvc=ok") {
        assert_ne!(answers.read_line(&mut text).unwrap(), 0, "{text}");
    }
    vmm.process.expect_exit(0, BOOT);
    let line = |text: &str| format!("outboard-guest: {text}\r\n");
    assert!(
        text.contains(&line("hvc-line=through the virtio console")),
        "{text}"
    );
    let numbers: String = (1..=20000).map(|n| format!("{n}\r\n")).collect();
    assert!(text.contains(&numbers), "output is complete");
    assert!(!vmm.console().contains("hvc=ok"), "{}", vmm.console());
}

/// Segmentation both ways, two queue pairs, another address, a backend that is killed, to whose
/// successor the guest announces itself, and a link that goes down.
#[test]
fn tap_with_offloads_and_two_queues() {
    let guest = guest::linux();
    let dir = scratch();
    let capture = dir.path().join("capture");
    let later_capture = dir.path().join("later-capture");
    let start = |capture: &Path| {
        let options = ["--queues", "2", "--mac", "02:00:00:00:77:02", "--pcap"];
        let options = [&options[..], &[capture.to_str().unwrap()]].concat();
        network::outboard_net(dir.path(), "otap1", &options)
    };
    let net = start(&capture);
    let body = network::noise(4 << 20);
    let server = WebServer::start(body.clone()).unwrap();
    let (upload, uploaded) = network::take_upload(body.len()).unwrap();
    let what = format!(
        "outboard.run=net,upload,link outboard.ip={} outboard.url={} outboard.upload={} outboard.port={}",
        guest_address(),
        server.url(),
        upload.ip(),
        upload.port(),
    );
    let mut vmm = linux(&guest.bzimage, &guest, &what)
        .cpus(2)
        .device("net", &net.socket)
        .start();
    vmm.process.close_stdin();
    vmm.process.wait_for("link=waiting", BOOT);
    // The driver does not ask again for what a killed backend has done.
    assert_eq!(network::queues("otap1"), 2);
    drop(net);
    let _net = start(&later_capture);
    vmm.process.wait_for("the backend is back", BOOT);
    assert_eq!(network::queues("otap1"), 2);
    network::ip(&["link", "set", "otap1", "down"]);
    vmm.process.wait_for("link=down", BOOT);
    network::ip(&["link", "set", "otap1", "up"]);
    vmm.process.expect_exit(0, BOOT);
    assert_eq!(vmm.guest_value("link"), "up");
    assert_eq!(vmm.guest_value("net-sum"), network::md5(&body));
    assert!(
        uploaded.join().unwrap().unwrap() == body,
        "the upload arrived as it was"
    );
    assert_eq!(vmm.guest_value("net-queues"), "2");
    assert_eq!(vmm.guest_value("link-mac"), "02:00:00:00:77:99");
    // CSUM, GUEST_CSUM, CTRL_GUEST_OFFLOADS, MTU absent, MAC; GUEST_TSO4 and 6, HOST_TSO4 and 6,
    // MRG_RXBUF, STATUS, CTRL_VQ, CTRL_RX, GUEST_ANNOUNCE, MQ, CTRL_MAC_ADDR (virtio 1.3, section
    // 5.1.3).
    let features = vmm.guest_value("net-features");
    for bit in [0, 1, 2, 5, 7, 8, 11, 12, 15, 16, 17, 18, 21, 22, 23] {
        assert_eq!(&features[bit..=bit], "1", "bit {bit} of {features}");
    }
    let frames = network::captured(&capture);
    let long = |mac: &[u8; 6]| {
        let to = |frame: &&Vec<u8>| frame[..6] == *mac;
        frames.iter().filter(to).map(Vec::len).max().unwrap()
    };
    // Where the round trip takes long, TCP puts no more than two segments together.
    const FRAME: usize = 1514;
    let guest_mac = [2, 0, 0, 0, 0x77, 2];
    assert!(
        long(&guest_mac) > FRAME,
        "segments come together: {}",
        long(&guest_mac)
    );
    let from_guest = frames.iter().filter(|frame| frame[6..12] == guest_mac);
    let longest = from_guest.map(Vec::len).max().unwrap();
    assert!(longest > FRAME, "segments go together: {longest}");
    assert!(!frames.iter().any(|frame| is_announcement(frame)));
    let later = network::captured(&later_capture);
    assert!(later.iter().any(|frame| is_announcement(frame)));
}

/// An ARP request of a host for its own address.
fn is_announcement(frame: &[u8]) -> bool {
    const ARP: [u8; 2] = [8, 6];
    let (sender, target) = (28..32, 38..42);
    frame[12..14] == ARP && frame[sender] == frame[target]
}

#[test]
fn stock_debian_kernel_uses_the_disk_through_its_modules() {
    let guest = guest::stock_linux();
    let dir = scratch();
    let image = backend::ext4_image(dir.path(), 64);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let vmm = linux(&guest.bzimage, &guest, "outboard.run=disk outboard.mib=8")
        .device("blk", &disk.socket);
    assert_eq!(run(vmm).guest_value("disk"), "ok");
}

#[test]
fn guest_reboots_with_its_disk_and_backend() {
    let guest = guest::linux();
    let dir = scratch();
    let image = backend::ext4_image(dir.path(), 64);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let mut vmm = linux(
        &guest.bzimage,
        &guest,
        "outboard.run=disk,reboot outboard.mib=4",
    )
    .arg("--on-reboot", "reset")
    .device("blk", &disk.socket)
    .start();
    let mut line = 0;
    for _ in 0..2 {
        line = vmm
            .process
            .wait_for_after(line, "disk=ok", crate::machine::BOOT)
            .0;
    }
    vmm.process.signal(libc::SIGTERM);
    vmm.process.expect_exit(0, tests::DEADLINE);
}
