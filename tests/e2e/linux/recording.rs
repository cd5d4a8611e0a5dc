//! Linux on a disk that is recorded, and the same requests without Linux.

use tests::recording::{Recorder, expect_equal};
use tests::{backend, guest, program, scratch};

use crate::machine::{linux, run};

/// The replay leaves the disk as the guest did, byte for byte.
#[test]
fn what_linux_asks_of_its_disk_is_asked_again_of_a_copy() {
    let guest = guest::linux();
    let dir = scratch();
    let image = backend::ext4_image(dir.path(), 64);
    let copy = dir.path().join("copy.img");
    std::fs::copy(&image, &copy).unwrap();
    let disk = backend::outboard_blk(dir.path(), &image, &["--queues", "2"]);
    let recorder = Recorder::start(dir.path(), "blk", &disk);
    let vmm = linux(&guest.bzimage, &guest, "outboard.run=disk outboard.mib=8")
        .cpus(2)
        .device("blk", &recorder.proxy.socket);
    assert_eq!(run(vmm).guest_value("disk"), "ok");
    let file = recorder.finish();
    let blank = std::fs::read(&copy).unwrap();
    let written = std::fs::read(&image).unwrap();
    assert!(blank != written, "the guest has written");
    let backend = program::own("outboard-blk").display().to_string();
    let command = format!("{backend} --queues 2 --path {}", copy.display());
    expect_equal(&file, &["--exec", &command]);
    assert!(std::fs::read(&copy).unwrap() == written, "the disks differ");
}
