//! The first process of a guest of `outboard up`: it mounts the root, runs one command, and
//! powers the guest off. It is of no use outside one.

mod children;
mod command;
mod files;
mod modules;
mod network;
mod pty;
mod shells;
mod terminal;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use guest_init::job::{self, Job};
use rustix::system::{RebootCommand, reboot};

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("outboard-init is the first process of a guest: see outboard up --help");
        return ExitCode::from(2);
    }
    if let Err(error) = carry_out() {
        eprintln!("outboard-init: {error:#}");
    }
    end()
}

fn carry_out() -> anyhow::Result<()> {
    let job = read_job()?;
    files::mount_devices().context("cannot mount the device file system")?;
    terminal::take(job.window).context("cannot open the console")?;
    // A guest without a name of its own is as good.
    let _ = rustix::system::sethostname(job.name.as_bytes());
    modules::load(&job.modules)?;
    files::mount_root(&job)?;
    if let Some(network) = &job.network {
        network::start(network).context("cannot start the network")?;
    }
    if job.has_shells {
        shells::start().context("cannot listen for further shells")?;
    }
    let status = command::run(&job)?;
    let answer = Path::new(files::ANSWER_DIR).join(job::ANSWER);
    fs::write(&answer, format!("{status}\n")).context("cannot tell the command's exit status")
}

fn read_job() -> anyhow::Result<Job> {
    let path = Path::new("/").join(job::FILE);
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not a job", path.display()))
}

/// Powers off. A first process that returned would be a kernel panic.
fn end() -> ! {
    // The kernel announces this as an emergency, in the middle of the command's output.
    let _ = fs::write("/proc/sys/kernel/printk", "0");
    rustix::fs::sync();
    let _ = reboot(RebootCommand::PowerOff);
    loop {
        let _ = rustix::thread::nanosleep(&rustix::time::Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        });
    }
}
