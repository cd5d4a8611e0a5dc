use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::*;
use crate::shutdown::Shutdown;

const DEADLINE: Duration = Duration::from_secs(10);

fn open(target: &str) -> Terminal {
    let quit = Shutdown::new().unwrap().handle();
    Terminal::open(&target.parse().unwrap(), quit).unwrap()
}

/// Reads until there is something.
fn input(terminal: &Terminal) -> Vec<u8> {
    let end = Instant::now() + DEADLINE;
    loop {
        match terminal.read(100).unwrap() {
            Input::Bytes(bytes) => return bytes,
            Input::Nothing => assert!(Instant::now() < end, "no input"),
        }
        std::thread::yield_now();
    }
}

#[test]
fn targets_parse_strictly() {
    assert_eq!("file=/tmp/a=b".parse(), Ok(Target::File("/tmp/a=b".into())));
    for wrong in ["", "tty", "file", "file=", "unix=", "pty=x", "stdio="] {
        assert!(wrong.parse::<Target>().is_err(), "{wrong:?}");
    }
}

#[test]
fn a_pty_carries_bytes_as_they_are_and_has_a_size() {
    let terminal = open("pty");
    let Lines::Files { output, .. } = &terminal.lines else {
        panic!("a pty is a pair of files");
    };
    let name = ptsname(output, Vec::new()).unwrap();
    let mut client = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    assert!(terminal.write(b"out\n").unwrap());
    let mut bytes = [0; 4];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"out\n");
    client.write_all(b"in\r").unwrap();
    assert_eq!(input(&terminal), b"in\r");
    let mut size = tcgetwinsize(&client).unwrap();
    (size.ws_col, size.ws_row) = (132, 43);
    rustix::termios::tcsetwinsize(&client, size).unwrap();
    assert_eq!(terminal.size(), Some((132, 43)));
    // With nobody reading, output is lost and the writer lives.
    let mut lost = 0;
    for _ in 0..1000 {
        lost += u32::from(!terminal.write(&[b'x'; 100]).unwrap());
    }
    assert!(lost > 500, "{lost}");
}

#[test]
fn socket_clients_are_served_one_after_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let terminal = open(&format!("unix={}", path.display()));
    assert!(terminal.write(b"to nobody").unwrap());
    for round in [b"one", b"two"] {
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.write_all(round).unwrap();
        assert_eq!(input(&terminal), round);
        assert!(terminal.write(b"answer").unwrap());
        let mut bytes = [0; 6];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"answer");
        // What it has said before it left is not lost.
        client.write_all(b"bye").unwrap();
        drop(client);
        assert_eq!(input(&terminal), b"bye");
        assert_eq!(terminal.read(100).unwrap(), Input::Nothing);
    }
    assert_eq!(terminal.size(), None);
}

#[test]
fn a_file_takes_output_and_gives_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let terminal = open(&format!("file={}", path.display()));
    assert!(terminal.write(b"a line\n").unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), b"a line\n");
    assert_eq!(terminal.read(1).unwrap(), Input::Nothing);
    assert_eq!(terminal.input_fd(), None);
}
