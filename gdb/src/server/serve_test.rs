//! The server with a toy machine behind it and raw packets before it.

use std::io::Read;

use crate::server::Ended;
use crate::target::{HostTraps, Int3, Traps};
use crate::testing::{ALL_TRAPS, Guest, HIGH, Rsp};

/// ```text
/// 1000: inc %rax
/// 1003: nop
/// 1004: mov %al,(%rbx)
/// 1006: nop
/// 1007: jmp 1000
/// ```
pub(super) const LOOP: &[u8] = &[0x48, 0xff, 0xc0, 0x90, 0x88, 0x03, 0x90, 0xeb, 0xf7];

/// gdb's register numbers.
const RAX: usize = 0;
const RIP: usize = 16;

/// The stop without its expedited registers.
fn stop(rsp: &mut Rsp, resume: &str) -> String {
    rsp.send(resume);
    without_registers(&rsp.told().1)
}

fn without_registers(stop: &str) -> String {
    let expedited = ["6:", "7:", "06:", "07:", "10:"];
    let keep = |field: &&str| !expedited.iter().any(|number| field.starts_with(number));
    stop.split_terminator(';')
        .filter(keep)
        .map(|field| format!("{field};"))
        .collect()
}

/// One vCPU that has hit the breakpoint at `addr`.
fn stopped_at(guest: &Guest, addr: u64) -> Rsp {
    let mut rsp = guest.attach();
    assert_eq!(rsp.ask(&format!("Z0,{addr:x},1")), "OK");
    let stop = stop(&mut rsp, "vCont;c");
    assert!(stop.contains("swbreak:;"), "{stop}");
    assert_eq!(rsp.register(RIP), addr);
    rsp
}

// --- Attach and detach ----------------------------------------------------------

#[test]
fn attach_detach_and_again() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    for (leave, answer) in [("D", "OK"), ("k", "X09"), ("vKill;1", "OK")] {
        let mut rsp = guest.attach();
        assert!((0x1000..0x1009).contains(&rsp.register(RIP)));
        assert_eq!(rsp.ask("Z0,1003,1"), "OK");
        assert_eq!(rsp.ask("Z1,1006,1"), "OK");
        assert_eq!(rsp.ask(leave), answer);
        assert_eq!(rsp.try_answer(), None, "the connection is closed");
        guest.until_undisturbed();
    }
}

#[test]
fn a_lost_socket_in_any_state_leaves_nothing_behind() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    type State = (&'static str, fn(&mut Rsp));
    let states: [State; 6] = [
        ("stopped", |_| {}),
        ("running", |rsp| rsp.send("vCont;c")),
        ("stepping", |rsp| rsp.send("vCont;r1000,1009:1;c")),
        ("locked", |rsp| rsp.send("vCont;c:2")),
        ("in a packet", |rsp| rsp.send_raw(b"$m1000,")),
        ("with an answer unread", |rsp| rsp.send("m0,10000")),
    ];
    for (name, state) in states {
        println!("{name}");
        let mut rsp = guest.attach();
        // 0x1fff is never executed: the guest keeps running. The last one's
        // page is written to all the time.
        for point in ["Z0,1fff,1", "Z1,1ffe,1", "Z2,9000,8", "Z2,8010,40"] {
            assert_eq!(rsp.ask(point), "OK");
        }
        state(&mut rsp);
        drop(rsp);
        guest.until_undisturbed();
    }
}

/// A guest whose vCPU steps off a breakpoint and does not come back.
fn stepping_off_for_ever() -> (Guest, Rsp) {
    // hlt; jmp 1000
    let guest = Guest::start(&[0xf4, 0xeb, 0xfd], &[0x1000]);
    guest
        .watcher
        .until("it halts", |state| state.cpus[0].halted);
    let mut rsp = guest.attach();
    assert_eq!(rsp.ask("Z0,1000,1"), "OK");
    guest.watcher.wake(0);
    assert_eq!(stop(&mut rsp, "vCont;c"), "T05thread:01;swbreak:;");
    rsp.send("vCont;c");
    guest
        .watcher
        .until("it halts again", |state| state.cpus[0].halted);
    (guest, rsp)
}

#[test]
fn a_lost_socket_while_a_vcpu_steps_off_a_breakpoint() {
    let (guest, rsp) = stepping_off_for_ever();
    assert_eq!(guest.watcher.state().ram[0x1000], 0xf4, "lifted");
    drop(rsp);
    guest.until_undisturbed();
}

#[test]
fn a_client_that_says_nothing_does_not_stop_the_guest() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let silent = guest.connect();
    let executed = guest.watcher.state().executed;
    guest
        .watcher
        .until("it runs on", |state| state.executed > executed + 100);
    assert!(guest.watcher.state().is_undisturbed());
    drop(silent);
    guest.attach();
}

