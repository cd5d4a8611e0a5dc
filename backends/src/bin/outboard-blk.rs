//! `outboard-blk`: a disk image or block device as a vhost-user block device.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use backends::blk::args::BlkArgs;
use backends::blk::backend::BlkDevice;
use backends::blk::image::Image;
use backends::blk::request::Disk;
use backends::capabilities::{self, Capabilities};
use backends::cli;
use backends::log;
use backends::sandbox::{Program, calls};
use backends::shutdown::Shutdown;

const CAPABILITIES: Capabilities = Capabilities {
    device: "block",
    features: &["blk-file", "read-only"],
};

const SANDBOX: Program = Program {
    name: "outboard-blk",
    device: &[&calls::DISK, &calls::URING],
};

fn main() -> ExitCode {
    let cli: BlkArgs = capabilities::parse(CAPABILITIES);
    log::init();
    cli::exit("outboard-blk", run(&cli))
}

fn run(cli: &BlkArgs) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let image = Image::open_with(&cli.path, cli.options())?;
    tracing::info!(
        path = %cli.path.display(), sectors = image.sectors(), readonly = cli.readonly,
        queues = cli.queues, "serving an image"
    );
    let disk = Disk::new(image, &cli.serial());
    let meeting = cli.socket.open()?;
    cli.sandbox.raise(SANDBOX, meeting.files())?;
    let device = BlkDevice::new(disk, cli.queues, cli.enospc)
        .context("no eventfd for a queue")?
        .polling(Duration::from_micros(cli.poll_us))
        .kept_on(cli.cpus.clone());
    Ok(meeting.serve_device(device, shutdown)?)
}
