//! `outboard run --faults`: a machine that does wrong on purpose between its devices and their
//! backends.

use std::path::Path;

use tests::backend::{self, Backend};
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, guest, scratch};

use crate::killstorm;
use crate::supervise::outboard_blk;
use crate::virtio::{SEED, check_image};

/// A machine with these faults.
fn faulty(dir: &Path, faults: &str) -> Vmm {
    let file = dir.join("faults.toml");
    std::fs::write(&file, faults).unwrap();
    Vmm::new(guest::bare("virtio"))
        .cmdline(&format!("sectors=64 seed={SEED}"))
        .arg("--faults", &file)
        .arg("--seed", "7")
}

/// What a machine says at its end, before the error if there is one.
fn schedule(vmm: &Running) -> String {
    let messages = vmm.messages();
    let begun = "outboard: faults are injected with --seed 7\n";
    assert!(messages.contains(begun), "{messages}");
    let (_, schedule) = messages.rsplit_once("\n# ").unwrap();
    let schedule = schedule.split("outboard: ").next().unwrap();
    format!("# {schedule}")
}

/// The disk dies at its fifth kick, and a source of entropy beside it is left alone.
fn killed(dir: &Path, faults: &str) -> String {
    let image = backend::disk_image(dir, 4);
    let source = dir.join("source");
    std::fs::write(&source, [7; 4096]).unwrap();
    let rng = backend::outboard_rng(dir, &source);
    let disk = format!("blk,exec=\"{}\",id=disk", outboard_blk(&image, ""));
    let vmm = faulty(dir, faults)
        .arg("--device", disk)
        .device("rng", &rng.socket)
        .flag("--rings")
        .run(0);
    let console = vmm.console();
    assert!(
        console.contains("blk: ok sectors=64 written=1"),
        "{console}"
    );
    check_image(&image, 64);
    let starts = "the backend's process has started";
    assert_eq!(vmm.messages().matches(starts).count(), 2);
    schedule(&vmm)
}

#[test]
fn a_backend_is_killed_at_a_kick_and_the_schedule_repeats_it() {
    let dir = scratch();
    let rule = "[[fault]]\ndevice = \"disk\"\nkick = 0\nafter = 4\nnth = 1\ndo = \"kill\"\n";
    let schedule = killed(dir.path(), rule);
    let expected = "# 1 faults were injected\nseed = 7\n\n[[fault]]\ndevice = \"disk\"\n\
                    kick = 0\nnth = 5\ndo = \"kill\"\n";
    assert_eq!(schedule, expected);
    assert_eq!(killed(scratch().path(), &schedule), schedule);
}

/// Without a trace and without --rings, messages pass the faults all the same.
#[test]
fn a_rule_without_a_device_is_for_each_and_the_schedule_names_them() {
    let dir = scratch();
    let images = ["a", "b"].map(|name| {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        backend::disk_image(&dir, 4)
    });
    let rule = "[[fault]]\nmessage = \"SET_VRING_NUM\"\nnth = 1\ndo = \"cut\"\n";
    let specs = images.map(|image| format!("blk,exec=\"{}\"", outboard_blk(&image, "")));
    let vmm = faulty(dir.path(), rule)
        .arg("--device", &specs[0])
        .arg("--device", &specs[1])
        .run(0);
    let console = vmm.console();
    assert_eq!(
        console.matches("blk: ok sectors=64 written=1").count(),
        2,
        "{console}"
    );
    let schedule = schedule(&vmm);
    assert!(
        schedule.starts_with("# 2 faults were injected\n"),
        "{schedule}"
    );
    for device in ["blk0", "blk1"] {
        let named = format!("[[fault]]\ndevice = \"{device}\"\nmessage = \"SET_VRING_NUM\"\n");
        assert!(schedule.contains(&named), "{schedule}");
    }
}

#[test]
fn a_machine_that_cannot_start_for_its_faults_says_which() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let rule = "[[fault]]\nmessage = \"GET_FEATURES\"\nfrom = \"backend\"\nnth = 1\ndo = \"cut\"\n";
    let vmm = faulty(dir.path(), rule).device("blk", &disk.socket).run(1);
    assert_eq!(
        schedule(&vmm),
        format!("# 1 faults were injected\nseed = 7\n\n{rule}")
    );
}