#[test]
fn a_second_client_is_told_so() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut first = guest.attach();
    for _ in 0..3 {
        let mut second = guest.connect();
        let refusal = second.ask("qSupported");
        assert!(
            refusal.starts_with("E.another debugger is attached"),
            "{refusal}"
        );
        assert_eq!(second.try_answer(), None);
    }
    let mut silent: Vec<_> = (0..20).map(|_| guest.connect()).collect();
    assert_eq!(first.ask("m1000,1"), "48", "the first is not disturbed");
    for silent in &mut silent {
        let read = silent.stream.read(&mut [0]);
        assert_eq!(read.unwrap(), 0, "closed in the end");
    }
    assert_eq!(first.ask("D"), "OK");
    guest.attach();
}

#[test]
fn a_client_is_detached_at_somebody_elses_wish() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    assert_eq!(guest.detacher.detach(), Ok(false));
    for state in ["stopped", "running", "silent"] {
        let mut rsp = guest.connect();
        if state != "silent" {
            assert!(rsp.ask("qSupported").contains("vContSupported+"));
            assert_eq!(rsp.ask("Z0,1fff,1"), "OK");
            assert_eq!(rsp.ask("Z1,1ffe,1"), "OK");
        }
        if state == "running" {
            rsp.send("vCont;c");
        }
        // A client that has not been accepted yet is none.
        while guest.detacher.detach() == Ok(false) {}
        guest.until_undisturbed();
        assert_eq!(rsp.try_answer(), None, "{state}");
    }
    guest.attach();
}

#[test]
fn a_client_that_follows_at_once_is_not_refused() {
    let guest = Guest::start(LOOP, &[0x1000]);
    for n in 0..200 {
        let mut rsp = guest.attach();
        match n % 3 {
            0 => rsp.send("vCont;c"),
            1 => rsp.send_raw(&b"\x03".repeat(100)),
            _ => {}
        }
    }
}

#[test]
fn the_server_ends_when_the_vmm_asks_and_detaches_first() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let watcher = guest.watcher.clone();
    let mut rsp = stopped_at(&guest, 0x1003);
    drop(guest);
    assert_eq!(rsp.try_answer(), None);
    // The toy has ended with its server: nothing can have changed since.
    assert!(watcher.state().is_undisturbed());
}

#[test]
fn the_guest_exits_under_gdb_and_without() {
    // mov $7-like: rax counts to 1, then out %al,$0xf4 ends the machine.
    let exit: &[u8] = &[0x90, 0x48, 0xff, 0xc0, 0xe6, 0xf4];
    let guest = Guest::start(exit, &[0x1000]);
    assert_eq!(guest.ended(), Ended::GuestExited(1));

    // The same behind a halt, so that gdb can attach first.
    let guest = Guest::start(&[&[0xf4], exit].concat(), &[0x1000]);
    guest
        .watcher
        .until("it halts", |state| state.cpus[0].halted);
    let mut rsp = guest.attach();
    guest.watcher.wake(0);
    assert_eq!(rsp.ask("vCont;c"), "W01");
    assert_eq!(rsp.try_answer(), None);
    assert_eq!(guest.ended(), Ended::GuestExited(1));
}

// --- Registers and memory -------------------------------------------------------

#[test]
fn registers_read_and_write() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    let mut rsp = guest.attach();
    let all = rsp.ask("g");
    assert_eq!(rsp.ask("P0=efbeadde00000000"), "OK");
    assert_eq!(rsp.register(RAX), 0xdead_beef);
    assert_eq!(rsp.ask("P0=ef"), "E16", "too short");
    assert_eq!(rsp.ask("P12=33000000"), "E16", "a selector");
    let changed = format!("efbeadde00000000{}", &all[16..]);
    assert_eq!(rsp.ask("g"), changed);
    assert_eq!(rsp.ask(&format!("G{all}")), "OK");
    assert_eq!(rsp.ask("g"), all);
    assert_eq!(rsp.ask("Hg2"), "OK");
    assert_ne!(rsp.ask("g"), all, "rbx differs between the two vCPUs");
    assert_eq!(rsp.ask("p9a"), "", "no such register");
    assert_eq!(rsp.ask("Hg3"), "OK");
    assert_eq!(rsp.ask("g"), "E16", "no such vCPU");
}

