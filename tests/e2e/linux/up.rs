//! `outboard up` and `outboard gdb`, as a kernel developer uses them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::process::{Process, Stream};
use tests::{backend, cache, guest, program, scratch};

use crate::machine::BOOT;

/// A directory for machines with names, and a kernel.
struct Desk {
    dir: tempfile::TempDir,
    kernel: PathBuf,
}

impl Desk {
    fn new() -> Self {
        Self {
            dir: scratch(),
            kernel: guest::stock_linux().bzimage.canonicalize().unwrap(),
        }
    }

    fn outboard(&self, command: &str) -> Command {
        let mut outboard = Command::new(program::own("outboard"));
        outboard.env("XDG_RUNTIME_DIR", self.dir.path());
        outboard.env("PATH", path()).arg(command);
        outboard
    }

    /// Runs to its end, with nothing on standard input.
    fn up(&self, kernel: &Path, words: &[&str], status: i32) -> Process {
        let mut command = self.outboard("up");
        let mut up = Process::start("up", command.arg(kernel).args(words));
        up.close_stdin();
        up.expect_exit(status, BOOT);
        up
    }
}

/// This one, and where virtiofsd and vhost-device-vsock are.
fn path() -> OsString {
    let programs = [
        "virtiofsd/bin/virtiofsd",
        "vhost-device/bin/vhost-device-vsock",
    ];
    let programs = programs.map(program::cached);
    let dirs = programs
        .iter()
        .map(|path| path.parent().unwrap().to_owned());
    let before = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(dirs.chain(std::env::split_paths(&before))).unwrap()
}

/// What Debian's kernel would be in the tree where it was built.
fn tree(dir: &Path) -> PathBuf {
    let installed = cache().join("debian-kernel/lib/modules");
    let installed = fs::read_dir(installed).unwrap().next().unwrap().unwrap();
    let tree = dir.join("linux tree");
    for dir in ["arch/x86/boot", "include/config"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
    }
    let bzimage = guest::stock_linux().bzimage;
    fs::copy(bzimage, tree.join("arch/x86/boot/bzImage")).unwrap();
    let release = installed.file_name().into_string().unwrap();
    fs::write(tree.join("include/config/kernel.release"), release + "\n").unwrap();
    for file in ["modules.order", "modules.builtin", "kernel"] {
        symlink(installed.path().join(file), tree.join(file)).unwrap();
    }
    tree
}

#[test]
fn up_runs_a_command_on_this_machines_files() {
    let desk = Desk::new();
    let here = std::env::current_dir().unwrap();
    let lost = here.join("target-lost-by-the-guest");
    let script = format!(
        "pwd; id -u; echo lost >{}; echo 'one line'; exit 7",
        lost.display()
    );
    let up = desk.up(&desk.kernel, &["--", "sh", "-c", &script], 7);
    let expected = format!("{}\n0\none line\n", here.display());
    assert_eq!(up.printed(Stream::Out), expected, "{}", up.transcript());
    assert!(!lost.exists(), "the guest changed its root");
}

#[test]
fn up_finds_a_tree_and_gives_back_what_is_written_there() {
    let desk = Desk::new();
    let tree = tree(desk.dir.path());
    let kept = desk.dir.path().join("kept here");
    fs::create_dir(&kept).unwrap();
    let script = format!("cd '{}' && uname -r >release && kill -9 $$", kept.display());
    let words = ["--rw", kept.to_str().unwrap(), "--", "sh", "-c", &script];
    desk.up(&tree, &words, 128 + 9);
    let release = fs::read_to_string(kept.join("release")).unwrap();
    let expected = fs::read_to_string(tree.join("include/config/kernel.release")).unwrap();
    assert_eq!(release, expected);
    let machines = fs::read_dir(desk.dir.path().join("outboard")).unwrap();
    assert_eq!(machines.count(), 0, "the machine has left its directory");
}

#[test]
fn up_boots_an_image_and_tells_of_a_panic() {
    let desk = Desk::new();
    let contents = desk.dir.path().join("contents");
    fs::create_dir_all(contents.join("bin")).unwrap();
    fs::copy(program::system("busybox"), contents.join("bin/busybox")).unwrap();
    let image = backend::ext4_image_of(desk.dir.path(), 16, &contents);
    let image = image.to_str().unwrap();
    let panic = "/bin/busybox ls /bin; /bin/busybox echo c >/proc/sysrq-trigger";
    let words = ["--root", image, "--", "/bin/busybox", "sh", "-c", panic];
    let up = desk.up(&desk.kernel, &words, 3);
    let printed = up.printed(Stream::Out);
    assert!(printed.starts_with("busybox\n"), "{}", up.transcript());
    assert!(
        printed.contains("sysrq triggered crash"),
        "{}",
        up.transcript()
    );
}

