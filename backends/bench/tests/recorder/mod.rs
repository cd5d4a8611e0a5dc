//! `outboard record` and `outboard replay`, in the process of a test.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use workbench::record::cli::{self as record, RecordArgs};
use workbench::replay::cli::{self as replay, ReplayArgs};

#[derive(Parser)]
struct Record {
    #[command(flatten)]
    args: RecordArgs,
}

#[derive(Parser)]
struct Replay {
    #[command(flatten)]
    args: ReplayArgs,
}

/// A connection to who begins to listen there.
fn connect(path: &Path) -> UnixStream {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        thread::yield_now();
    }
}

/// Records what `drive` does with a backend of this device type, and returns the file.
pub fn record(
    dir: &Path,
    device_type: &str,
    backend: &Path,
    drive: impl FnOnce(UnixStream),
) -> PathBuf {
    let (listen, file) = (dir.join("recorded.sock"), dir.join("recording"));
    let words = [
        "record".as_ref(),
        "--type".as_ref(),
        device_type.as_ref(),
        "--listen".as_ref(),
        listen.as_os_str(),
        "--connect".as_ref(),
        backend.as_os_str(),
        "--output".as_ref(),
        file.as_os_str(),
    ];
    let args = Record::try_parse_from(words).unwrap().args;
    let (mut quit, theirs) = UnixStream::pair().unwrap();
    let tell: workbench::record::Tell = Arc::new(|text| panic!("{text}"));
    let proxy = thread::spawn(move || record::run(&args, theirs.as_fd(), &tell));
    drive(connect(&listen));
    quit.write_all(b"x").unwrap();
    proxy.join().unwrap().unwrap();
    file
}

/// Replays it to a backend that listens there; says whether that was the same, and what was told.
pub fn replay(file: &Path, socket: &Path, options: &[&str]) -> (bool, String) {
    let words = ["replay".as_ref(), file.as_os_str(), "--socket".as_ref()];
    let words = words.into_iter().chain([socket.as_os_str()]);
    let words = words.chain(options.iter().map(AsRef::as_ref));
    replay::replay(&Replay::try_parse_from(words).unwrap().args).unwrap()
}