#[test]
fn memory_by_virtual_address() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = guest.attach();
    for base in [0, HIGH] {
        assert_eq!(
            rsp.ask(&format!("m{:x},9", base + 0x1000)),
            "48ffc090880390ebf7"
        );
        assert_eq!(rsp.ask(&format!("M{:x},4:01020304", base + 0x9ffe)), "OK");
        assert_eq!(rsp.ask(&format!("m{:x},4", base + 0x9ffe)), "01020304");
        assert_eq!(
            rsp.ask(&format!("X{:x},0:", base + 0x9ffe)),
            "OK",
            "gdb's probe"
        );
    }
    let end = rsp.ask("mffffe,4");
    assert_eq!(end, "0000", "what there is before the unmapped page");
    assert_eq!(rsp.ask("m100000,1"), "E0e");
    assert_eq!(rsp.ask("m800000000000,1"), "E0e", "not canonical");
    assert_eq!(rsp.ask("Mfffff,2:ffff"), "E0e");
    assert_eq!(rsp.ask("mfffff,1"), "00", "nothing was written");
    assert_eq!(rsp.ask("m0,ffffffff"), "E16", "more than a packet holds");
    assert_eq!(rsp.ask("mffffffffffffffff,ffffffffffffff"), "E16");
    assert_eq!(rsp.ask("m0,10000").len(), 0x2_0000, "a large packet");
}

#[test]
fn planted_bytes_are_invisible() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = guest.attach();
    assert_eq!(rsp.ask("Z0,1003,1"), "OK");
    assert_eq!(guest.watcher.state().ram[0x1003], 0xcc);
    assert_eq!(rsp.ask("m1000,9"), "48ffc090880390ebf7");
    assert_eq!(rsp.ask("M1002,3:c0f488"), "OK", "hlt in place of nop");
    assert_eq!(guest.watcher.state().ram[0x1003], 0xcc);
    assert_eq!(rsp.ask("m1003,1"), "f4");
    assert_eq!(rsp.ask("z0,1003,1"), "OK");
    assert_eq!(guest.watcher.state().ram[0x1003], 0xf4);
    assert_eq!(rsp.ask("M1003,1:90"), "OK");
}

#[test]
fn threads_are_vcpus() {
    let guest = Guest::start(&[LOOP, &[0xf4]].concat(), &[0x1000, 0x1009]);
    guest
        .watcher
        .until("vCPU 1 halts", |state| state.cpus[1].halted);
    let mut rsp = guest.attach();
    assert_eq!(rsp.ask("qfThreadInfo"), "m01,02");
    let info = |rsp: &mut Rsp, thread| {
        let hex = rsp.ask(&format!("qThreadExtraInfo,{thread}"));
        let bytes = (0..hex.len()).step_by(2);
        let char = |at| char::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
        bytes.map(char).collect::<String>()
    };
    assert_eq!(info(&mut rsp, 1), "CPU 0, running, CPL 0");
    assert_eq!(info(&mut rsp, 2), "CPU 1, halted, CPL 0");
    assert_eq!(info(&mut rsp, 3), "no such vCPU");
    assert_eq!(rsp.ask("T2"), "OK");
    assert_eq!(rsp.ask("T3"), "E01");
}

// --- Breakpoints and stepping ---------------------------------------------------

#[test]
fn a_breakpoint_hits_every_time_round() {
    for z in ["Z0", "Z1"] {
        let guest = Guest::start(LOOP, &[0x1000]);
        let mut rsp = guest.attach();
        assert_eq!(rsp.ask(&format!("{z},1003,1")), "OK");
        let mut counts = Vec::new();
        for _ in 0..3 {
            let expected = if z == "Z0" { "swbreak" } else { "hwbreak" };
            assert_eq!(
                stop(&mut rsp, "vCont;c"),
                format!("T05thread:01;{expected}:;")
            );
            assert_eq!(rsp.register(RIP), 0x1003);
            counts.push(rsp.register(RAX));
        }
        assert!(
            counts.windows(2).all(|two| two[1] == two[0] + 1),
            "{counts:?}"
        );
    }
}

#[test]
fn stepping_at_a_breakpoint_executes_the_original() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = stopped_at(&guest, 0x1000);
    let rax = rsp.register(RAX);
    for rip in [0x1003, 0x1004, 0x1006, 0x1007, 0x1000, 0x1003] {
        assert_eq!(stop(&mut rsp, "vCont;s:1"), "T05thread:01;");
        assert_eq!(rsp.register(RIP), rip);
    }
    assert_eq!(rsp.register(RAX), rax + 2);
    assert_eq!(guest.watcher.state().ram[0x1000], 0xcc, "planted again");
}

#[test]
fn stops_expedite_what_gdb_asks_first() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = stopped_at(&guest, 0x1003);
    let stop = rsp.ask("vCont;s:1");
    assert!(stop.contains(";10:0410000000000000;"), "{stop}");
}

