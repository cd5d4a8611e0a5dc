//! `outboard shell`: further commands in a machine that `outboard up` has started.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use guest_init::frame::{self, Kind, PORT, Request, Sender};
use signal_hook::consts::SIGWINCH;
use signal_hook::low_level::pipe;

use super::cli::ShellArgs;
use super::error::Error;
use super::share::STREAMS_SOCKET;
use super::{machines, surroundings};
use crate::console::terminal::RawMode;

/// Runs a command in the guest, and gives its exit status.
pub fn run(args: &ShellArgs) -> Result<u8, Error> {
    let (dir, description) = machines::find(&machines::base()?, args.name.as_deref())?;
    let name = dir.file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    if !description.has_shells {
        return Err(Error::NoShells { name });
    }
    let request = Request {
        command: args.command.clone(),
        directory: surroundings::directory(),
        environment: surroundings::environment(),
        window: surroundings::window(),
    };
    let stream = connect(&dir.join(STREAMS_SOCKET));
    let status = stream.and_then(|stream| converse(stream, &request));
    status.map_err(|source| Error::Guest { name, source })
}

/// The backend passes a stream on to a port of the guest when it is asked to, and says so.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path)?;
    // It reads the line at once, and so has to get it at once.
    stream.write_all(format!("CONNECT {PORT}\n").as_bytes())?;
    // Byte by byte: what comes behind this line is the guest's.
    let mut answer = String::new();
    BufReader::with_capacity(1, &stream).read_line(&mut answer)?;
    if answer.starts_with("OK ") {
        Ok(stream)
    } else {
        Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "the guest does not listen yet, or no more",
        ))
    }
}

fn converse(stream: UnixStream, request: &Request) -> io::Result<u8> {
    let guest = Sender::new(stream.try_clone()?);
    guest.send(Kind::Start, &serde_json::to_vec(request)?)?;
    // Back on every way out.
    let _raw = request.window.map(|_| RawMode::enter()).transpose()?;
    if request.window.is_some() {
        follow_size(guest.clone())?;
    }
    send_input(guest)?;
    loop {
        match frame::read(&stream)? {
            Some((Kind::Output, bytes)) => print(&mut io::stdout(), &bytes)?,
            Some((Kind::Error, bytes)) => print(&mut io::stderr(), &bytes)?,
            Some((Kind::Ended, status)) => return Ok(status.first().copied().unwrap_or(1)),
            Some(_) => {}
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn print(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// Ends with this process.
fn send_input(guest: Sender<UnixStream>) -> io::Result<()> {
    let send = move || {
        let mut buffer = vec![0; frame::MAX];
        while let Ok(length @ 1..) = io::stdin().read(&mut buffer) {
            if guest.send(Kind::Input, &buffer[..length]).is_err() {
                return;
            }
        }
        // A guest that has gone has nothing to be told.
        let _ = guest.send(Kind::Closed, &[]);
    };
    thread::Builder::new().name("input".into()).spawn(send)?;
    Ok(())
}

/// Tells the guest of each new size of the terminal.
fn follow_size(guest: Sender<UnixStream>) -> io::Result<()> {
    let (mut changes, on_change) = UnixStream::pair()?;
    pipe::register(SIGWINCH, on_change)?;
    let follow = move || {
        let mut signals = [0; 16];
        while let Ok(1..) = changes.read(&mut signals) {
            let window = surroundings::window().map(|window| serde_json::to_vec(&window));
            if let Some(Ok(window)) = window {
                // The reader notices that the guest has gone.
                let _ = guest.send(Kind::Resize, &window);
            }
        }
    };
    thread::Builder::new().name("size".into()).spawn(follow)?;
    Ok(())
}
