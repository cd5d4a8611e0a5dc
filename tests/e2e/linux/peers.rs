//! Other people's backends under Linux guests of this VMM.

use tests::{backend, guest, network, scratch};

use crate::machine::{linux, run};

#[test]
fn storage_daemon_of_qemu_serves_a_linux_disk() {
    let guest = guest::linux();
    let dir = scratch();
    let image = backend::ext4_image(dir.path(), 64);
    let disk = backend::qemu_storage_daemon(dir.path(), &image);
    let vmm = linux(&guest.bzimage, &guest, "outboard.run=disk outboard.mib=16")
        .cpus(2)
        .device("blk", &disk.socket);
    assert_eq!(run(vmm).guest_value("disk"), "ok");
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
    assert_eq!(vmm.guest_value("fs"), "ok");
    assert_eq!(vmm.guest_value("fs-list"), "./below ./from-host");
    assert_eq!(vmm.guest_value("fs-sum"), network::md5(&bytes));
    let written = std::fs::read(shared.join("below/from-guest")).unwrap();
    assert!(written == bytes, "the guest's copy is not the file");
}