#[test]
fn range_stepping_stays_inside_until_it_leaves() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = stopped_at(&guest, 0x1003);
    assert_eq!(rsp.ask("z0,1003,1"), "OK");
    assert_eq!(stop(&mut rsp, "vCont;r1003,1007:1"), "T05thread:01;");
    assert_eq!(rsp.register(RIP), 0x1007);
    assert_eq!(stop(&mut rsp, "vCont;r1007,1007:1"), "T05thread:01;");
    assert_eq!(rsp.register(RIP), 0x1000, "an empty range is one step");
    assert_eq!(rsp.ask("Z0,1006,1"), "OK");
    assert_eq!(
        stop(&mut rsp, "vCont;r1000,1009:1"),
        "T05thread:01;swbreak:;"
    );
    assert_eq!(rsp.register(RIP), 0x1006, "a breakpoint within ends it");
}

#[test]
fn scheduler_locking_holds_the_others() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    let mut rsp = guest.attach();
    let registers = |rsp: &mut Rsp, thread| {
        assert_eq!(rsp.ask(&format!("Hg{thread}")), "OK");
        rsp.ask("g")
    };
    let other = registers(&mut rsp, 1);
    for resume in ["vCont;s:2", "vCont;r1000,1001:2"] {
        assert_eq!(stop(&mut rsp, resume), "T05thread:02;");
        assert_eq!(registers(&mut rsp, 1), other);
    }
    rsp.send("vCont;c:2");
    let executed = guest.watcher.state().executed;
    guest
        .watcher
        .until("vCPU 1 runs", |state| state.executed > executed + 100);
    rsp.send_raw(b"\x03");
    let (_, stop) = rsp.told();
    assert!(stop.starts_with("T02thread:02;"), "{stop}");
    assert_eq!(registers(&mut rsp, 1), other);
}

#[test]
fn a_step_lets_the_others_run() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    let mut rsp = guest.attach();
    let before = guest.watcher.state().cpus[0].registers.gpr[0];
    for _ in 0..50 {
        assert_eq!(stop(&mut rsp, "vCont;s:2;c"), "T05thread:02;");
    }
    assert_ne!(guest.watcher.state().cpus[0].registers.gpr[0], before);
}

#[test]
fn every_vcpu_reports_its_own_hit() {
    // All vCPUs meet the breakpoint, often at once: none may be lost.
    let guest = Guest::start(LOOP, &[0x1000, 0x1000, 0x1000]);
    let mut rsp = guest.attach();
    assert_eq!(rsp.ask("Z0,1003,1"), "OK");
    let mut last = [None; 3];
    for _ in 0..60 {
        let stop = stop(&mut rsp, "vCont;c");
        let vcpu = stop.as_bytes()[11] - b'1';
        assert!(stop.ends_with("swbreak:;"), "{stop}");
        let rax = rsp.register(RAX);
        // One more inc than at this vCPU's last hit: it has skipped none.
        if let Some(last) = last[usize::from(vcpu)].replace(rax) {
            assert_eq!(rax, last + 1, "vCPU {vcpu}");
        }
    }
    assert!(last.iter().all(Option::is_some), "{last:?}");
}

#[test]
fn a_hit_of_another_vcpu_is_reported_though_gdb_replants() {
    // As gdb does it: breakpoints out at the stop, step off, in again, continue.
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    let mut rsp = guest.attach();
    let mut last = [None; 2];
    for _ in 0..40 {
        assert_eq!(rsp.ask("Z0,1003,1"), "OK");
        let stopped = stop(&mut rsp, "vCont;c");
        let thread = char::from(stopped.as_bytes()[11]);
        let vcpu = usize::from(thread as u8 - b'1');
        let rax = rsp.register(RAX);
        if let Some(last) = last[vcpu].replace(rax) {
            assert_eq!(rax, last + 1, "vCPU {vcpu}");
        }
        assert_eq!(rsp.ask("z0,1003,1"), "OK");
        assert_eq!(
            stop(&mut rsp, &format!("vCont;s:{thread}")),
            format!("T05thread:0{thread};")
        );
    }
}

#[test]
fn an_interrupt_stops_all() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    let mut rsp = guest.attach();
    rsp.send("vCont;c");
    rsp.send_raw(b"\x03");
    let (_, stop) = rsp.told();
    assert_eq!(without_registers(&stop), "T02thread:01;");
    rsp.send_raw(b"\x03");
    assert_eq!(
        rsp.ask("m1000,1"),
        "48",
        "an interrupt of a stopped guest is no stop"
    );
}

#[test]
fn an_interrupt_ends_a_step_off_a_breakpoint() {
    let (guest, mut rsp) = stepping_off_for_ever();
    rsp.send_raw(b"\x03");
    assert_eq!(without_registers(&rsp.told().1), "T02thread:01;");
    assert_eq!(guest.watcher.state().ram[0x1000], 0xcc, "planted again");
    guest.watcher.wake(0);
    assert_eq!(stop(&mut rsp, "vCont;c"), "T05thread:01;swbreak:;");
}

