//! The command line of `outboard-blk`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::blk::full::Enospc;
use crate::blk::image::{Format, Options};
use crate::blk::named::Allowed;
use crate::blk::request::ID_SIZE;
use crate::cli::SocketArgs;
use crate::processors::Processors;
use crate::sandbox::SandboxArgs;

/// Serve a disk image or block device to a virtual machine over vhost-user.
///
/// With --socket and --listen-fd it serves one frontend after another until SIGTERM, SIGINT or SIGHUP. Log detail: RUST_LOG=debug.
#[derive(Debug, Parser)]
#[command(name = "outboard-blk", version)]
pub struct BlkArgs {
    #[command(flatten)]
    pub socket: SocketArgs,

    /// Image file or block device
    #[arg(long, value_name = "FILE", alias = "blk-file")]
    pub path: PathBuf,

    /// The image's format, which is never guessed: a guest could write another's header
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// Refuse writes; the image may then be shared with other readers
    #[arg(long, alias = "read-only")]
    pub readonly: bool,

    /// Open the backing files that a qcow2 image's header names, for reading
    #[arg(long)]
    pub backing_files: bool,

    /// Open the external data file that a qcow2 image's header names
    #[arg(long)]
    pub data_file: bool,

    /// Use the image though another process uses it, or it is mounted
    #[arg(long)]
    pub force: bool,

    /// Read and write a raw image past the host's page cache (O_DIRECT)
    #[arg(long)]
    pub direct: bool,

    /// Size of the disk's blocks, which a guest reads and writes whole [default: the device's own,
    /// and 512 for a file]
    #[arg(long, value_name = "512|4096", value_parser = parse_block_size)]
    pub block_size: Option<u32>,

    /// What becomes of a request for which the host has no space left
    #[arg(long, value_enum, default_value_t)]
    pub enospc: Enospc,

    /// Request queues, each with a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub queues: u16,

    /// Processors that the queues' threads are kept on, in turn, such as 0-3,6 [default: wherever
    /// the host's scheduler likes]
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<Processors>,

    /// Microseconds at most that a queue's thread looks for the next request before it sleeps;
    /// 0: never. It does so only where requests follow each other that closely, and not where
    /// other threads want the processor
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(..=10_000))]
    pub poll_us: u64,

    /// Serial number that the guest sees, at most 20 bytes [default: the image's file name]
    #[arg(long, value_name = "STRING", alias = "id", value_parser = parse_serial)]
    pub serial: Option<String>,

    #[command(flatten)]
    pub sandbox: SandboxArgs,
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

impl BlkArgs {
    /// How the image is opened.
    pub fn options(&self) -> Options {
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
    pub fn serial(&self) -> String {
        self.serial.clone().unwrap_or_else(|| {
            let name = self.path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        })
    }
}
