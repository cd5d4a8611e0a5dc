//! A real session, as the picture in the README shows it: a stock Linux on an
//! out-of-process disk, gdb without any file, the disk's backend restarted. Prints an SVG:
//!
//! `tests/bed/run target/release/session >docs/session.svg`

mod svg;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use svg::Line;
use tests::process::{Process, Stream};
use tests::{DEADLINE, backend, gdb, guest, program, scratch};

/// How long the guest may take to its first request, and gdb for its symbols.
const STEP: Duration = Duration::from_secs(180);
const RUN: [&str; 4] = [
    "outboard run --kernel vmlinuz --initrd initramfs.gz --cpus 2 \\",
    "    --cmdline 'console=ttyS0 quiet outboard.run=disk outboard.mib=8 outboard.again=1000000' \\",
    "    --device blk,exec='outboard-blk --path disk.img',features=-packed \\",
    "    --gdb unix:gdb.sock --api api.sock",
];
const GDB: &str = "gdb -q -ex 'target remote gdb.sock'";
const TYPED: [&str; 9] = [
    "monitor lx version",
    "info threads",
    "tbreak vfs_read",
    "continue",
    "backtrace 2",
    "monitor trap kick blk0",
    "continue",
    "monitor vq blk0 0",
    "detach",
];
const RESTART: &str = "outboard ctl --api api.sock restart blk0";

fn main() -> Result<()> {
    let dir = scratch();
    let dir = dir.path();
    let linux = guest::stock_linux();
    symlink(&linux.bzimage, dir.join("vmlinuz")).context("cannot link the kernel")?;
    symlink(&linux.initramfs, dir.join("initramfs.gz")).context("cannot link the initramfs")?;
    let image = backend::ext4_image(dir, 32);
    std::fs::rename(image, dir.join("disk.img")).context("cannot rename the disk")?;

    let mut lines = vec![Line::Comment(
        "a stock Debian kernel; the disk is a process of its own",
    )];
    lines.extend(shown(&RUN));
    let mut machine = Process::start("outboard", shell(dir, &RUN.join("\n")).env("NO_COLOR", "1"));
    machine.wait_for("disk=again", STEP);

    lines.push(Line::Blank);
    lines.push(Line::Comment(
        "from another terminal, at any time; gdb has no file of that kernel",
    ));
    lines.extend(shown(&[GDB]));
    lines.extend(debug(dir)?);
    lines.push(Line::Blank);
    lines.push(Line::Comment(
        "another process for the disk: the guest sees a pause, no error",
    ));
    lines.extend(shown(&[RESTART]));
    lines.extend(run(dir, RESTART)?.lines().map(output));

    machine.signal(libc::SIGTERM);
    machine.expect_exit(0, DEADLINE);
    ensure!(
        !machine.printed(Stream::Out).contains("I/O error"),
        "the guest saw an error"
    );
    print!(
        "{}",
        svg::render("Outboard: gdb on a running guest", &lines)
    );
    Ok(())
}

/// A command line as it is shown, with a prompt.
fn shown(command: &[&str]) -> Vec<Line> {
    let prompts = ["$ "].into_iter().chain(std::iter::repeat("  "));
    let lines = prompts.zip(command);
    lines
        .map(|(prompt, text)| Line::Typed(prompt, (*text).to_owned()))
        .collect()
}

fn output(line: &str) -> Line {
    Line::Output(line.to_owned())
}

/// The gdb session, with what is typed shown before what comes of it. The options that are
/// not shown are for a gdb without a terminal, on a machine that may be emulated.
fn debug(dir: &Path) -> Result<Vec<Line>> {
    let mut command = format!("{GDB} -nx -batch -iex 'set width 0' -iex 'set remotetimeout 30'");
    for shown in gdb::shown(&TYPED) {
        command += &format!(" -ex '{shown}'");
    }
    let printed = run(dir, &command)?;
    let lines = printed.lines().filter(|line| !is_progress(line));
    Ok(lines
        .map(|line| match line.strip_prefix(gdb::PROMPT) {
            Some(typed) => Line::Typed(gdb::PROMPT, typed.to_owned()),
            None => output(line),
        })
        .collect())
}

/// What gdb says of itself while it works.
fn is_progress(line: &str) -> bool {
    line.is_empty() || line.starts_with("Reading /") || line.starts_with("warning: File transfers")
}

/// Runs a command line in `dir` to its end and returns what it printed.
fn run(dir: &Path, command: &str) -> Result<String> {
    let mut process = Process::start(command, &mut shell(dir, &format!("{command} 2>&1")));
    process.expect_exit(0, STEP);
    Ok(process.printed(Stream::Out))
}

/// A shell in `dir` that finds the programs of this workspace.
fn shell(dir: &Path, command: &str) -> Command {
    let programs = program::own("outboard");
    let programs = programs.parent().unwrap_or(Path::new("."));
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("exec {command}")])
        .current_dir(dir);
    shell.env("PATH", format!("{}:{path}", programs.display()));
    shell
}