#[test]
fn a_moved_rip_meets_the_breakpoint_there() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = stopped_at(&guest, 0x1003);
    assert_eq!(rsp.ask("Z0,1006,1"), "OK");
    assert_eq!(rsp.ask("P10=0610000000000000"), "OK");
    assert_eq!(stop(&mut rsp, "vCont;c"), "T05thread:01;swbreak:;");
    assert_eq!(rsp.register(RIP), 0x1006);
}

#[test]
fn another_address_of_the_same_byte_does_not_stop() {
    let guest = Guest::start(LOOP, &[0x1000, HIGH + 0x1000]);
    let mut rsp = guest.attach();
    assert_eq!(rsp.ask(&format!("Z0,{:x},1", HIGH + 0x1003)), "OK");
    for _ in 0..10 {
        assert_eq!(stop(&mut rsp, "vCont;c"), "T05thread:02;swbreak:;");
    }
    let before = guest.watcher.state().cpus[0].registers.gpr[0];
    assert_eq!(stop(&mut rsp, "vCont;c"), "T05thread:02;swbreak:;");
    let after = guest.watcher.state().cpus[0].registers.gpr[0];
    assert!(after > before, "the other vCPU passes it");
}

#[test]
fn the_guests_own_int3_goes_to_the_guest() {
    // int3; nop; jmp 1000
    let guest = Guest::start(&[0xcc, 0x90, 0xeb, 0xfc], &[0x1000]);
    let mut rsp = stopped_at(&guest, 0x1001);
    let own = guest.watcher.state().cpus[0].own_int3;
    for n in 1..5 {
        assert_eq!(stop(&mut rsp, "vCont;c"), "T05thread:01;swbreak:;");
        assert_eq!(rsp.register(RIP), 0x1001);
        assert_eq!(guest.watcher.state().cpus[0].own_int3, own + n);
    }
    // A breakpoint on it hits before the guest gets it.
    assert_eq!(rsp.ask("Z0,1000,1"), "OK");
    assert_eq!(stop(&mut rsp, "vCont;c"), "T05thread:01;swbreak:;");
    assert_eq!(rsp.register(RIP), 0x1000);
    assert_eq!(guest.watcher.state().cpus[0].own_int3, own + 4);
    assert_eq!(stop(&mut rsp, "vCont;c"), "T05thread:01;swbreak:;");
    assert_eq!(rsp.register(RIP), 0x1001);
    assert_eq!(guest.watcher.state().cpus[0].own_int3, own + 5);
}

#[test]
fn watchpoints_fire_behind_the_access() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    let mut rsp = guest.attach();
    for (z, word) in [("2", "watch"), ("3", "rwatch"), ("4", "awatch")] {
        assert_eq!(rsp.ask(&format!("Z{z},8001,1")), "OK");
        assert_eq!(
            stop(&mut rsp, "vCont;c"),
            format!("T05thread:02;{word}:8001;")
        );
        assert_eq!(rsp.register(RIP), 0x1006);
        assert_eq!(rsp.ask(&format!("z{z},8001,1")), "OK");
    }
}

#[test]
fn what_no_slot_can_watch_is_watched_by_its_pages() {
    // inc %rax; mov %al,(%rbx); jmp 1000
    let code = &[0x48, 0xff, 0xc0, 0x88, 0x03, 0xeb, 0xf9];
    let guest = Guest::start(code, &[0x1000]);
    let mut rsp = guest.attach();
    let value = |rsp: &mut Rsp| u8::from_str_radix(&rsp.ask("m8000,1"), 16).unwrap();
    assert_eq!(rsp.ask("Z2,7fe0,40"), "OK");
    for _ in 0..20 {
        let before = value(&mut rsp);
        rsp.send("vCont;c");
        let (text, stopped) = rsp.told();
        assert!(stopped.contains("watch:8000;"), "{stopped}");
        let after = value(&mut rsp);
        let change = format!("0x{before:02x} became 0x{after:02x} in the byte at 0x8000\n");
        assert!(before != after && text.ends_with(&change), "{text}");
    }
    assert!(
        rsp.monitor("info breakpoints")
            .ends_with("  3: free\nwrite-protected pages for watch 0x7fe0 (64 bytes)\n")
    );
    assert_eq!(rsp.ask("z2,7fe0,40"), "OK");
    assert_eq!(rsp.ask("Z2,8010,40"), "OK", "beside what is written");
    rsp.send("vCont;c");
    let executed = guest.watcher.state().executed;
    guest
        .watcher
        .until("it runs on", |state| state.executed > executed + 100);
    rsp.send_raw(b"\x03");
    assert!(rsp.told().1.starts_with("T02"));
    drop(rsp);
    guest.until_undisturbed();
}

