//! User-mode Linux: a Linux kernel that is a program, with a vhost-user frontend of
//! its own and no use for KVM.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use devices::virtio::DeviceType;
use tests::backend;
use tests::network::{self, Passt, WebServer};
use tests::process::{Process, Stream};
use tests::{DEADLINE, program, scratch};

use super::assert_agreed;
use crate::host::provides;

const BOOT: Duration = Duration::from_secs(60);

/// What the guest's first process does. Its root is this machine's, read-only, and
/// its device nodes are therefore in a file system of its own.
const INIT: &str = r#"#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /mnt
for module in net/core/failover drivers/net/net_failover drivers/net/virtio_net drivers/block/virtio_blk; do
    insmod "$MODULES/$module.ko" || echo "no module $module"
done
disk() {
    mount -t ext4 /mnt/vda /mnt/disk && "$@"
    umount /mnt/disk
}
mkdir /mnt/disk
mknod /mnt/vda b $(tr : ' ' </sys/block/vda/dev)
disk busybox dd if=/dev/urandom of=/mnt/disk/noise bs=1M count=16 2>/dev/null
disk busybox cp /mnt/disk/noise /mnt/disk/copy
disk busybox md5sum /mnt/disk/noise /mnt/disk/copy
busybox ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
busybox route add default gw 10.0.2.2
echo "fetched $(busybox wget -q -O - "$URL" | busybox md5sum)"
echo o >/proc/sysrq-trigger
exec sleep 60
"#;

/// The init script, with what it needs to know.
fn init(dir: &Path, modules: &Path, url: &str) -> PathBuf {
    let path = dir.join("init");
    let (shebang, rest) = INIT.split_once('\n').unwrap();
    let modules = modules.display();
    let text = format!(
        "{shebang}\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin MODULES={modules} URL={url}\n{rest}"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn modules(linux: &Path) -> PathBuf {
    let all = linux.with_file_name("root/usr/lib/uml/modules");
    let mut versions = std::fs::read_dir(&all)
        .unwrap_or_else(|error| panic!("{}: {error}; `make setup` brings it", all.display()));
    versions.next().unwrap().unwrap().path().join("kernel")
}

#[test]
fn a_disk_and_a_network_of_user_mode_linux() {
    if !provides("linux.uml") {
        return;
    }
    let linux = program::cached("user-mode-linux/linux.uml");
    let dir = scratch();
    let image = backend::ext4_image(dir.path(), 64);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let passt = Passt::start(dir.path());
    let net = backend::outboard_net(dir.path(), &["--passt", passt.socket()]);
    net.process.wait_for("the network peer is here", DEADLINE);
    let body = network::noise(1 << 20);
    let sum = network::md5(&body);
    let server = WebServer::start_at(std::net::Ipv4Addr::LOCALHOST, body).unwrap();
    let url = format!("http://10.0.2.2:{}/file", server.port());
    let init = init(dir.path(), &modules(&linux), &url);
    let mut command = Command::new(linux);
    command
        .args([
            "mem=128M",
            "quiet",
            "con=null",
            "con0=null,fd:1",
            "ssl=null",
        ])
        .args(["rootfstype=hostfs", "root=/dev/root", "rootflags=/", "ro"])
        .arg(format!("uml_dir={}", dir.path().display()))
        .arg(format!("init={}", init.display()))
        .arg(format!("virtio_uml.device={}:2", disk.socket.display()))
        .arg(format!("virtio_uml.device={}:1", net.socket.display()));
    let mut linux = Process::start("linux.uml", &mut command);
    linux.close_stdin();
    linux.expect_exit(0, BOOT);
    let said = linux.printed(Stream::Out);
    let sum_of = |file: &str| {
        let line = said
            .lines()
            .find_map(|line| line.trim_end().strip_suffix(file));
        line.unwrap_or_else(|| panic!("no sum of {file}: {said}"))
            .trim()
    };
    assert_eq!(sum_of("/mnt/disk/noise"), sum_of("/mnt/disk/copy"));
    assert!(said.contains(&format!("fetched {sum}")), "{said}");
    let needed = ["VERSION_1", "INDIRECT_DESC", "EVENT_IDX", "REPLY_ACK"];
    assert_agreed(net, DeviceType::NET, &needed);
    assert_agreed(
        disk,
        DeviceType::BLK,
        &[&needed[..], &["BLK_FLUSH"]].concat(),
    );
}
