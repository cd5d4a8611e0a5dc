//! The control API against its description: schemathesis makes requests of it, right and wrong
//! ones, and compares the answers.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use tests::process::Process;
use tests::vmm::Vmm;
use tests::{backend, guest, program, repetitions, scratch};

use crate::control::{socket, status};
use crate::supervise::outboard_blk;

/// Requests that are made up for each operation. `make soak` asks for more.
const EXAMPLES: u64 = 5;
const EXAMPLES_VARIABLE: &str = "OUTBOARD_API_EXAMPLES";
/// For each hundred requests of an operation.
const PATIENCE: Duration = Duration::from_secs(120);

/// Not asked: one that has no end, one that writes where it is told to, one that ends the
/// machine, and one that this guest dies of.
const UNASKED: [&str; 4] = ["events", "dump", "shutdown", "nmi"];

/// A device that there is; others are asked for too.
const CONFIGURATION: &str = "[parameters]\n\"path.id\" = \"disk\"\n";

/// schemathesis speaks TCP: gives each connection to `port` one to the machine.
fn relay(socket: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            // The machine may have ended.
            let Ok(machine) = UnixStream::connect(&socket) else {
                return;
            };
            join(client.unwrap(), machine);
        }
    });
    port
}

/// Passes on what each says, in two threads, until both have finished.
fn join(mut client: TcpStream, mut machine: UnixStream) {
    let (mut from, mut to) = (client.try_clone().unwrap(), machine.try_clone().unwrap());
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
    });
    thread::spawn(move || {
        let _ = io::copy(&mut machine, &mut client);
        let _ = client.shutdown(Shutdown::Both);
    });
}

#[test]
fn answers_are_as_they_are_described() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 1);
    let spec = format!("blk,exec=\"{}\",id=disk", outboard_blk(&image, ""));
    let vmm = Vmm::new(guest::bare("misbehave"))
        .cmdline("case=halt-forever")
        .arg("--device", spec)
        .arg("--api", socket(dir.path()))
        .gdb(dir.path())
        .start();
    vmm.process.wait_for("halt-forever", tests::DEADLINE);
    let examples = repetitions(EXAMPLES_VARIABLE, EXAMPLES);
    let url = format!("http://127.0.0.1:{}", relay(socket(dir.path())));
    let mut schemathesis = Command::new(program::cached("api-tools/python"));
    std::fs::write(dir.path().join("schemathesis.toml"), CONFIGURATION).unwrap();
    schemathesis.current_dir(dir.path());
    schemathesis.args(["-m", "schemathesis.cli", "run"]);
    schemathesis.arg(format!("{url}/v1/openapi.json"));
    schemathesis.args(["--url", &url, "--max-examples", &examples.to_string()]);
    schemathesis.args(["--phases", "examples,coverage,fuzzing", "--checks", "all"]);
    for operation in UNASKED {
        schemathesis.args(["--exclude-operation-id", operation]);
    }
    let mut schemathesis = Process::start("schemathesis", &mut schemathesis);
    schemathesis.expect_exit(0, PATIENCE * u32::try_from(examples.div_ceil(100)).unwrap());
    // And the machine is as well as it was.
    let status = status(dir.path());
    assert_eq!(status["devices"][0]["id"], "disk", "{status}");
}