#[test]
fn refused_watch_of_pages_says_why() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = guest.attach();
    for (point, why) in [
        (
            "Z4,8000,40",
            "only writes can be watched by write-protected pages",
        ),
        (
            "Z2,8000,100000",
            "1048576 bytes are more than 64 write-protected pages",
        ),
        ("Z2,400000,40", "0x400000 is not mapped: "),
    ] {
        assert_eq!(rsp.ask(point), "E16");
        let text = rsp.monitor("info breakpoints");
        assert!(
            text.contains(&format!("hardware slots can watch, and {why}")),
            "{text}"
        );
    }
    assert_eq!(rsp.ask("Z2,0,40000"), "OK");
    assert_eq!(rsp.ask("Z2,40000,40"), "E16");
    let text = rsp.monitor("info breakpoints");
    let why = "it would be 65 write-protected pages, more than 64";
    assert!(text.contains(why), "{text}");
}

#[test]
fn no_watch_hit_is_lost_when_two_vcpus_stop_at_once() {
    let guest = Guest::start(LOOP, &[0x1000, 0x1000]);
    let mut rsp = guest.attach();
    assert_eq!(rsp.ask("Z2,8000,2"), "OK");
    let mut last = [None; 2];
    for _ in 0..40 {
        let stop = stop(&mut rsp, "vCont;c");
        let vcpu = usize::from(stop.as_bytes()[11] - b'1');
        assert!(stop.ends_with("watch:8000;"), "{stop}");
        let rax = rsp.register(RAX);
        if let Some(last) = last[vcpu].replace(rax) {
            assert_eq!(rax, last + 1, "vCPU {vcpu}");
        }
    }
}

// --- What cannot be had ---------------------------------------------------------

#[test]
fn exhausted_slots_say_what_holds_them() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = guest.attach();
    assert_eq!(rsp.ask("Z2,8100,10"), "OK");
    assert_eq!(rsp.ask("Z1,1ff0,1"), "OK");
    assert_eq!(
        rsp.ask("Z0,400000,1"),
        "OK",
        "its page is not mapped: a slot"
    );
    assert_eq!(rsp.ask("Z1,1ff8,1"), "E16");
    let reason = "hardware breakpoint at 0x1ff8 refused: all 4 hardware slots are taken: \
                  watch 0x8100 (16 bytes), hbreak 0x1ff0, break 0x400000\n";
    let text = rsp.monitor("info breakpoints");
    assert!(text.starts_with(reason), "{text}");
    assert!(text.contains("  break 0x400000: hardware slot\n"), "{text}");
    assert!(
        text.contains("  2: execute 0x1ff0, 1 bytes, for hbreak 0x1ff0\n"),
        "{text}"
    );

    assert_eq!(rsp.ask("Z0,1003,1"), "OK", "an int3 needs none");
}

/// A client that shows texts gets the reason at once, and hears it no second time.
#[test]
fn a_refusal_is_a_text_for_a_client_that_shows_texts() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = guest.attach();
    rsp.ask("qSupported:swbreak+;error-message+");
    assert_eq!(rsp.ask("Z2,8100,20"), "OK");
    let reason = "E.hardware breakpoint at 0x1ff8 refused: all 4 hardware slots are taken: \
                  watch 0x8100 (32 bytes)";
    assert_eq!(rsp.ask("Z1,1ff8,1"), reason);
    let text = rsp.monitor("info breakpoints");
    assert!(!text.contains("refused"), "{text}");
    assert_eq!(rsp.ask("Z0,1003,1"), "OK", "an int3 needs none");

    assert_eq!(rsp.ask("Z0,8000000000000000,1"), "E16", "gdb shows no text");
    assert_eq!(rsp.ask("z2,8100,20"), "OK");
    assert_eq!(rsp.ask("Z1,1ff8,1"), "OK", "a reason is that of one packet");
    let text = rsp.monitor("info breakpoints");
    let reason = "breakpoint at 0x8000000000000000 refused: ";
    assert!(text.starts_with(reason), "{text}");
}

