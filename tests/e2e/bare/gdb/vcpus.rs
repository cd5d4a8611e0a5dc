//! Several vCPUs: they are threads, and stop and resume together.

use tests::DEADLINE;

use super::{Guest, KERNEL_PAGES};

/// Stops in the loop that every vCPU runs, once all of them do.
pub(super) fn all_counting(cpus: usize) -> String {
    let counting: Vec<_> = (0..cpus)
        .map(|cpu| format!("cpus[{cpu}].counter > 0"))
        .collect();
    format!("tbreak main.c:28 if {}", counting.join(" && "))
}

/// Lets `smp forever` end, and checks that it has counted right.
pub(super) fn finish(mut guest: Guest, cpus: usize) {
    guest.gdb(&["set var stop_requested = 1"]);
    guest.vmm.process.expect_exit(0, DEADLINE);
    assert!(
        guest
            .vmm
            .console()
            .contains(&format!("smp: ok cpus={cpus}")),
        "{}",
        guest.vmm.process.transcript()
    );
}

#[test]
fn each_vcpu_is_a_thread_with_its_own_registers() {
    for cpus in [2, 4] {
        let guest = Guest::start("smp", "forever", cpus);
        let lines = guest.gdb(&[
            &all_counting(cpus),
            "continue",
            "info threads",
            "thread apply all -q printf \"thread %d index %d lapic %d\\n\", $_thread, index, cpus[index].apic_id",
        ]);
        for cpu in 0..cpus {
            let thread = cpu + 1;
            let id = format!("{thread}    Thread 1.{thread} (CPU {cpu}, running, CPL 0)");
            let frame = format!("count_together (index=index@entry={cpu})");
            let listed = |line: &&String| line.contains(&id) && line.contains(&frame);
            assert_eq!(lines.iter().filter(listed).count(), 1, "{lines:#?}");
            let own = format!("thread {thread} index {cpu} lapic {cpu}");
            assert!(lines.contains(&own), "{lines:#?}");
        }
        finish(guest, cpus);
    }
}

#[test]
fn vcpus_that_have_not_started_are_said_to_be_so() {
    let guest = Guest::start("debug", "", 4);
    guest.expect_at_scenario(
        &["info threads"],
        &[
            "  Id   Target Id                              Frame ",
            "* 1    Thread 1.1 (CPU 0, running, CPL 0)     scenario () at guests/debug/main.c:123",
            "  2    Thread 1.2 (CPU 1, not started, CPL 0) 0x00000000fffffff0 in ?? ()",
            "  3    Thread 1.3 (CPU 2, not started, CPL 0) 0x00000000fffffff0 in ?? ()",
            "  4    Thread 1.4 (CPU 3, not started, CPL 0) 0x00000000fffffff0 in ?? ()",
        ],
    );
    guest.finish();
}

#[test]
fn breakpoint_stops_every_vcpu_each_time() {
    const HITS: u64 = 100;
    for (cpus, prepare) in [
        (2, "echo"),
        (2, KERNEL_PAGES),
        (4, "echo"),
        (4, KERNEL_PAGES),
    ] {
        let guest = Guest::start("smp", "forever", cpus);
        let lines = guest.gdb(&[
            prepare,
            &all_counting(cpus),
            "continue",
            "break main.c:28",
            "continue",
            "set $first = shared_counter",
            &format!("continue {HITS}"),
            "printf \"@passes=%ld\\n\", shared_counter - $first",
            "info breakpoints",
        ]);
        let hits = format!("\tbreakpoint already hit {} times", HITS + 1);
        assert_eq!(lines.last(), Some(&hits), "{lines:#?}");
        let passes = lines.iter().find_map(|line| line.strip_prefix("@passes="));
        let passes: u64 = passes.unwrap().parse().unwrap();
        // A vCPU may have been between the breakpoint and the counter, both times.
        let cpus = cpus as u64;
        assert!(
            (HITS - cpus..=HITS + cpus).contains(&passes),
            "{passes} passes with {HITS} hits on {cpus} vCPUs"
        );
        finish(guest, cpus as usize);
    }
}

