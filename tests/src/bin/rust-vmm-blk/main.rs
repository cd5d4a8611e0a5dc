//! A disk on other people's crate: `vhost-user-backend` of several releases, used as Cloud
//! Hypervisor's `vhost_user_block` uses it. A thread a queue; the crate ends one over an
//! error and says nothing.

mod disk;
mod releases;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use disk::Disk;

fn main() -> Result<()> {
    let (mut release, mut socket, mut path) = (None, None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let value = arguments.next().context("an option has a value")?;
        match option.as_str() {
            "--release" => release = Some(value),
            "--socket" => socket = Some(PathBuf::from(value)),
            "--path" => path = Some(PathBuf::from(value)),
            _ => bail!("the options are --release, --socket and --path, not {option}"),
        }
    }
    let release = release.context("--release is missing")?;
    let serve = releases::find(&release).with_context(|| format!("no release {release}"))?;
    let disk = Disk::open(&path.context("--path is missing")?)?;
    serve(disk, &socket.context("--socket is missing")?)
}
