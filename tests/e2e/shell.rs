//! `make shell` on a terminal: its console, and gdb from outside, by the line that it
//! prints. Not sent to the bed as other tests of Linux guests are: it goes there itself.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::process::{Process, Stream};
use tests::{DEADLINE, program};

/// How long until the guest's shell; two machines boot, perhaps one in the other.
const BOOT: Duration = Duration::from_secs(180);

#[test]
fn gdb_reaches_the_guest_by_the_line_that_is_printed() {
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("bed/run");
    let command = format!(
        "{} --tty {}",
        run.display(),
        program::own("shell").display()
    );
    // script gives it a terminal.
    let mut script = Command::new(program::system("script"));
    script.args(["-qec", &command, "/dev/null"]);
    let mut shell = Process::start("shell", &mut script);
    let line = shell.wait_for("gdb -ex 'target remote", BOOT).text;
    shell.wait_for("This is the guest.", BOOT);
    for _ in 0..2 {
        let session = gdb(&line, &["monitor lx version", "info threads", "detach"]);
        assert!(session.contains("Linux version 6."), "{session}");
        assert!(session.contains("(CPU 1, "), "{session}");
    }
    shell.send(b"echo $((6 * 7)) is typed\r");
    shell.wait_for("42 is typed", DEADLINE);
    shell.send(b"poweroff\r");
    shell.expect_exit(0, BOOT);
}

/// What `line` prints, a command that starts gdb, when gdb is to do these `commands`.
fn gdb(line: &str, commands: &[&str]) -> String {
    let commands: String = commands.iter().map(|it| format!(" -ex '{it}'")).collect();
    let mut shell = Command::new("sh");
    let options = "-nx -batch -iex 'set remotetimeout 30' 2>&1";
    shell.args(["-c", &format!("{} {options}{commands}", line.trim())]);
    let mut gdb = Process::start("gdb", &mut shell);
    gdb.expect_exit(0, BOOT);
    gdb.printed(Stream::Out)
}