#[test]
fn faults_of_a_device_that_is_not_there_are_an_error_with_the_line() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    for (rule, expected) in [
        (
            "\n[[fault]]\ndevice = \"blk1\"\nmessage = \"any\"\nnth = 1\ndo = \"cut\"\n",
            "line 2: there is no device \"blk1\"; there are blk0",
        ),
        (
            "[[fault]]\nkick = 0\nnth = 1\ndo = \"cut\"\n",
            "are of kicks or calls, which pass the proxy only with --rings",
        ),
    ] {
        let vmm = faulty(dir.path(), rule).device("blk", &disk.socket).run(2);
        let messages = vmm.messages();
        assert!(messages.contains(expected), "{messages}");
    }
}

/// A frontend that does not wait for acknowledgements sends until the socket is full.
#[test]
fn a_backend_that_does_not_read_is_late_and_replaced() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let command = outboard_blk(&image, "--queues 4");
    let disk = format!("blk,exec=\"{command}\",features=-reply_ack,deadline=2");
    let faults = dir.path().join("faults.toml");
    let rule = "[[fault]]\nmessage = \"SET_VRING_NUM\"\nnth = 1\ndo = \"fill\"\n";
    std::fs::write(&faults, rule).unwrap();
    let vmm = killstorm::storming(&disk, "").arg("--faults", &faults);
    let vmm = killstorm::start(vmm);
    let messages = vmm.messages();
    // It did not take a message, or did not answer the first that is answered, as they fill it.
    let late = "error.sources=[the backend did not ";
    assert!(messages.contains(late), "{messages}");
    assert!(messages.contains(" within 2s"), "{messages}");
    killstorm::finish(vmm);
}

/// Its changes of the configuration space fill the socket; requests are served meanwhile.
#[test]
fn a_disk_whose_own_requests_nobody_reads_is_served() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let disk = backend::outboard_blk(dir.path(), &image, &["--queues", "4"]);
    let faults = dir.path().join("faults.toml");
    let rule = "[[fault]]\nmessage = \"BACKEND_CONFIG_CHANGE_MSG\"\nnth = 1\ndo = \"fill\"\n";
    std::fs::write(&faults, rule).unwrap();
    let spec = format!("blk,socket={}", disk.socket.display());
    let vmm = killstorm::storming(&spec, "").arg("--faults", &faults);
    let vmm = killstorm::start(vmm);
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    let is_full = "the frontend has not read the changes before this one";
    for sectors in 1.. {
        assert!(sectors < 40, "{}", disk.process.transcript());
        file.set_len((8 << 20) + 512 * sectors).unwrap();
        let size = format!("sectors={}", (8 << 11) + sectors);
        disk.process.wait_for(&size, DEADLINE);
        if disk.process.transcript().contains(is_full) {
            break;
        }
    }
    killstorm::finish(vmm);
}

#[test]
fn outboard_blk_says_that_its_memory_is_taken_away_and_lives() {
    memory_is_taken_away(
        |dir, image| backend::outboard_blk(dir, image, &[]),
        "the frontend has taken away the memory of a ring that was running",
        "the backend reports an error on queue 0",
    );
}

#[test]
fn qemu_storage_daemon_says_that_its_memory_is_taken_away_and_lives() {
    memory_is_taken_away(
        backend::qemu_storage_daemon,
        "vu_panic: remapping queue",
        "device needs a reset",
    );
}

/// In the middle of the guest's work. The next machine finds the backend as good as new.
fn memory_is_taken_away(
    start: impl FnOnce(&Path, &Path) -> Backend,
    backend_says: &str,
    machine_says: &str,
) {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = start(dir.path(), &image);
    let rule = "[[fault]]\nkick = 0\nnth = 5\ndo = \"shrink\"\nregion = 0\n";
    let vmm = faulty(dir.path(), rule)
        .flag("--rings")
        .device("blk", &disk.socket)
        .start();
    vmm.process.wait_for(machine_says, DEADLINE);
    disk.process.wait_for(backend_says, DEADLINE);
    drop(vmm);
    let vmm = Vmm::new(guest::bare("virtio"))
        .cmdline(&format!("sectors=64 seed={SEED}"))
        .device("blk", &disk.socket)
        .run(0);
    assert!(vmm.console().contains("blk: ok sectors=64 written=1"));
    check_image(&image, 64);
}