#[test]
fn a_breakpoint_without_page_and_slot_waits_for_the_page() {
    /// The last level of the toy's page tables: the entry of page 2.
    const ENTRY: usize = 0xf_4010;
    let guest = Guest::start(LOOP, &[0x1000]);
    let set_entry = |byte: u8| guest.watcher.state().ram[ENTRY] = byte;
    set_entry(0);
    let mut rsp = guest.attach();
    for n in 0..4 {
        assert_eq!(rsp.ask(&format!("Z1,{:x},1", 0x1ff0 + n)), "OK");
    }
    assert_eq!(rsp.ask("Z0,2000,1"), "OK");
    let text = rsp.monitor("info breakpoints");
    let waits = "breakpoint at 0x2000 waits for its page to be mapped, and all 4 hardware";
    assert!(text.starts_with(waits), "{text}");
    assert!(text.contains("  break 0x2000: pending, its page is not mapped\n"));
    rsp.send("vCont;c");
    set_entry(3);
    guest
        .watcher
        .until("it is planted", |state| state.ram[0x2000] == 0xcc);
    rsp.send_raw(b"\x03");
    assert!(rsp.told().1.starts_with("T02"));
    let text = rsp.monitor("info breakpoints");
    assert!(
        text.contains("  break 0x2000: int3 at physical 0x2000\n"),
        "{text}"
    );
    assert_eq!(rsp.ask("z0,2000,1"), "OK");
    set_entry(0);
    assert_eq!(rsp.ask("Z0,2000,1"), "OK");
    assert_eq!(rsp.ask("z0,2000,1"), "OK", "not there any more");
    drop(rsp);
    guest.until_undisturbed();
}

#[test]
fn breakpoints_that_wait_are_limited() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = guest.attach();
    for n in 0..4 + 256 {
        assert_eq!(rsp.ask(&format!("Z0,{:x},1", 0x40_0000 + n)), "OK");
    }
    assert_eq!(rsp.ask("Z0,500000,1"), "E16");
}

/// A host that traps `ring0` in the kernel and nothing in ring 3.
fn host(ring0: Traps) -> HostTraps {
    let ring3 = Traps {
        step: false,
        int3: Int3::GoesToGuest,
        hw_breakpoint: false,
        watchpoint: false,
    };
    HostTraps { ring0, ring3 }
}

#[test]
fn without_int3_a_software_breakpoint_takes_a_slot() {
    let ring0 = Traps {
        int3: Int3::GoesToGuest,
        watchpoint: false,
        ..ALL_TRAPS.ring0
    };
    let guest = Guest::on_host(LOOP, &[0x1000], host(ring0));
    let mut rsp = guest.attach();
    assert_eq!(rsp.ask("Z0,1003,1"), "OK");
    assert_eq!(rsp.ask("Z4,8000,1"), "E16");
    rsp.send("vCont;c");
    let (text, stopped) = rsp.told();
    assert_eq!(
        text,
        "watchpoint at 0x8000 refused: this host traps no data access in ring 0 or 3, \
         and only writes can be watched by write-protected pages\n"
    );
    assert_eq!(without_registers(&stopped), "T05thread:01;swbreak:;");
    for n in 0..3 {
        assert_eq!(rsp.ask(&format!("Z0,{:x},1", 0x1ff0 + n)), "OK");
    }
    assert_eq!(rsp.ask("Z0,1fff,1"), "E16");
    let text = rsp.monitor("help");
    assert!(
        text.contains("this host does not trap int3 in ring 0, and all 4 hardware"),
        "{text}"
    );
    assert_eq!(stop(&mut rsp, "vCont;c"), "T05thread:01;swbreak:;");
    assert_eq!(guest.watcher.state().ram[0x1003], 0x90);
}

#[test]
fn a_slot_that_one_ring_only_can_hit_is_said_to_be() {
    let guest = Guest::on_host(LOOP, &[0x1000], host(ALL_TRAPS.ring0));
    let mut rsp = guest.attach();
    for _ in 0..3 {
        assert_eq!(rsp.ask("Z2,9000,1"), "OK");
        assert_eq!(rsp.ask("z2,9000,1"), "OK");
        assert_eq!(rsp.ask("Z1,1ff0,1"), "OK", "its page is ring 0's alone");
    }
    rsp.send("vCont;s:1");
    let (text, _) = rsp.told();
    assert_eq!(
        text,
        "watchpoint at 0x9000: this host traps it in ring 0 only\n"
    );
}

#[test]
fn a_host_that_traps_nothing_is_said_to() {
    let guest = Guest::on_host(LOOP, &[0x1000], host(host(ALL_TRAPS.ring0).ring3));
    let mut rsp = guest.attach();
    for point in ["Z0,1003,1", "Z1,1003,1", "Z2,8000,1"] {
        assert_eq!(rsp.ask(point), "E16");
    }
    rsp.send("vCont;s:1");
    let (text, stopped) = rsp.told();
    assert!(
        text.contains("this host traps no breakpoint in ring 0\n"),
        "{text}"
    );
    assert!(
        text.contains("this host cannot single-step code at CPL 0, where vCPU 0 is"),
        "{text}"
    );
    assert_eq!(without_registers(&stopped), "T00thread:01;");
    rsp.send("vCont;c");
    rsp.send_raw(b"\x03");
    assert_eq!(without_registers(&rsp.told().1), "T02thread:01;");
}

