//! The host's side of a guest's network: a tap device and a web server.
//!
//! Whoever uses this may change the network: root, in a namespace of its own
//! (`tests/bed/run` sees to it).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::DEADLINE;
use crate::backend::{self, Backend};
use crate::program;

/// Addresses on the link between host and guest.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const PREFIX: u8 = 24;

/// The guest's address as the initramfs takes it.
pub fn guest_address() -> String {
    format!("{GUEST}/{PREFIX}")
}

/// `outboard-net` on the tap device `name`, which has the host's address and is up.
///
/// # Panics
/// The device cannot be made or configured.
pub fn outboard_net(dir: &Path, name: &str, options: &[&str]) -> Backend {
    let options = [&["--tap", name], options].concat();
    let backend = backend::outboard_net(dir, &options);
    address(name);
    backend
}

/// A tap device that has the host's address and is there also while no backend
/// is. Removed when dropped.
pub struct LastingTap {
    pub name: &'static str,
}

impl LastingTap {
    /// # Panics
    /// It cannot be made or configured.
    pub fn new(name: &'static str) -> Self {
        ip(&["tuntap", "add", name, "mode", "tap", "vnet_hdr"]);
        let tap = Self { name };
        address(name);
        tap
    }
}

impl Drop for LastingTap {
    fn drop(&mut self) {
        ip(&["link", "delete", self.name]);
    }
}

fn address(name: &str) {
    ip(&["address", "add", &format!("{HOST}/{PREFIX}"), "dev", name]);
    ip(&["link", "set", name, "up"]);
}

/// How many queues of a tap the driver has in use.
///
/// # Panics
/// There is no such interface.
pub fn queues(name: &str) -> usize {
    let queues = Path::new("/sys/class/net").join(name).join("queues");
    let queues = std::fs::read_dir(queues).expect("the queues of a tap");
    let names = queues.map(|queue| queue.expect("a queue").file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("rx-"))
        .count()
}

/// Runs `ip` with these arguments.
///
/// # Panics
/// It fails.
pub fn ip(arguments: &[&str]) {
    let output = Command::new(program::system("ip"))
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cannot run ip: {error}"));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "ip {}: {message}",
        arguments.join(" ")
    );
}

/// A web server that answers every GET with one body.
pub struct WebServer {
    address: SocketAddr,
}

impl WebServer {
    /// Serves `body` on the host's address until the process ends.
    pub fn start(body: Vec<u8>) -> io::Result<Self> {
        Self::start_at(HOST, body)
    }

    /// The same on another address.
    pub fn start_at(address: Ipv4Addr, body: Vec<u8>) -> io::Result<Self> {
        Self::listen(address, vec![body], |_| {})
    }

    /// Serves `parts`, one behind the other, and says before each which it is.
    pub fn start_in_parts(
        parts: Vec<Vec<u8>>,
        before: impl FnMut(usize) + Send + 'static,
    ) -> io::Result<Self> {
        Self::listen(HOST, parts, before)
    }

    fn listen(
        address: Ipv4Addr,
        parts: Vec<Vec<u8>>,
        mut before: impl FnMut(usize) + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((address, 0))?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is that client's business.
                let _ = answer(stream, &parts, &mut before);
            }
        });
        Ok(Self { address })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn url(&self) -> String {
        format!("http://{}/file", self.address)
    }
}

fn answer(
    mut stream: TcpStream,
    parts: &[Vec<u8>],
    before: &mut impl FnMut(usize),
) -> io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut request: Vec<u8> = Vec::new();
    let mut bytes = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let len = stream.read(&mut bytes)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        request.extend(&bytes[..len]);
    }
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n",
        parts.iter().map(Vec::len).sum::<usize>()
    )?;
    for (number, part) in parts.iter().enumerate() {
        before(number);
        stream.write_all(part)?;
    }
    Ok(())
}

/// For a passt whose guest is 10.0.2.15, and whose gateway, 10.0.2.2, is this machine's loopback
/// interface. As root it would become another user, who could not make its socket; and what it is
/// not told it takes from the default route, which a machine need not have.
pub const PASST_OPTIONS: [&str; 13] = [
    "--ipv4-only",
    "--runas",
    "0",
    "--interface",
    "lo",
    "--mac-addr",
    "02:00:00:00:77:fe",
    "--address",
    "10.0.2.15",
    "--netmask",
    "24",
    "--gateway",
    "10.0.2.2",
];

