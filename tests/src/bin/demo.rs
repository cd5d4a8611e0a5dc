//! The whole of Outboard in a minute: a stock Linux on an out-of-process disk and
//! network, with a real gdb attached while it runs, which has no file of that kernel.
//!
//! `make demo` builds what it needs and starts it where KVM can run Linux.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::network::{self, WebServer, guest_address};
use tests::process::Stream;
use tests::vmm::{Running, Vmm};
use tests::{backend, gdb, guest, scratch};

/// How long one step may take; many times what the slowest host needs.
const STEP: Duration = Duration::from_secs(180);
const DISK_MIB: u64 = 64;
const FILE_SIZE: usize = 1 << 20;
const BREAKPOINT: &str = "uptime_proc_show";

fn main() -> Result<()> {
    let dir = scratch();
    step("making an ext4 image and starting outboard-blk on it");
    let image = backend::ext4_image(dir.path(), 2 * DISK_MIB);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    step("starting outboard-net on a tap device, and a web server");
    let net = network::outboard_net(dir.path(), "otap0", &[]);
    let file = network::noise(FILE_SIZE);
    let file_sum = network::md5(&file);
    let server = WebServer::start(file).context("cannot start the web server")?;

    step("booting Debian's Linux on 2 vCPUs");
    let linux = guest::stock_linux();
    let actions = format!(
        "outboard.run=line,disk,net,tick outboard.mib={DISK_MIB} outboard.ip={} outboard.url={}",
        guest_address(),
        server.url()
    );
    let started = Instant::now();
    let mut vmm = Vmm::new(&linux.bzimage)
        .arg("--initrd", &linux.initramfs)
        .arg("--memory", "512M")
        .cpus(2)
        .cmdline(&format!("console=ttyS0 quiet panic=-1 {actions}"))
        .device("blk", &disk.socket)
        .device("net", &net.socket)
        .gdb(dir.path())
        .start();
    let init = vmm.process.wait_for("init: reached", STEP).at - started;
    vmm.process.wait_for("line=waiting", STEP);
    vmm.report_status();
    let probed = Counters::of(&vmm);
    vmm.process.send(b"go\n");

    step(&format!(
        "the guest writes and re-reads {DISK_MIB} MiB on /dev/vda"
    ));
    vmm.process.wait_for("disk=ok", STEP);
    step("the guest fetches a file over HTTP");
    vmm.process.wait_for("net=ok", STEP);
    vmm.process.wait_for("tick=started", STEP);
    vmm.report_status();
    let worked = Counters::of(&vmm);

    step("gdb attaches to the running kernel, and gets its types out of its memory");
    let session = debug(&vmm)?;

    step("the guest powers off");
    vmm.process.send(b"\n");
    vmm.process.expect_exit(0, STEP);
    let kicks = [kicks(disk), kicks(net)];
    let results = Results {
        kicks,
        init,
        probed,
        worked,
        file_sum,
        session,
    };
    results.print(&vmm)
}

fn step(what: &str) {
    eprintln!("demo: {what}");
}

/// How many kicks woke the backend, which says so when its rings stop.
fn kicks(mut backend: backend::Backend) -> u64 {
    backend.process.signal(libc::SIGTERM);
    backend.process.wait(STEP);
    let log = backend.process.printed(Stream::Err);
    let counts = log.split("kicks=").skip(1);
    counts
        .filter_map(|count| count.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// One gdb session on the guest that runs: what a user would type. gdb is given no file.
fn debug(vmm: &Running) -> Result<String> {
    let breakpoint = format!("break {BREAKPOINT}");
    let commands = [
        "monitor lx version",
        "info threads",
        &breakpoint,
        "continue",
        "print *m",
        "backtrace 10",
        "print init_task.comm",
        "stepi",
        "x/i $pc",
        "delete",
        "monitor info devices",
        "detach",
    ];
    let commands = gdb::shown(&commands);
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let output = gdb::run_with_types(vmm.gdb_socket(), &commands).context("gdb got no types")?;
    let typed = output.find(gdb::PROMPT).unwrap_or(0);
    Ok(output[typed..].to_owned())
}

/// Counters of the VMM at one moment.
struct Counters {
    mmio_exits: u64,
    disk_interrupts: u64,
    net_interrupts: u64,
}

impl Counters {
    fn of(vmm: &Running) -> Self {
        Self {
            mmio_exits: vmm.exits("MMIO_READ") + vmm.exits("MMIO_WRITE"),
            disk_interrupts: vmm.device_counter("blk0", "interrupts"),
            net_interrupts: vmm.device_counter("net0", "interrupts"),
        }
    }
}

struct Results {
    /// Disk and net.
    kicks: [u64; 2],
    init: Duration,
    probed: Counters,
    worked: Counters,
    file_sum: String,
    session: String,
}

impl Results {
    fn print(&self, vmm: &Running) -> Result<()> {
        let written = vmm.guest_value("disk-written");
        let read = vmm.guest_value("disk-read");
        let fetched = vmm.guest_value("net-sum");
        ensure!(
            written == read,
            "the disk gave back other data: {written} became {read}"
        );
        ensure!(
            fetched == self.file_sum,
            "HTTP gave other data: {} became {fetched}",
            self.file_sum
        );
        ensure!(
            self.session.contains(BREAKPOINT),
            "gdb saw no breakpoint:\n{}",
            self.session
        );

        println!("\n{:-^72}", " what gdb saw ");
        print!("{}", self.session);
        println!("{:-^72}", " results ");
        let row = |name: &str, value: String| println!("{name:<34} {value}");
        let first = vmm.first_instruction_ms();
        row(
            "first guest instruction",
            format!("{first:.1} ms after the start of the process"),
        );
        row("init reached", format!("{:.2} s", self.init.as_secs_f64()));
        row("exits by reason", exits(vmm)?);
        row(
            "MMIO exits in the driver's probe",
            self.probed.mmio_exits.to_string(),
        );
        let later = self.worked.mmio_exits - self.probed.mmio_exits;
        row("MMIO exits during the workload", later.to_string());
        let interrupts = |after: u64, before: u64| (after - before).to_string();
        let [disk, net] = self.kicks;
        row(
            "kicks that woke a backend",
            format!("disk {disk}, net {net}"),
        );
        row(
            "disk interrupts",
            interrupts(self.worked.disk_interrupts, self.probed.disk_interrupts),
        );
        row(
            "net interrupts",
            interrupts(self.worked.net_interrupts, self.probed.net_interrupts),
        );
        row(
            "disk checksum, written and read",
            format!("{written} {read}"),
        );
        row(
            "HTTP checksum, served and fetched",
            format!("{} {fetched}", self.file_sum),
        );
        row("the VMM's exit status", "0".into());
        Ok(())
    }
}

fn exits(vmm: &Running) -> Result<String> {
    let messages = vmm.messages();
    let line = messages
        .lines()
        .rev()
        .find(|line| line.starts_with("exits "));
    Ok(line.context("the VMM printed no exits")?["exits ".len()..].to_owned())
}
