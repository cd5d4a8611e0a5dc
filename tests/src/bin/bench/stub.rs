//! The gdb stub beside QEMU's: the same guest, host and gdb, in turn.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::process::wait_until;
use tests::{DEADLINE, gdb, guest, scratch};

use super::proxy::{MARK, Mark, Proxy};
use super::stubs::{Outboard, Qemu, Stub};
use super::{median, median_ratio};

const ROUNDS: usize = 3;
const HITS: u64 = 10_000;
/// Guest memory that is dumped, in bytes.
const DUMP: u64 = 64 << 20;

/// Makes gdb use hardware breakpoints for its own too: QEMU's int3 traps on fewer
/// kinds of host.
const READ_ONLY: &str = "mem 0x100000 0x200000 ro";

/// What one gdb session measures between two marks.
struct Work {
    name: &'static str,
    commands: Vec<String>,
}

pub fn compare() -> Result<()> {
    let works = works();
    let mut ours: Vec<Vec<Seen>> = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..ROUNDS {
        ours.push(session::<Outboard>(&works)?);
        theirs.push(session::<Qemu>(&works)?);
    }
    println!("gdb stub, QEMU ÷ Outboard:");
    for (n, work) in works.iter().enumerate() {
        let column = |rounds: &[Vec<Seen>]| -> Vec<f64> {
            rounds.iter().map(|round| round[n].seconds * 1e3).collect()
        };
        println!(
            "  {}: {:.0} ms and {} packets; {:.1} times as long, {} packets",
            work.name,
            median(&mut column(&ours)),
            ours[0][n].packets,
            median_ratio(&column(&theirs), &column(&ours)),
            theirs[0][n].packets,
        );
    }
    conditions_in_the_vmm()?;
    stop_all()
}

fn works() -> Vec<Work> {
    let work = |name, commands: &[&str]| Work {
        name,
        commands: commands.iter().map(|&command| command.to_owned()).collect(),
    };
    // It has an effect, for which there is no bytecode.
    let condition = format!("hbreak inner if ++$hits == {HITS}");
    // Each pass of the guest is one hit.
    let compiled = format!("eval \"hbreak inner if loop_counter == %lu\", loop_counter + {HITS}");
    let dump = format!("dump binary memory /dev/null 0 {DUMP}");
    vec![
        work("1000 stepi", &["stepi 1000"]),
        work("200 next", &["next 200"]),
        work(
            "10000 hits of a condition that gdb evaluates",
            &["set $hits = 0", &condition, "continue"],
        ),
        work(
            "10000 hits of a condition that gdb sends to a stub that takes it",
            &["delete", &compiled, "continue"],
        ),
        work("dump of 64 MiB", &[&dump]),
    ]
}

/// Time and packets between two marks.
#[derive(Clone, Copy, Debug)]
struct Seen {
    seconds: f64,
    packets: u64,
}

/// Runs all of `works` in one gdb.
fn session<S: Stub>(works: &[Work]) -> Result<Vec<Seen>> {
    let mut commands = vec![
        READ_ONLY,
        "set mem inaccessible-by-default off",
        "hbreak scenario",
        "continue",
        "delete",
    ];
    for work in works {
        commands.push(MARK);
        commands.extend(work.commands.iter().map(String::as_str));
    }
    commands.push(MARK);
    let marks = run::<S>(&commands)?;
    ensure!(marks.len() == works.len() + 1, "gdb gave up: {marks:?}");
    for (pair, work) in marks.windows(2).zip(works) {
        let sent = pair[1].packets - pair[0].packets;
        ensure!(sent > 1, "gdb did nothing for {}", work.name);
    }
    let between = |pair: &[Mark]| Seen {
        seconds: (pair[1].at - pair[0].at).as_secs_f64(),
        // The mark itself is one.
        packets: pair[1].packets - pair[0].packets - 1,
    };
    Ok(marks.windows(2).map(between).collect())
}

/// Lets gdb carry out `commands` on the debuggee behind a proxy.
fn run<S: Stub>(commands: &[&str]) -> Result<Vec<Mark>> {
    let dir = scratch();
    let stub = S::start(dir.path(), "debug", 1);
    let proxy = Proxy::start(dir.path().join("proxy"), stub.socket())?;
    let symbols = guest::bare("debug");
    let mut process = gdb::start(proxy.socket(), &symbols, commands);
    process.expect_exit(0, 3 * DEADLINE);
    proxy.marks()
}

/// The same count as above, without gdb between two hits. QEMU has nothing like it.
fn conditions_in_the_vmm() -> Result<()> {
    let condition = format!("eval \"monitor break-if %#lx hits={HITS}\", $rip");
    let commands = [
        "hbreak inner",
        "continue",
        &condition,
        MARK,
        "continue",
        MARK,
    ];
    let marks = run::<Outboard>(&commands)?;
    let [begin, end] = marks[..] else {
        anyhow::bail!("gdb gave up: {marks:?}");
    };
    println!(
        "  10000 hits of a condition by monitor break-if: {:.0} ms",
        (end.at - begin.at).as_secs_f64() * 1e3
    );
    Ok(())
}

/// From the interrupt to the answer that all vCPUs have stopped.
fn stop_all() -> Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    for cpus in [cores, 16] {
        let (mut ours, mut theirs) = (
            stops::<Outboard>(cpus).context("Outboard")?,
            stops::<Qemu>(cpus).context("QEMU")?,
        );
        println!(
            "  stop of {cpus} busy vCPUs: {:.2} ms, QEMU {:.2} ms",
            median(&mut ours),
            median(&mut theirs)
        );
    }
    Ok(())
}

fn stops<S: Stub>(cpus: usize) -> Result<Vec<f64>> {
    const STOPS: usize = 101;
    let dir = scratch();
    let stub = S::start(dir.path(), "smp", cpus);
    let mut stream = UnixStream::connect(stub.socket())?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(b"$?#3f")?;
    answer(&mut stream)?;
    let mut times = Vec::new();
    for _ in 0..STOPS {
        stream.write_all(b"+$vCont;c#a8")?;
        // Until all run, whatever the stub answers meanwhile.
        let running = Instant::now() + Duration::from_millis(5);
        wait_until("the guest runs", DEADLINE, || Instant::now() >= running);
        let begin = Instant::now();
        stream.write_all(b"\x03")?;
        answer(&mut stream)?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Reads up to the end of a packet; acknowledgements are skipped.
fn answer(stream: &mut UnixStream) -> Result<()> {
    let mut byte = [0];
    let mut packet = Vec::new();
    loop {
        stream.read_exact(&mut byte)?;
        packet.push(byte[0]);
        if packet.len() >= 3 && packet[packet.len() - 3] == b'#' {
            return Ok(());
        }
    }
}

/// Waits until a stub listens.
pub fn wait_for_socket(socket: &Path) {
    wait_until("the stub listens", DEADLINE, || socket.exists());
}
