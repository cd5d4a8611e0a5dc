//! The real gdb on a running Linux kernel.

use tests::process::Stream;
use tests::vmm::{Running, Vmm};
use tests::{backend, gdb, guest, network, scratch};

use crate::machine::{BOOT, linux};

/// A guest that makes system calls until told to stop, with its gdb socket.
fn ticking(dir: &std::path::Path, cpus: usize) -> (Running, std::path::PathBuf) {
    let guest = guest::linux();
    let vmlinux = guest.vmlinux.clone().unwrap();
    let vmm: Vmm = linux(&vmlinux, &guest, "outboard.run=tick")
        .cpus(cpus)
        .gdb(dir);
    let running = vmm.start();
    running.process.wait_for("tick=started", BOOT);
    (running, vmlinux)
}

/// Lets the guest end and checks that it was unharmed.
fn finish(mut vmm: Running) {
    vmm.process.send(b"\n");
    vmm.process.expect_exit(0, BOOT);
    assert_eq!(vmm.guest_value("tick"), "ok");
    assert!(
        !vmm.console().contains("lockup"),
        "{}",
        vmm.process.transcript()
    );
}

fn assert_all(output: &str, parts: &[&str]) {
    for part in parts {
        assert!(
            output.contains(part),
            "no {part:?} in gdb's output:\n{output}"
        );
    }
}

#[test]
fn attaches_to_the_running_kernel_and_detaches() {
    let dir = scratch();
    let (vmm, vmlinux) = ticking(dir.path(), 2);
    let commands = ["info threads", "print linux_banner", "detach"];
    for _ in 0..3 {
        let output = gdb::run(vmm.gdb_socket(), &vmlinux, &commands);
        assert_all(
            &output,
            &[
                "Thread 1.1 (CPU 0",
                "Thread 1.2 (CPU 1",
                "Linux version",
                "detached",
            ],
        );
    }
    finish(vmm);
}

#[test]
fn stops_at_a_kernel_function_with_a_source_level_backtrace() {
    let dir = scratch();
    let (vmm, vmlinux) = ticking(dir.path(), 2);
    let commands = [
        "break uptime_proc_show",
        "continue",
        "backtrace",
        "print *m->op",
        "print current_task",
        "stepi",
        "next",
        "next",
        "finish",
        "delete",
        "detach",
    ];
    let output = gdb::run(vmm.gdb_socket(), &vmlinux, &commands);
    assert_all(
        &output,
        &[
            "hit Breakpoint 1, uptime_proc_show (m=",
            "seq_read_iter",
            "do_syscall_64",
            "fs/proc/uptime.c",
            "show = 0x",
            "detached",
        ],
    );
    finish(vmm);
}

#[test]
fn hardware_breakpoint_stops_on_whichever_vcpu_gets_there() {
    let dir = scratch();
    let (vmm, vmlinux) = ticking(dir.path(), 2);
    let commands = [
        "hbreak uptime_proc_show",
        "continue",
        "info breakpoints",
        "delete",
        "detach",
    ];
    let output = gdb::run(vmm.gdb_socket(), &vmlinux, &commands);
    assert_all(
        &output,
        &["hit Breakpoint 1, uptime_proc_show", "hw breakpoint"],
    );
    finish(vmm);
}

#[test]
fn waits_before_the_first_instruction_and_stops_at_start_kernel() {
    let guest = guest::linux();
    let vmlinux = guest.vmlinux.clone().unwrap();
    let dir = scratch();
    let mut vmm = linux(&vmlinux, &guest, "outboard.run=smp")
        .gdb(dir.path())
        .gdb_wait()
        .start();
    tests::process::wait_until("the gdb socket", BOOT, || vmm.gdb_socket().exists());
    let commands = [
        "hbreak start_kernel",
        "continue",
        "backtrace 1",
        "delete",
        "detach",
    ];
    let output = gdb::run(vmm.gdb_socket(), &vmlinux, &commands);
    assert_all(&output, &["Breakpoint 1, start_kernel ()", "init/main.c"]);
    vmm.process.expect_exit(0, BOOT);
    assert_eq!(vmm.guest_value("smp"), "ok");
}

#[test]
fn killed_gdb_leaves_the_guest_running() {
    let dir = scratch();
    let (vmm, vmlinux) = ticking(dir.path(), 2);
    for _ in 0..3 {
        let commands = ["break uptime_proc_show", "continue", "echo stopped\\n"];
        let stopped = gdb::open(vmm.gdb_socket(), &vmlinux, &commands);
        stopped.wait_for("stopped", BOOT);
        stopped.signal(libc::SIGKILL);
        let commands = ["echo running\\n", "continue"];
        let running = gdb::open(vmm.gdb_socket(), &vmlinux, &commands);
        running.wait_for("running", BOOT);
        running.signal(libc::SIGKILL);
    }
    finish(vmm);
}

#[test]
fn tracepoints_collect_in_the_kernel_while_it_runs() {
    let dir = scratch();
    let (vmm, vmlinux) = ticking(dir.path(), 2);
    let script = dir.path().join("trace.gdb");
    let lines = "\
trace uptime_proc_show if m->count < 4096
actions
collect $args, m->op->show, jiffies_64, init_task.comm
end
trace vfs_read if count == 123456789
actions
collect $regs
end
tstart
";
    std::fs::write(&script, lines).unwrap();
    let source = format!("source {}", script.display());
    let mut commands = vec![
        &*source,
        "break uptime_proc_show",
        "eval \"monitor break-if %#lx hits=10\", uptime_proc_show",
        "continue",
        "tstop",
        "info tracepoints",
        "tfind start",
    ];
    let frame = [
        "output m->op->show",
        "echo \\n",
        "print init_task.comm",
        "printf \"jiffies=%lu\\n\", jiffies_64",
    ];
    for _ in 0..10 {
        commands.extend(frame);
        commands.push("tfind");
    }
    commands.extend(["tfind none", "delete", "detach"]);
    let output = merged(&vmm, &vmlinux, &commands);
    let count = |part: &str| output.matches(part).count();
    assert_eq!(count("<uptime_proc_show>"), 10, "{output}");
    assert_eq!(count("\"swapper/0"), 10, "{output}");
    let jiffies: Vec<u64> = output
        .lines()
        .filter_map(|line| line.strip_prefix("jiffies=")?.parse().ok())
        .collect();
    assert_eq!(jiffies.len(), 10, "{output}");
    // Ten lines a second, 250 jiffies: the guest ran from hit to hit.
    assert!(jiffies.is_sorted_by(|a, b| a < b), "{output}");
    assert!(output.contains("No trace frame found"), "{output}");
    finish(vmm);
}