/// passt, which gives a guest the user's network.
pub struct Passt {
    _process: Backend,
    socket: String,
}

impl Passt {
    /// # Panics
    /// It does not start.
    pub fn start(dir: &Path) -> Self {
        let socket = dir.join("passt.sock");
        let mut command = Command::new(program::system("passt"));
        command.args(["--foreground", "--stderr"]);
        command.args(PASST_OPTIONS);
        command.arg("--socket").arg(&socket);
        Self {
            _process: Backend::start("passt", &mut command, socket.clone()),
            socket: socket.display().to_string(),
        }
    }

    /// Where outboard-net finds it.
    pub fn socket(&self) -> &str {
        &self.socket
    }
}

/// As the guest's `md5sum` prints it.
///
/// # Panics
/// There is no `md5sum`.
pub fn md5(bytes: &[u8]) -> String {
    let dir = crate::scratch();
    let path = dir.path().join("body");
    std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("cannot write: {error}"));
    let output = Command::new(program::system("md5sum")).arg(path).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run md5sum: {error}"));
    String::from_utf8_lossy(&output.stdout)[..32].to_owned()
}

/// Takes one connection on the host's address and closes it when `len` bytes have come.
pub fn take_upload(
    len: usize,
) -> io::Result<(SocketAddr, thread::JoinHandle<io::Result<Vec<u8>>>)> {
    let listener = TcpListener::bind((HOST, 0))?;
    let address = listener.local_addr()?;
    let upload = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut bytes = vec![0; len];
        stream.read_exact(&mut bytes)?;
        Ok(bytes)
    });
    Ok((address, upload))
}

/// Sends back what comes on `stream`, until it is closed.
pub fn echo(stream: UnixStream) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        // The other end may be killed at any moment.
        let _ = io::copy(&mut &stream, &mut &stream);
    })
}

/// Listens on `socket`, and on every connection sends back what comes.
///
/// # Panics
/// There cannot be such a socket.
pub fn echo_all(socket: &Path) {
    let listener = UnixListener::bind(socket)
        .unwrap_or_else(|error| panic!("cannot listen on {}: {error}", socket.display()));
    thread::spawn(move || listener.incoming().flatten().map(echo).count());
}

/// A network peer on a socket in `dir` that sends every frame, which is a length and
/// that many bytes, back as it came.
///
/// # Panics
/// There cannot be such a socket.
pub fn echo_peer(dir: &Path) -> PathBuf {
    let socket = dir.join("echo.sock");
    echo_all(&socket);
    socket
}

/// Has the guest's address be that of the interface `mac` behind the tap device `name`,
/// without asking: bare-metal guests answer nobody.
pub fn neighbour(name: &str, mac: &str) {
    ip(&[
        "neighbour",
        "replace",
        &GUEST.to_string(),
        "lladdr",
        mac,
        "dev",
        name,
    ]);
}

/// Sends back every datagram that comes to the returned port of the host's address, until
/// the process ends.
pub fn echo_datagrams() -> io::Result<u16> {
    let socket = UdpSocket::bind((HOST, 0))?;
    let port = socket.local_addr()?.port();
    thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut datagram) {
            // The guest may be gone.
            let _ = socket.send_to(&datagram[..len], from);
        }
    });
    Ok(port)
}

/// The frames of a capture file of `outboard-net`.
///
/// # Panics
/// It is none.
pub fn captured(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("no capture file: {error}"));
    // The format's nanosecond variant: a header of 24 bytes, then records behind 16.
    assert_eq!(bytes[..4], 0xa1b2_3c4d_u32.to_ne_bytes());
    let mut rest = &bytes[24..];
    let mut frames = vec![];
    while let Some((record, after)) = rest.split_first_chunk::<16>() {
        let [.., a, b, c, d] = *record;
        let (frame, after) = after.split_at(u32::from_ne_bytes([a, b, c, d]) as usize);
        frames.push(frame.to_vec());
        rest = after;
    }
    frames
}

/// `len` bytes that compress badly and are the same every time.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        // xorshift64 (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}
