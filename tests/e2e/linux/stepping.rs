//! Single steps through Linux, each compared with the disassembly, and what programs in
//! the guest see of exceptions meanwhile.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::oracle::Step;
use tests::process::wait_until;
use tests::rsp::{CS, RIP, Rsp};
use tests::vmm::Running;
use tests::{backend, gdb, guest, repetitions, scratch, symbols};

use crate::machine::{BOOT, linux};

/// Places at which the guest is stopped to be stepped. `make soak` asks for 1,000.
const PLACES: u64 = 100;
const PLACES_VARIABLE: &str = "OUTBOARD_STEP_PLACES";
const STEPS: usize = 10;
/// Steps through the probe of a driver.
const PROBE_STEPS: usize = 1000;

/// Rounds of what the guest does, with breakpoints set.
const ROUNDS: usize = 5;

/// How long one step may take: far longer than the guest's longest sleep.
const STEP: Duration = Duration::from_secs(5);

/// A guest with two CPUs whose programs cause exceptions all the time, beside others that
/// keep its disk at work.
fn restless(dir: &Path) -> (Running, backend::Backend, u64) {
    let guest = guest::linux();
    let vmlinux = guest.vmlinux.clone().unwrap();
    let image = backend::disk_image(dir, 16);
    let disk = backend::outboard_blk(dir, &image, &[]);
    let what = "outboard.run=rebind,exceptions outboard.drivers=virtio_blk outboard.cycles=busy";
    let vmm = linux(&vmlinux, &guest, what)
        .cpus(2)
        .device("blk", &disk.socket)
        .gdb(dir)
        .start();
    vmm.process.wait_for("exceptions=started", BOOT);
    let entry = symbols::address(&vmlinux, "entry_SYSCALL_64");
    (vmm, disk, entry)
}

/// Lets the guest end and checks that nobody in it has seen anything.
fn finish(mut vmm: Running) {
    vmm.process.send(b"\n");
    vmm.process.expect_exit(0, BOOT);
    expect_unharmed(&vmm);
}

fn expect_unharmed(vmm: &Running) {
    assert_eq!(vmm.guest_value("exceptions"), "ok");
    let seen = vmm.guest_value("exceptions-seen");
    assert_eq!(seen, "leaks=0 traps=40 places=80");
    let console = vmm.console();
    for complaint in ["WARNING", "BUG", "lockup", "stall", "debug:", "int3"] {
        assert!(!console.contains(complaint), "{complaint}:\n{console}");
    }
}

/// Makes one step of `thread` and compares it. False if the program never got behind the
/// instruction.
fn checked_step(client: &mut Rsp, thread: usize, entry: u64) -> bool {
    client.select(thread);
    let step = Step::ahead(client, entry);
    client.begin_step(thread);
    let Some(reply) = client.stop_within(STEP) else {
        client.interrupt();
        assert!(step.may_not_end(), "never done: {step:#x?}");
        return false;
    };
    assert!(reply.starts_with("T05"), "{reply}: {step:#x?}");
    assert_eq!(Rsp::stopped_thread(&reply), thread, "{reply}");
    if let Some(fault) = step.fault(client) {
        panic!("{fault}");
    }
    true
}

/// Numbers that seem to have no order: the same ones every time.
fn numbers() -> impl Iterator<Item = u64> {
    let next = |seed: &u64| Some(seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1));
    std::iter::successors(Some(1), next).map(|number| number >> 33)
}