#[test]
fn a_vcpu_that_does_not_exist_is_not_resumed() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = guest.attach();
    rsp.send("vCont;c:7");
    let (text, stopped) = rsp.told();
    assert_eq!(
        text,
        "the guest cannot be resumed: gdb asked for a vCPU that does not exist\n"
    );
    assert_eq!(without_registers(&stopped), "T00thread:01;");
}

#[test]
fn a_running_guest_cannot_be_inspected() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = guest.attach();
    rsp.send("vCont;c");
    for (packet, answer) in [("g", "E10"), ("m1000,1", "E10"), ("Z0,1000,1", "E10")] {
        assert_eq!(rsp.ask(packet), answer);
    }
    rsp.send("vCont;c");
    assert_eq!(rsp.monitor("info vcpus"), "the guest is running\n");
    rsp.send_raw(b"\x03");
    assert_eq!(without_registers(&rsp.told().1), "T02thread:01;");
}

// --- Crash and reset ------------------------------------------------------------

#[test]
fn a_crash_is_a_stop_with_its_reason() {
    // A breakpoint, then an instruction that nobody knows.
    let guest = Guest::start(&[0x90, 0xeb, 0xfd, 0x0f, 0x0b], &[0x1000]);
    let mut rsp = guest.attach();
    assert_eq!(rsp.ask("P10=0310000000000000"), "OK");
    rsp.send("vCont;c");
    let (text, stopped) = rsp.told();
    assert_eq!(
        text,
        "vCPU 0 crashed: triple fault at 0x1003: [0f, 0b, 00]\n"
    );
    assert_eq!(without_registers(&stopped), "T06thread:01;");
    assert_eq!(rsp.register(RIP), 0x1003);
    let text = rsp.monitor("info vcpus");
    assert!(
        text.starts_with("* CPU 0, crashed, CPL 0, rip 0x1003"),
        "{text}"
    );
    assert_eq!(rsp.ask("P10=0010000000000000"), "OK");
    assert_eq!(rsp.ask("D"), "OK");
    guest.until_undisturbed();
}

#[test]
fn a_crash_with_nobody_attached_waits_for_gdb() {
    let guest = Guest::start(&[0x0f, 0x0b, 0x90, 0xeb, 0xfd], &[0x1002, 0x1000]);
    guest
        .watcher
        .until("vCPU 1 crashes", |state| !state.is_undisturbed());
    let mut rsp = guest.connect();
    rsp.ask("qSupported:multiprocess-");
    assert_eq!(
        rsp.ask("?"),
        "T05thread:02;",
        "the crashed vCPU is shown first"
    );
    assert!(rsp.monitor("info vcpus").contains("* CPU 1, crashed"));
}

#[test]
fn a_reset_stops_and_breakpoints_work_again() {
    // nop; jmp 1000; out %al,$0xfe
    let guest = Guest::start(&[0x90, 0xeb, 0xfd, 0xe6, 0xfe], &[0x1000]);
    let mut rsp = stopped_at(&guest, 0x1000);
    assert_eq!(rsp.ask("P10=0310000000000000"), "OK");
    rsp.send("vCont;c");
    let (text, stopped) = rsp.told();
    assert!(text.starts_with("the guest was reset"), "{text}");
    assert_eq!(without_registers(&stopped), "T05thread:01;");
    assert_eq!(guest.watcher.state().ram[0x1000], 0x90);
    assert_eq!(rsp.ask("z0,1000,1"), "OK");
    assert_eq!(rsp.ask("Z0,1000,1"), "OK");
    assert_eq!(stop(&mut rsp, "vCont;c"), "T05thread:01;swbreak:;");
}

#[test]
fn memory_can_be_read_as_it_is() {
    let guest = Guest::start(LOOP, &[0x1000]);
    let mut rsp = guest.attach();
    assert!(rsp.ask("qSupported:swbreak+").contains(";binary-upload+"));
    assert_eq!(rsp.ask("M9000,5:23247d2a41"), "OK");
    assert_eq!(rsp.ask("x9000,5"), "b}\u{3}}\u{4}}]}\nA");
    assert_eq!(rsp.ask("x9004,1"), "bA");
    // The rest of RAM, and nothing of what is behind.
    assert_eq!(rsp.ask("x100000,4"), "E0e");
    assert_eq!(rsp.ask("Mfffff,1:41"), "OK");
    assert_eq!(rsp.ask("xfffff,10"), "bA");
    assert_eq!(rsp.ask("x9000"), "E16");
    rsp.send("vCont;c");
    assert_eq!(rsp.ask("x9000,4"), "E10", "it runs");
    drop(rsp);
    guest.until_undisturbed();
}
