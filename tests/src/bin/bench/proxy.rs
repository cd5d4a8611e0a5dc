//! Between gdb and a stub: counts gdb's packets and notes the time of its marks.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// gdb command that makes a mark: a packet that no stub knows.
pub const MARK: &str = "maintenance packet qOutboardMark";
const MARK_PACKET: &[u8] = b"$qOutboardMark#";

/// Where a mark stands in the traffic.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub at: Instant,
    /// Packets that gdb had sent by then, marks among them.
    pub packets: u64,
}

/// Serves one gdb.
pub struct Proxy {
    socket: PathBuf,
    thread: JoinHandle<std::io::Result<Vec<Mark>>>,
}

impl Proxy {
    pub fn start(socket: PathBuf, stub: &Path) -> Result<Self> {
        let listener = UnixListener::bind(&socket)?;
        let to_stub = UnixStream::connect(stub).context("the stub does not answer")?;
        let thread = thread::spawn(move || relay(&listener, to_stub));
        Ok(Self { socket, thread })
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The marks, once gdb has left.
    pub fn marks(self) -> Result<Vec<Mark>> {
        match self.thread.join() {
            Ok(marks) => Ok(marks?),
            Err(_) => bail!("the proxy panicked"),
        }
    }
}

fn relay(listener: &UnixListener, mut to_stub: UnixStream) -> std::io::Result<Vec<Mark>> {
    let (mut gdb, _) = listener.accept()?;
    let (mut from_stub, mut to_gdb) = (to_stub.try_clone()?, gdb.try_clone()?);
    let back = thread::spawn(move || std::io::copy(&mut from_stub, &mut to_gdb));
    let mut marks = Vec::new();
    let mut packets = 0;
    let mut buffer = [0; 1 << 16];
    loop {
        let count = gdb.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        let data = &buffer[..count];
        // In a packet's body a dollar sign is escaped (gdb manual, "Overview").
        packets += data.iter().filter(|&&byte| byte == b'$').count() as u64;
        // gdb sends one packet at a time, each in one write.
        if data
            .windows(MARK_PACKET.len())
            .any(|part| part == MARK_PACKET)
        {
            let at = Instant::now();
            marks.push(Mark { at, packets });
        }
        to_stub.write_all(data)?;
    }
    to_stub.shutdown(Shutdown::Both)?;
    let _ = back.join();
    Ok(marks)
}
