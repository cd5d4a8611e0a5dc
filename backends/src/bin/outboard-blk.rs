//! `outboard-blk`: a disk image or block device as a vhost-user block device.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use backends::blk::backend::BlkDevice;
use backends::blk::full::Enospc;
use backends::blk::image::{Format, Image, Options};
use backends::blk::named::Allowed;
use backends::blk::request::{Disk, ID_SIZE};
use backends::capabilities::{self, Capabilities};
use backends::cli::{self, SocketArgs};
use backends::log;
use backends::processors::Processors;
use backends::shutdown::Shutdown;
use clap::Parser;

/// Serve a disk image or block device to a virtual machine over vhost-user.
///
/// With --socket it serves one frontend after another until SIGTERM, SIGINT or SIGHUP. Log detail: RUST_LOG=debug.
#[derive(Debug, Parser)]
#[command(name = "outboard-blk", version)]
struct Cli {
    #[command(flatten)]
    socket: SocketArgs,

    /// Image file or block device
    #[arg(long, value_name = "FILE", alias = "blk-file")]
    path: PathBuf,

    /// The image's format, which is never guessed: a guest could write another's header
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// Refuse writes; the image may then be shared with other readers
    #[arg(long, alias = "read-only")]
    readonly: bool,

    /// Open the backing files that a qcow2 image's header names, for reading
    #[arg(long)]
    backing_files: bool,

    /// Open the external data file that a qcow2 image's header names
    #[arg(long)]
    data_file: bool,

    /// Use the image though another process uses it, or it is mounted
    #[arg(long)]
    force: bool,

    /// Read and write a raw image past the host's page cache (O_DIRECT)
    #[arg(long)]
    direct: bool,

    /// Size of the disk's blocks, which a guest reads and writes whole [default: the device's own,
    /// and 512 for a file]
    #[arg(long, value_name = "512|4096", value_parser = parse_block_size)]
    block_size: Option<u32>,

    /// What becomes of a request for which the host has no space left
    #[arg(long, value_enum, default_value_t)]
    enospc: Enospc,

    /// Request queues, each with a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    queues: u16,

    /// Processors that the queues' threads are kept on, in turn, such as 0-3,6 [default: wherever
    /// the host's scheduler likes]
    #[arg(long, value_name = "LIST")]
    cpus: Option<Processors>,

    /// Microseconds at most that a queue's thread looks for the next request before it sleeps;
    /// 0: never. It does so only where requests follow each other that closely, and not where
    /// other threads want the processor
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(..=10_000))]
    poll_us: u64,

    /// Serial number that the guest sees, at most 20 bytes [default: the image's file name]
    #[arg(long, value_name = "STRING", alias = "id", value_parser = parse_serial)]
    serial: Option<String>,
}

fn parse_serial(text: &str) -> Result<String, String> {
    if text.len() <= ID_SIZE {
        Ok(text.to_owned())
    } else {
        Err(format!("{} bytes; at most {ID_SIZE} fit", text.len()))
    }
}

fn parse_block_size(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(size @ (512 | 4096)) => Ok(size),
        _ => Err("512 or 4096 can be had".to_owned()),
    }
}

/// How long an image may still be in use by a predecessor that was killed.
const PATIENCE: Duration = Duration::from_secs(2);

impl Cli {
    fn options(&self) -> Options {
        Options {
            read_only: self.readonly,
            format: self.format,
            allowed: Allowed {
                backing_files: self.backing_files,
                data_file: self.data_file,
            },
            direct: self.direct,
            block_size: self.block_size,
            patience: PATIENCE,
            force: self.force,
        }
    }

    /// The serial number asked for, or as much of the image's name as fits.
    fn serial(&self) -> String {
        self.serial.clone().unwrap_or_else(|| {
            let name = self.path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        })
    }
}

const CAPABILITIES: Capabilities = Capabilities {
    device: "block",
    features: &["blk-file", "read-only"],
};

fn main() -> ExitCode {
    let cli: Cli = capabilities::parse(CAPABILITIES);
    log::init();
    cli::exit("outboard-blk", run(&cli))
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let image = Image::open_with(&cli.path, cli.options())?;
    tracing::info!(
        path = %cli.path.display(), sectors = image.sectors(), readonly = cli.readonly,
        queues = cli.queues, "serving an image"
    );
    let disk = Disk::new(image, &cli.serial());
    let meeting = cli.socket.open()?;
    let device = BlkDevice::new(disk, cli.queues, cli.enospc)
        .context("no eventfd for a queue")?
        .polling(Duration::from_micros(cli.poll_us))
        .kept_on(cli.cpus.clone());
    Ok(meeting.serve_device(device, shutdown)?)
}
