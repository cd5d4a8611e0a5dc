//! Serves `outboard shell`: each stream of the host's is one command.

use std::io::{self, Read, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};

use guest_init::frame::{self, Kind, PORT, Request, Sender};
use guest_init::job::Window;
use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

use crate::children;
use crate::command::{self, NOT_STARTED};
use crate::pty::Pty;

type Host = Sender<VsockStream>;

/// Serves them as long as the guest runs.
pub fn start() -> io::Result<()> {
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, PORT)?;
    thread::Builder::new()
        .name("shells".into())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                let serve = move || {
                    // A host that has hung up needs no word.
                    let _ = serve(&stream);
                };
                let _ = thread::Builder::new().name("shell".into()).spawn(serve);
            }
        })?;
    Ok(())
}

fn serve(stream: &VsockStream) -> io::Result<()> {
    let Some((Kind::Start, request)) = frame::read(stream)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let request: Request = serde_json::from_slice(&request)?;
    let command = command::command(&request.command, &request.directory, &request.environment);
    let program = command.get_program().to_owned();
    let host = Sender::new(stream.try_clone()?);
    let started = match request.window {
        Some(window) => on_terminal(command, window, stream, &host),
        None => on_pipes(command, stream, &host),
    };
    match started {
        Ok(running) => running.finish(&host),
        Err(error) => {
            let text = format!("cannot start {program:?}: {error}\n");
            host.send(Kind::Error, text.as_bytes())?;
            host.send(Kind::Ended, &[NOT_STARTED])
        }
    }
}

/// A command whose output is on its way.
struct Running {
    status: Receiver<u8>,
    outputs: Vec<JoinHandle<()>>,
}

impl Running {
    /// The host hears of the end behind all output.
    fn finish(self, host: &Host) -> io::Result<()> {
        let status = self.status.recv().unwrap_or(NOT_STARTED);
        for output in self.outputs {
            let _ = output.join();
        }
        host.send(Kind::Ended, &[status])
    }
}

/// The command keeps a descriptor of its terminal, and is dropped here.
fn on_terminal(
    mut command: Command,
    window: Window,
    stream: &VsockStream,
    host: &Host,
) -> io::Result<Running> {
    let mut pty = Pty::open(window)?;
    let (_, status) = pty.spawn(&mut command)?;
    drop(command);
    let output = forward(pty.master()?, host.clone(), Kind::Output)?;
    let input = stream.try_clone()?;
    thread::Builder::new().name("input".into()).spawn(move || {
        while let Ok(Some((kind, bytes))) = frame::read(&input) {
            let done = match kind {
                Kind::Input => pty.write_all(&bytes),
                Kind::Resize => resize(&pty, &bytes),
                _ => Ok(()),
            };
            if done.is_err() {
                return;
            }
        }
    })?;
    let outputs = vec![output];
    Ok(Running { status, outputs })
}

fn resize(pty: &Pty, bytes: &[u8]) -> io::Result<()> {
    pty.resize(serde_json::from_slice(bytes)?)
}

fn on_pipes(mut command: Command, stream: &VsockStream, host: &Host) -> io::Result<Running> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (mut child, status) = children::spawn(&mut command)?;
    let mut outputs = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        outputs.push(forward(stdout, host.clone(), Kind::Output)?);
    }
    if let Some(stderr) = child.stderr.take() {
        outputs.push(forward(stderr, host.clone(), Kind::Error)?);
    }
    let input = stream.try_clone()?;
    let mut stdin = child.stdin.take();
    thread::Builder::new().name("input".into()).spawn(move || {
        while let Ok(Some((kind, bytes))) = frame::read(&input) {
            let is_refused = |pipe: &mut ChildStdin| pipe.write_all(&bytes).is_err();
            match kind {
                Kind::Closed => stdin = None,
                Kind::Input if stdin.as_mut().is_some_and(is_refused) => stdin = None,
                _ => {}
            }
        }
    })?;
    Ok(Running { status, outputs })
}

/// Passes on what comes, until its end.
fn forward(
    mut from: impl Read + Send + 'static,
    to: Host,
    kind: Kind,
) -> io::Result<JoinHandle<()>> {
    let forward = move || {
        let mut buffer = vec![0; frame::MAX];
        // A terminal that nobody has open any more is an error.
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if to.send(kind, &buffer[..length]).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("output".into()).spawn(forward)
}