/// What gdb prints, monitor commands' output included.
fn merged(vmm: &Running, symbols: &std::path::Path, commands: &[&str]) -> String {
    let mut gdb = gdb::start_merged(vmm.gdb_socket(), symbols, commands);
    gdb.expect_exit(0, BOOT);
    gdb.printed(Stream::Out)
}

#[test]
fn kernel_page_tables_and_queues_are_shown() {
    let guest = guest::linux();
    let vmlinux = guest.vmlinux.clone().unwrap();
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 16);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    // A packed queue does not tell what is in flight.
    let split = format!("blk,socket={},features=-packed", disk.socket.display());
    let vmm = linux(&vmlinux, &guest, "outboard.run=tick")
        .cpus(2)
        .arg("--device", split)
        .gdb(dir.path())
        .start();
    vmm.process.wait_for("tick=started", BOOT);
    let commands = [
        "eval \"monitor pagewalk %#lx\", (unsigned long)&linux_banner",
        "output/x (unsigned long)&linux_banner - 0xffffffff80000000",
        "echo \\n",
        "shell date +began=%s%3N",
        "monitor pagetable",
        "shell date +ended=%s%3N",
        "eval \"monitor translate %#lx\", (unsigned long)&_text",
        "monitor vq blk0",
        "monitor msr lstar",
        "output/x (unsigned long)&entry_SYSCALL_64",
        "echo \\n",
        "monitor exits 1",
        "detach",
    ];
    let output = merged(&vmm, &vmlinux, &commands);
    let value = |key: &str| {
        let (_, after) = output.split_once(key).unwrap();
        after.split_whitespace().next().unwrap().to_owned()
    };
    // The kernel's own mapping: PML4E 511, PDPTE 510.
    assert_all(&output, &["PML4E[511] at 0x", "PDPTE[510] at 0x"]);
    // Without KASLR the image is where its link address says.
    let banner = output.lines().find(|line| line.contains("is physical"));
    let physical = banner.unwrap().split_once("is physical ").unwrap().1;
    assert!(
        output.contains(&format!("\n{}\n", physical.split(' ').next().unwrap())),
        "{output}"
    );
    assert!(
        output
            .lines()
            .any(|line| line.starts_with("0xffffffff8") && line.contains("r-x kernel"))
            || output.contains("rwx kernel"),
        "{output}"
    );
    assert!(!output.contains("too much to show"), "{output}");
    let took = value("ended=").parse::<u64>().unwrap() - value("began=").parse::<u64>().unwrap();
    eprintln!("monitor pagetable of a Linux guest took {took} ms");
    assert!(took < 2000, "{took} ms");
    assert_all(&output, &["in flight: 0\n", "blk0 queue 0: "]);
    // The system call entry, by the MSR and by its symbol.
    let entry = value("lstar (0xc0000082) = ");
    assert!(output.matches(&entry).count() >= 2, "{output}");
    finish(vmm);
}

#[test]
fn nmi_from_gdb_reaches_the_kernel() {
    let dir = scratch();
    let (vmm, vmlinux) = ticking(dir.path(), 2);
    let commands = ["monitor nmi 1", "detach"];
    let output = merged(&vmm, &vmlinux, &commands);
    assert_all(&output, &["vCPU 1 takes an NMI when it resumes"]);
    vmm.process
        .wait_for("NMI received for unknown reason", BOOT);
    vmm.process.wait_for("on CPU 1", BOOT);
    finish(vmm);
}

/// The driver stands still at its interrupts, and is stepped, while the disk is read.
/// No debug information is needed: the symbols are enough.
#[test]
fn disk_reads_right_while_gdb_stops_its_driver() {
    let guest = guest::linux();
    let vmlinux = guest.vmlinux.clone().unwrap();
    let dir = scratch();
    let contents = network::noise(8 << 20);
    let image = dir.path().join("disk.img");
    std::fs::write(&image, &contents).unwrap();
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let mut vmm = linux(&vmlinux, &guest, "outboard.run=line,sum")
        .device("blk", &disk.socket)
        .gdb(dir.path())
        .start();
    vmm.process.wait_for("line=waiting", BOOT);
    let mut commands = vec!["break virtblk_done", "echo ready\\n"];
    commands.extend(["continue", "stepi", "stepi", "stepi"].repeat(5));
    commands.extend(["delete", "detach"]);
    let mut gdb = gdb::start_merged(vmm.gdb_socket(), &vmlinux, &commands);
    gdb.wait_for("ready", BOOT);
    vmm.process.send(b"read it\n");
    gdb.expect_exit(0, BOOT);
    let output = gdb.printed(Stream::Out);
    let stops = output.matches("Breakpoint 1, ").count();
    assert_eq!(stops, 5, "{output}");
    vmm.process.expect_exit(0, BOOT);
    assert_eq!(vmm.guest_value("sum"), network::md5(&contents));
}
