//! `--print-config`: a command line as a configuration file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use tests::process::{Process, Stream};
use tests::{DEADLINE, backend, guest, program, scratch};

use crate::supervise::outboard_blk;

fn outboard(status: i32, arguments: &[&OsStr]) -> String {
    let mut command = Command::new(program::own("outboard"));
    let mut outboard = Process::start("outboard", command.arg("run").args(arguments));
    outboard.close_stdin();
    outboard.expect_exit(status, DEADLINE);
    match status {
        0 => outboard.printed(Stream::Out),
        _ => outboard.printed(Stream::Err),
    }
}

#[test]
fn a_printed_configuration_runs_the_same_machine() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 1);
    let spec = format!("blk,exec=\"{}\",id=a disk", outboard_blk(&image, ""));
    let file = dir.path().join("machine.toml");
    std::fs::write(&file, "memory = \"64M\"\ncpus = 2\n").unwrap();
    let kernel = guest::bare("virtio");
    let printed = outboard(
        0,
        &[
            "--print-config".as_ref(),
            "--config".as_ref(),
            file.as_ref(),
            "--kernel".as_ref(),
            kernel.as_ref(),
            "--cmdline".as_ref(),
            "sectors=64".as_ref(),
            "--cpus".as_ref(),
            "1".as_ref(),
            "--device".as_ref(),
            spec.as_ref(),
        ],
    );
    assert!(printed.contains("memory = \"64M\"\n"), "{printed}");
    assert!(printed.contains("cpus = 1\n"), "{printed}");
    std::fs::write(&file, &printed).unwrap();
    let arguments = ["--config".as_ref(), file.as_ref()];
    let again = outboard(0, &[&["--print-config".as_ref()], &arguments[..]].concat());
    assert_eq!(again, printed);
    let console = outboard(0, &arguments);
    assert!(console.contains("blk: ok"), "{console}");
}

#[test]
fn what_cannot_be_run_or_written_is_not_printed() {
    let refused = |arguments: &[&OsStr]| outboard(2, arguments);
    let wrong = ["--print-config", "--kernel", "x", "--rings"].map(OsStr::new);
    assert!(refused(&wrong).contains("--rings is a part of --trace"));
    let path = OsStr::from_bytes(b"\xff");
    let arguments = ["--print-config".as_ref(), "--kernel".as_ref(), path];
    let said = refused(&arguments);
    assert!(said.contains("cannot be written as TOML"), "{said}");
}