#[test]
fn gdb_attaches_by_the_machines_name() {
    let desk = Desk::new();
    let words = ["--name", "mine", "--gdb-wait=kernel", "--", "echo", "done"];
    let mut command = desk.outboard("up");
    let mut up = Process::start("up", command.arg(&desk.kernel).args(words));
    up.close_stdin();
    let mut command = desk.outboard("gdb");
    let commands = [
        "break vfs_mkdir",
        "continue",
        "backtrace 1",
        "delete",
        "detach",
    ];
    command.args(["mine", "--", "-batch", "-nx"]);
    command.args(commands.iter().flat_map(|it| ["-ex", it]));
    tests::process::wait_until("the machine's gdb socket", BOOT, || {
        desk.dir.path().join("outboard/mine/gdb").exists()
    });
    let mut gdb = Process::start("gdb", &mut command);
    gdb.expect_exit(0, BOOT);
    let session = gdb.printed(Stream::Out);
    assert!(
        session.contains("#0  0x") && session.contains("in vfs_mkdir"),
        "{}",
        gdb.transcript()
    );
    up.expect_exit(0, BOOT);
    assert_eq!(up.printed(Stream::Out), "done\n");
    let mut command = desk.outboard("gdb");
    let mut gdb = Process::start("gdb", command.arg("mine"));
    gdb.expect_exit(1, BOOT);
    let said = gdb.printed(Stream::Err);
    assert!(said.contains("no machine mine runs"), "{said}");
}

/// A terminal of 40 columns, in which Ctrl-C ends what runs in the foreground.
#[test]
fn up_gives_a_terminal_to_a_shell() {
    let desk = Desk::new();
    let up = desk.outboard("up");
    let line = format!(
        "stty columns 40 rows 20; {} up '{}' -- sh -c 'echo ready; exec sh -i'",
        up.get_program().to_str().unwrap(),
        desk.kernel.display()
    );
    let mut script = Command::new(program::system("script"));
    script
        .args(["-qec", &line, "/dev/null"])
        .env("SHELL", "/bin/sh");
    script
        .env("PATH", path())
        .env("XDG_RUNTIME_DIR", desk.dir.path());
    let mut shell = Process::start("script", &mut script);
    // What is typed earlier may be lost when the guest's driver starts the port.
    shell.wait_for("ready", BOOT);
    shell.send(b"stty size; echo $((6 * 7)) is typed\r");
    shell.wait_for("20 40", BOOT);
    shell.wait_for("42 is typed", BOOT);
    shell.send(b"echo $((1 + 1)) sleeps; sleep 1000\r");
    shell.wait_for("2 sleeps", BOOT);
    shell.send(b"\x03");
    shell.send(b"exit 5\r");
    shell.expect_exit(5, BOOT);
}

/// Beside the machine's own command: input that ends, both outputs, the status; and a terminal.
#[test]
fn further_shells_come_by_the_machines_name() {
    let desk = Desk::new();
    let words = [
        "--name",
        "mine",
        "--",
        "sh",
        "-c",
        "echo ready; until [ -e /end ]; do sleep 1; done",
    ];
    let mut command = desk.outboard("up");
    let mut up = Process::start("up", command.arg(&desk.kernel).args(words));
    up.close_stdin();
    up.wait_for("ready", BOOT);
    let script = "tr a-z A-Z; pwd; echo to error >&2; exit 6";
    let mut command = desk.outboard("shell");
    let mut shell = Process::start("shell", command.args(["mine", "--", "sh", "-c", script]));
    shell.send(b"typed\n");
    shell.close_stdin();
    shell.expect_exit(6, BOOT);
    let here = std::env::current_dir().unwrap();
    assert_eq!(
        shell.printed(Stream::Out),
        format!("TYPED\n{}\n", here.display())
    );
    assert_eq!(shell.printed(Stream::Err), "to error\n");

    let line = format!(
        "stty columns 30 rows 10; {} shell -- sh -i",
        program::own("outboard").display()
    );
    let mut script = Command::new(program::system("script"));
    script.args(["-qec", &line, "/dev/null"]);
    script.env("XDG_RUNTIME_DIR", desk.dir.path());
    let mut terminal = Process::start("script", &mut script);
    terminal.send(b"stty size; tty; echo $((6 * 7)) is typed\r");
    terminal.wait_for("10 30", BOOT);
    terminal.wait_for("/dev/pts/0", BOOT);
    terminal.wait_for("42 is typed", BOOT);
    terminal.send(b"touch /end; nothing-of-this-name; exit\r");
    terminal.expect_exit(127, BOOT);
    up.expect_exit(0, BOOT);
}
