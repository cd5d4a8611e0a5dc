//! Starting backends: this project's and others'.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Process, wait_until};
use crate::{DEADLINE, program};

/// A running backend that listens on `socket`.
pub struct Backend {
    pub process: Process,
    pub socket: PathBuf,
}

impl Backend {
    /// Starts `command` and waits until it listens on `socket`.
    ///
    /// # Panics
    /// It ends, or does not listen in time.
    pub fn start(name: &str, command: &mut Command, socket: PathBuf) -> Self {
        let process = Process::start(name, command);
        wait_until(
            &format!("{name} listens\n{}", process.transcript()),
            DEADLINE,
            || is_listening(&socket),
        );
        Self { process, socket }
    }
}

/// A socket that is bound and listens. Not by connecting: some backends serve
/// one connection and end.
fn is_listening(socket: &Path) -> bool {
    let Ok(table) = std::fs::read_to_string("/proc/net/unix") else {
        return false;
    };
    // Num RefCount Protocol Flags Type St Inode Path; flag 0x10000: listening.
    table.lines().any(|line| {
        let mut fields = line.split_whitespace();
        let listens = fields.nth(3) == Some("00010000");
        listens && fields.nth(3).map(Path::new) == Some(socket)
    })
}

/// Whether a client could connect now.
pub fn accepts(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// A disk image of `mib` MiB of zeros.
pub fn disk_image(dir: &Path, mib: u64) -> PathBuf {
    let path = dir.join("disk.img");
    let file =
        File::create(&path).unwrap_or_else(|error| panic!("cannot create an image: {error}"));
    file.set_len(mib << 20)
        .unwrap_or_else(|error| panic!("cannot size an image: {error}"));
    path
}

/// `outboard-blk` on `image`.
pub fn outboard_blk(dir: &Path, image: &Path, options: &[&str]) -> Backend {
    let mut arguments = vec!["--path".as_ref(), image.as_os_str()];
    arguments.extend(options.iter().map(OsStr::new));
    own(dir, "blk", &arguments)
}

/// `outboard-rng` that gives what `source` does.
pub fn outboard_rng(dir: &Path, source: &Path) -> Backend {
    own(dir, "rng", &["--source".as_ref(), source.as_os_str()])
}

/// `outboard-console` on a Unix socket; also returns the socket's path.
pub fn outboard_console(dir: &Path) -> (Backend, PathBuf) {
    let console = dir.join("console");
    let target = format!("unix={}", console.display());
    let backend = own(dir, "console", &["--terminal".as_ref(), target.as_ref()]);
    // It is made behind the other socket.
    wait_until("the console listens", DEADLINE, || is_listening(&console));
    (backend, console)
}

/// `outboard-net` with these options.
pub fn outboard_net(dir: &Path, options: &[&str]) -> Backend {
    let options: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
    own(dir, "net", &options)
}

/// The example of docs/backends.md.
pub fn dice(dir: &Path, seed: u64) -> Backend {
    start_own(dir, "dice", &["--seed".as_ref(), seed.to_string().as_ref()])
}

/// The kit's example of shared memory, on the pages of `file`.
pub fn board(dir: &Path, file: &Path) -> Backend {
    start_own(dir, "board", &["--file".as_ref(), file.as_ref()])
}

/// `outboard-TYPE` with these options.
fn own(dir: &Path, device_type: &str, options: &[&OsStr]) -> Backend {
    start_own(dir, &format!("outboard-{device_type}"), options)
}

/// A program of this workspace on a socket of its own.
fn start_own(dir: &Path, name: &str, options: &[&OsStr]) -> Backend {
    let socket = dir.join(name).with_extension("sock");
    let mut command = Command::new(program::own(name));
    command.env("RUST_LOG", "debug").env("NO_COLOR", "1");
    command.arg("--socket").arg(&socket).args(options);
    Backend::start(name, &mut command, socket)
}

/// A disk on a release of the crate `vhost-user-backend`.
pub fn rust_vmm_blk(dir: &Path, image: &Path, release: &str) -> Backend {
    let options = [
        "--release".as_ref(),
        release.as_ref(),
        "--path".as_ref(),
        image.as_os_str(),
    ];
    start_own(dir, "rust-vmm-blk", &options)
}

/// QEMU's storage daemon on `image`, as an independent backend.
pub fn qemu_storage_daemon(dir: &Path, image: &Path) -> Backend {
    let socket = dir.join("qsd.sock");
    let mut command = Command::new(program::system("qemu-storage-daemon"));
    command
        .arg("--blockdev")
        .arg(format!(
            "driver=file,node-name=file,filename={}",
            image.display()
        ))
        .args([
            "--blockdev",
            "driver=raw,node-name=disk,file=file",
            "--export",
        ])
        .arg(format!(
            "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={},\
             writable=on,num-queues=4",
            socket.display()
        ))
        .arg("--chardev")
        .arg(format!(
            "socket,id=monitor,path={},server=on,wait=off",
            qmp_socket(dir).display()
        ))
        .args(["--monitor", "chardev=monitor"]);
    Backend::start("qemu-storage-daemon", &mut command, socket)
}

fn qmp_socket(dir: &Path) -> PathBuf {
    dir.join("qmp.sock")
}

/// Has the storage daemon that was started in `dir` make its disk of another size, in
/// bytes.
///
/// # Panics
/// It refuses.
pub fn qemu_storage_daemon_resize(dir: &Path, size: u64) {
    let resize = serde_json::json!({
        "execute": "block_resize",
        "arguments": { "node-name": "disk", "size": size },
    });
    let talk = || {
        let mut stream = UnixStream::connect(qmp_socket(dir))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let mut last = lines.next().transpose()?;
        for request in [serde_json::json!({ "execute": "qmp_capabilities" }), resize] {
            writeln!(stream, "{request}")?;
            last = lines.next().transpose()?;
        }
        std::io::Result::Ok(last)
    };
    let answer = talk().unwrap_or_else(|error| panic!("no QMP: {error}"));
    let answer = answer.unwrap_or_default();
    assert!(answer.contains("return"), "block_resize: {answer}");
}

/// `vhost-device-TYPE`, as an independent backend, told of its `socket` by
/// `option`, with these further options.
///
/// # Panics
/// `make setup` has not built it.
pub fn vhost_device(device_type: &str, option: &str, socket: &Path, options: &[&str]) -> Backend {
    let name = format!("vhost-device-{device_type}");
    let program = program::cached(&format!("vhost-device/bin/{name}"));
    let mut command = Command::new(program);
    command.arg(option).arg(socket).args(options);
    // Those that can serve several guests number their sockets.
    let numbered = socket.with_file_name(format!("{}0", file_name(socket)));
    let listens = match device_type {
        "console" | "input" | "rng" => numbered,
        _ => socket.to_owned(),
    };
    Backend::start(&name, &mut command, listens)
}

/// `vhost-device-vsock` of a guest with CID 42. When the guest connects to a port of
/// the host, the backend connects to `streams`_PORT.
pub fn vhost_device_vsock(dir: &Path, streams: &Path) -> Backend {
    let options = ["--uds-path", streams.to_str().unwrap(), "--guest-cid", "42"];
    vhost_device("vsock", "--socket", &dir.join("vsock.sock"), &options)
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// virtiofsd, which gives `shared` to a guest.
///
/// # Panics
/// `make setup` has not built it.
pub fn virtiofsd(dir: &Path, shared: &Path, options: &[&str]) -> Backend {
    let socket = dir.join("virtiofsd.sock");
    let mut command = Command::new(program::cached("virtiofsd/bin/virtiofsd"));
    // A sandbox is namespaces, and who runs tests may have no right to make any.
    command.args(["--sandbox", "none"]).args(options);
    command.arg("--shared-dir").arg(shared);
    command.arg("--socket-path").arg(&socket);
    Backend::start("virtiofsd", &mut command, socket)
}

/// An ext4 image of `mib` MiB.
///
/// # Panics
/// mkfs fails.
pub fn ext4_image(dir: &Path, mib: u64) -> PathBuf {
    ext4_image_with(dir, mib, &[])
}

/// The same, with the files of `contents` in it.
///
/// # Panics
/// mkfs fails.
pub fn ext4_image_of(dir: &Path, mib: u64, contents: &Path) -> PathBuf {
    ext4_image_with(dir, mib, &["-d".as_ref(), contents.as_os_str()])
}

fn ext4_image_with(dir: &Path, mib: u64, options: &[&OsStr]) -> PathBuf {
    let path = disk_image(dir, mib);
    let output = Command::new(program::system("mkfs.ext4"))
        .args(["-q", "-F"])
        .args(options)
        .arg(&path)
        .output()
        .unwrap_or_else(|error| panic!("cannot run mkfs.ext4: {error}"));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "mkfs.ext4: {message}");
    path
}
