//! Many machines side by side, as a job array starts them: a process and a configuration file
//! each. Prints what they cost.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::process::{Process, wait_until};
use tests::{DEADLINE, guest, program, scratch};

const MACHINES: usize = 32;
/// How long their idle CPU time is measured.
const WINDOW: Duration = Duration::from_secs(2);

/// The machine of a directory of its own, which gets its console and its log.
fn start(directory: &Path) -> Process {
    fs::create_dir(directory).unwrap();
    let path = |name: &str| directory.join(name).display().to_string();
    let configuration = format!(
        "kernel = '{}'\ncmdline = 'case=halt-forever'\nmemory = '32M'\nserial = 'file={}'\n\
         log-file = '{}'\napi = '{}'\n",
        guest::bare("misbehave").display(),
        path("console"),
        path("log"),
        path("api"),
    );
    fs::write(directory.join("machine.toml"), configuration).unwrap();
    let mut outboard = Command::new(program::own("outboard"));
    outboard.args(["run", "--config", &path("machine.toml")]);
    Process::start(path(""), &mut outboard)
}

/// The guest works when it has said what it does.
fn is_up(directory: &Path) -> bool {
    let console = fs::read_to_string(directory.join("console"));
    console.is_ok_and(|text| text.contains("halt-forever"))
}

/// In KiB: of shared pages, such as the program's, each of its users has a part.
fn memory(process: &Process) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid())).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let value = line.and_then(|value| value.split_whitespace().next());
    value.unwrap().parse().unwrap()
}

/// User and system time, by the scheduler's own clock.
fn cpu_time(process: &Process) -> Duration {
    let threads = fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap();
    let times = threads.map(|thread| {
        let text = fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        text.split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    });
    Duration::from_nanos(times.sum())
}

#[test]
fn thirty_two_machines_run_side_by_side() {
    let dir = scratch();
    let directory = |n: usize| dir.path().join(n.to_string());
    let begun = Instant::now();
    let mut machines: Vec<_> = (0..MACHINES).map(|n| start(&directory(n))).collect();
    for (n, machine) in machines.iter().enumerate() {
        let what = format!("guest {n}\n{}", machine.transcript());
        wait_until(&what, DEADLINE, || is_up(&directory(n)));
    }
    let took = begun.elapsed();
    let memory: u64 = machines.iter().map(memory).sum();
    let busy = || machines.iter().map(cpu_time).sum::<Duration>();
    let before = busy();
    // A measure, and no synchronisation.
    std::thread::sleep(WINDOW);
    let idle = busy() - before;
    println!("{MACHINES} machines: all guests up after {took:.2?}");
    println!(
        "  memory {} KiB a machine, guest RAM in use included",
        memory / MACHINES as u64
    );
    println!(
        "  idle: {:.1?} of CPU time a second, together",
        idle / WINDOW.as_secs() as u32
    );
    for machine in &machines {
        machine.signal(libc::SIGTERM);
    }
    for (n, machine) in machines.iter_mut().enumerate() {
        machine.expect_exit(0, DEADLINE);
        assert!(!directory(n).join("api").exists());
    }
}
