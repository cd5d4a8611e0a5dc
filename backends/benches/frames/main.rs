//! A network interface without a guest: frames to a peer that sends each back, by the tests'
//! frontend, which sleeps until it is interrupted.
//!
//! `OUTBOARD_NET_OTHER` names another build of `outboard-net`: both are measured in turn, and each
//! row is a median with the median of the ratios.

#[path = "../../tests/common/mod.rs"]
mod common;

#[path = "../backend.rs"]
mod backend;

mod dpdk;
mod load;
mod peer;

use std::ffi::OsString;
use std::time::{Duration, Instant};

use backend::Backend;
use common::{DEADLINE, Driver, QUEUE_SIZE, connect_within};
use load::Load;
use peer::Peer;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use virtio_bindings::virtio_net::VIRTIO_NET_S_LINK_UP;

/// Of each measurement.
const ROUNDS: usize = 7;
const DURATION: Duration = Duration::from_secs(1);
/// The same with DPDK's program, which starts slowly.
const DPDK_ROUNDS: usize = 5;

/// What is measured.
struct Row {
    /// Bytes of a frame.
    size: u32,
    /// Frames in flight.
    depth: u16,
}

const ROWS: [Row; 4] = [
    Row {
        size: 64,
        depth: QUEUE_SIZE,
    },
    Row {
        size: 1500,
        depth: QUEUE_SIZE,
    },
    Row { size: 64, depth: 1 },
    Row {
        size: 1500,
        depth: 1,
    },
];

/// A program with its options.
struct Contender {
    program: OsString,
    options: &'static [&'static str],
}

/// The result of one measurement.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    /// Of the backend's time on a processor, in microseconds.
    cpu_per_frame: f64,
}

fn main() {
    let contenders = contenders();
    println!("frames to a peer and back, by a frontend without a guest");
    for row in &ROWS {
        let figures = |contender: &Contender| measure(contender, row);
        let round = |_| -> Vec<Figures> { contenders.iter().map(figures).collect() };
        let rounds: Vec<Vec<Figures>> = (0..ROUNDS).map(round).collect();
        report(row, &contenders, &rounds);
    }
    if dpdk::is_here() {
        [64, 1500].into_iter().for_each(by_dpdk);
    }
}

/// Frames of DPDK's, of that size, to `outboard-net` and its peer beside DPDK's own backend.
fn by_dpdk(size: u32) {
    let program = env!("CARGO_BIN_EXE_outboard-net");
    let round = |_| {
        let (ours, cpu) = dpdk::through_outboard(program, size);
        (ours, cpu, dpdk::through_net_vhost(size))
    };
    let rounds: Vec<(f64, f64, f64)> = (0..DPDK_ROUNDS).map(round).collect();
    let of = |field: fn(&(f64, f64, f64)) -> f64| median(rounds.iter().map(field));
    println!(
        "frames of {size} bytes, from DPDK's net_virtio_user and back: {:.0} a second by way of \
         outboard-net, {:.2} µs of CPU each; {:.0} by net_vhost; ratio {:.3}",
        of(|round| round.0),
        of(|round| round.1),
        of(|round| round.2),
        of(|round| round.0 / round.2),
    );
}

fn contenders() -> Vec<Contender> {
    let ours = OsString::from(env!("CARGO_BIN_EXE_outboard-net"));
    let contender = |program: &OsString, options| Contender {
        program: program.clone(),
        options,
    };
    let mut contenders = vec![contender(&ours, &[]), contender(&ours, &["--poll-us=50"])];
    if let Some(other) = std::env::var_os("OUTBOARD_NET_OTHER") {
        contenders.push(contender(&other, &[]));
    }
    contenders
}

fn measure(contender: &Contender, row: &Row) -> Figures {
    let ends = ["--socket=socket", "--peer-listen=link"];
    let options = ends.iter().chain(contender.options);
    let options: Vec<String> = options.map(|&option| option.to_owned()).collect();
    let backend = Backend::start(&contender.program, &options);
    let mut driver = connect_within(DEADLINE, &backend.socket(), 2);
    let _peer = Peer::connect(&backend.file("link"));
    wait_for_link(&mut driver);
    driver.start();
    let mut load = Load::new(driver, row.size, row.depth);
    load.run(DURATION / 10);
    let (cpu, begin) = (backend.cpu(), Instant::now());
    let frames = load.run(DURATION);
    Figures {
        per_second: frames as f64 / begin.elapsed().as_secs_f64(),
        cpu_per_frame: (backend.cpu() - cpu).as_secs_f64() * 1e6 / frames as f64,
    }
}

/// Until the configuration space says that the link is up.
fn wait_for_link(driver: &mut Driver) {
    let end = Instant::now() + DEADLINE;
    let flags = VhostUserConfigFlags::empty();
    while Instant::now() < end {
        let (_, status) = driver.frontend.get_config(6, 2, flags, &[0; 2]).unwrap();
        if u32::from(status[0]) & VIRTIO_NET_S_LINK_UP != 0 {
            return;
        }
    }
    panic!("the peer is not there");
}

fn report(row: &Row, contenders: &[Contender], rounds: &[Vec<Figures>]) {
    println!("frames of {} bytes, {} in flight:", row.size, row.depth);
    for (which, contender) in contenders.iter().enumerate() {
        let of = |field: fn(&Figures) -> f64| median(rounds.iter().map(|all| field(&all[which])));
        let ratio = |field: fn(&Figures) -> f64| {
            median(rounds.iter().map(|all| field(&all[0]) / field(&all[which])))
        };
        println!(
            "  {} {}: {:.0} a second, {:.2} µs of CPU each",
            contender.program.display(),
            contender.options.join(" "),
            of(|figures| figures.per_second),
            of(|figures| figures.cpu_per_frame),
        );
        if which > 0 {
            println!(
                "    the first has {:.2} times as many, for {:.2} times the CPU each",
                ratio(|figures| figures.per_second),
                ratio(|figures| figures.cpu_per_frame),
            );
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