/// gdb hears of the one hit that it asked for, and the guest loses no pass.
#[test]
fn condition_in_the_vmm_stops_at_the_hit_asked_for() {
    // Where vCPUs share one processor, most of the hits are those of whichever runs.
    let cpus = std::thread::available_parallelism().unwrap().get();
    let hits = if cpus > 1 { 20 } else { 4 };
    for prepare in ["echo", KERNEL_PAGES] {
        let guest = Guest::start("smp", "forever", 4);
        let lines = guest.gdb(&[
            prepare,
            &all_counting(4),
            "continue",
            "break main.c:28",
            &format!(
                "eval \"monitor break-if %#lx vcpu=2 cpl=0 cr3=%#lx hits={hits}\", $rip, $cr3"
            ),
            "set $first = cpus[2].counter",
            "continue",
            "printf \"@thread=%d passes=%d\\n\", $_thread, cpus[2].counter - $first",
            "info breakpoints",
            "monitor break-if",
        ]);
        let passes = |n| format!("@thread=3 passes={n}");
        // It may have been at the breakpoint when the count began.
        assert!(
            lines.contains(&passes(hits - 1)) || lines.contains(&passes(hits)),
            "{lines:#?}"
        );
        let heard = "\tbreakpoint already hit 1 time".to_owned();
        assert!(lines.contains(&heard), "{lines:#?}");
        let counted = lines.last().unwrap();
        assert!(
            counted.contains(&format!(" hits={hits}; met {hits} times")),
            "{counted}"
        );
        finish(guest, 4);
    }
}

#[test]
fn scheduler_locking_moves_one_vcpu_only() {
    let guest = Guest::start("smp", "forever", 2);
    let lines = guest.gdb(&[
        &all_counting(2),
        "continue",
        "break main.c:28",
        "set scheduler-locking on",
        "thread 2",
        "continue",
        "set $own = cpus[1].counter",
        "set $other = cpus[0].counter",
        "continue 5",
        "stepi 3",
        "printf \"@own=%ld other=%ld thread=%d\\n\", cpus[1].counter - $own, cpus[0].counter - $other, $_thread",
        "thread 1",
        "continue",
        "set $own = cpus[0].counter",
        "set $other = cpus[1].counter",
        "continue 7",
        "printf \"@own=%ld other=%ld thread=%d\\n\", cpus[0].counter - $own, cpus[1].counter - $other, $_thread",
        "set scheduler-locking off",
        "continue 50",
        "printf \"@both=%d\\n\", cpus[0].counter - $own > 7 && cpus[1].counter - $other > 0",
    ]);
    let counted: Vec<_> = lines.iter().filter(|line| line.starts_with('@')).collect();
    assert_eq!(
        counted,
        [
            "@own=5 other=0 thread=2",
            "@own=7 other=0 thread=1",
            "@both=1"
        ],
        "{lines:#?}"
    );
    finish(guest, 2);
}

/// How often each gets there is up to the host's scheduler; that each does is not.
#[test]
fn no_vcpu_starves_at_a_breakpoint_that_all_meet() {
    let guest = Guest::start("smp", "forever", 4);
    let mut gdb = guest.open(&[&all_counting(4), "continue", "break main.c:28", "continue"]);
    for cpu in 0..4 {
        gdb.send(format!("set $from{cpu} = cpus[{cpu}].counter\n").as_bytes());
    }
    let waits: Vec<_> = (0..4)
        .map(|cpu| format!("cpus[{cpu}].counter - $from{cpu} < 5"))
        .collect();
    gdb.send(format!("while {}\ncontinue\nend\n", waits.join(" || ")).as_bytes());
    gdb.send(b"echo @all have passed\\n\nquit\n");
    gdb.wait_for("@all have passed", DEADLINE);
    gdb.expect_exit(0, DEADLINE);
    finish(guest, 4);
}
