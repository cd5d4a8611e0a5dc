//! Other people's backends under Linux guests of this VMM.

use tests::{backend, guest, scratch};

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