#[test]
fn every_step_ends_where_the_disassembly_says() {
    let dir = scratch();
    let (vmm, _disk, entry) = restless(dir.path());
    let mut client = Rsp::attach(vmm.gdb_socket());
    let places = repetitions(PLACES_VARIABLE, PLACES);
    let begun = Instant::now();
    let (mut steps, mut in_ring_3, mut lost) = (0, 0, 0);
    for (place, number) in numbers().take(places as usize).enumerate() {
        client.resume();
        // Not a wait for anything: how long the guest runs is what makes the place.
        sleep(Duration::from_micros(number % 20_000));
        client.interrupt();
        let thread = 1 + place % 2;
        for _ in 0..STEPS {
            client.select(thread);
            in_ring_3 += client.register(CS) & 3 & 1;
            if !checked_step(&mut client, thread, entry) {
                lost += 1;
                break;
            }
            steps += 1;
        }
    }
    eprintln!(
        "{steps} steps from {places} places, {in_ring_3} in ring 3, {lost} never done: {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    client.detach();
    finish(vmm);
}

/// It reads and writes the device's registers, which KVM emulates or has emulated.
#[test]
fn a_drivers_probe_is_stepped_through() {
    let dir = scratch();
    let guest = guest::linux();
    let vmlinux = guest.vmlinux.clone().unwrap();
    let image = backend::disk_image(dir.path(), 16);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let vmm = linux(&vmlinux, &guest, "outboard.run=exceptions")
        .device("blk", &disk.socket)
        .gdb(dir.path())
        .gdb_wait()
        .start();
    wait_until("the gdb socket", BOOT, || vmm.gdb_socket().exists());
    let [entry, probe] =
        ["entry_SYSCALL_64", "virtblk_probe"].map(|name| symbols::address(&vmlinux, name));
    let mut client = Rsp::attach(vmm.gdb_socket());
    client.set_hardware_breakpoint(probe);
    let reply = client.resume_until_stop();
    let thread = Rsp::stopped_thread(&reply);
    assert_eq!(client.register(RIP), probe);
    client.clear_hardware_breakpoint(probe);
    let begun = Instant::now();
    for n in 0..PROBE_STEPS {
        assert!(checked_step(&mut client, thread, entry), "step {n}");
    }
    let took = begun.elapsed();
    eprintln!("{PROBE_STEPS} steps: {:.1} s", took.as_secs_f64());
    client.detach();
    vmm.process.wait_for("exceptions-rounds=", BOOT);
    finish(vmm);
}

/// The kernel tries out int3 as it boots, and patches its code by means of it.
#[test]
fn the_kernel_patches_itself_while_breakpoints_are_set() {
    let dir = scratch();
    let guest = guest::linux();
    let vmlinux = guest.vmlinux.clone().unwrap();
    let mut vmm = linux(&vmlinux, &guest, "outboard.run=smp,module,exceptions")
        .cpus(2)
        .gdb(dir.path())
        .gdb_wait()
        .start();
    wait_until("the gdb socket", BOOT, || vmm.gdb_socket().exists());
    let commands = [
        "break panic",
        "break oops_enter",
        "break __warn",
        "echo set\\n",
        "continue",
    ];
    let session = gdb::open(vmm.gdb_socket(), &vmlinux, &commands);
    vmm.process.wait_for("exceptions=started", BOOT);
    vmm.process.wait_for("exceptions-rounds=", BOOT);
    vmm.process.send(b"\n");
    vmm.process.expect_exit(0, BOOT);
    session.wait_for("exited normally", BOOT);
    assert_eq!(vmm.guest_value("smp"), "ok");
    assert_eq!(vmm.guest_value("module").trim_end(), "dummy");
    expect_unharmed(&vmm);
}

/// A debugger in the guest, and int3 and int1 of its programs.
#[test]
fn programs_get_their_own_traps_while_breakpoints_are_set() {
    let dir = scratch();
    let (mut vmm, _disk, _) = restless(dir.path());
    let vmlinux = guest::linux().vmlinux.unwrap();
    let commands = [
        "hbreak panic",
        "break do_exit if 0",
        "echo set\\n",
        "continue",
    ];
    let session = gdb::open(vmm.gdb_socket(), &vmlinux, &commands);
    session.wait_for("Continuing.", BOOT);
    let mut seen = vmm.process.lines().len();
    for _ in 0..ROUNDS {
        (seen, _) = vmm.process.wait_for_after(seen, "exceptions-rounds=", BOOT);
    }
    vmm.process.send(b"\n");
    vmm.process.expect_exit(0, BOOT);
    session.wait_for("exited normally", BOOT);
    expect_unharmed(&vmm);
}
