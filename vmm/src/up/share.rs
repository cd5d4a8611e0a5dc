//! The devices of a guest of `outboard up`: directories of the host by virtiofsd, an image by
//! outboard-blk, a network by passt.

use std::fs;
use std::path::{Path, PathBuf};

use guest_init::job::{self, Network, Root};

use super::cli::UpArgs;
use super::error::Error;

/// Where distributions have it, other than in PATH.
const VIRTIOFSD: &str = "/usr/libexec/virtiofsd";
/// An overlay does not enter the host's mount points if it is told of them (EREMOTE).
/// File handles, which the daemon would use and few users may, are of no use here.
const OPTIONS: &str = "--no-announce-submounts --inode-file-handles=never";
/// Serves vsock.
const STREAMS: &str = "vhost-device-vsock";
/// Where it listens for streams of the host, in the machine's directory.
pub const STREAMS_SOCKET: &str = "vsock";
/// The first address that a guest may have.
const CID: u32 = 3;
const ADDRESS: &str = "10.0.2.15";
const PREFIX: u8 = 24;
const GATEWAY: &str = "10.0.2.2";
const NAMESERVER: &str = "10.0.2.3";

/// What a guest has of its host, and the device SPECs for it.
#[derive(Debug)]
pub struct Shares {
    pub devices: Vec<String>,
    pub root: Root,
    pub writable: Vec<PathBuf>,
    pub network: Option<Network>,
}

impl Shares {
    /// `machine` is the machine's directory, in which the guest can leave its answer.
    pub fn of(args: &UpArgs, machine: &Path) -> Result<Self, Error> {
        let path = absolute(&args.root)?;
        let (root, device) = if path.is_dir() {
            let device = directory(&path, job::ROOT_TAG, Access::ReadOnly)?;
            (Root::Directory, device)
        } else {
            (Root::Disk, image(&path)?)
        };
        let mut devices = vec![device, answers(&machine.join(job::ANSWER_TAG))?];
        let mut writable = Vec::new();
        for (place, path) in args.rw.iter().enumerate() {
            let path = absolute(path)?;
            let tag = job::writable_tag(place);
            devices.push(directory(&path, &tag, Access::ReadWrite)?);
            writable.push(path);
        }
        let (device, network) = args.net.then(network).transpose()?.unzip();
        devices.extend(device);
        Ok(Self {
            devices,
            root,
            writable,
            network,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    ReadWrite,
}

fn answers(path: &Path) -> Result<String, Error> {
    fs::create_dir(path).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })?;
    directory(path, job::ANSWER_TAG, Access::ReadWrite)
}

/// A device SPEC for a directory, which the guest mounts by its tag.
fn directory(path: &Path, tag: &str, access: Access) -> Result<String, Error> {
    let (program, path) = (virtiofsd()?, word(path)?);
    let mut command = format!("{program} --shared-dir {path} --tag {tag} {OPTIONS}");
    if access == Access::ReadOnly {
        command.push_str(" --readonly");
    }
    // Its walls need root. Without them the guest reaches what this user can.
    if !rustix::process::getuid().is_root() {
        command.push_str(" --sandbox none");
    }
    Ok(format!("fs,exec=\"{command}\""))
}

/// A device SPEC for an image that stays as it is.
fn image(path: &Path) -> Result<String, Error> {
    Ok(format!(
        "blk,exec=\"outboard-blk --readonly --path {}\"",
        word(path)?
    ))
}

/// A device SPEC for the network, and what the guest has to know of it.
fn network() -> Result<(String, Network), Error> {
    if !is_in_path("passt") {
        return Err(Error::NoProgram {
            name: "passt",
            advice: "install the package passt, of 2025 or later, or leave out --net",
        });
    }
    let spec = format!(
        "net,exec=\"passt --quiet --address {ADDRESS} --netmask {PREFIX} --gateway {GATEWAY} \
         --dns-forward {NAMESERVER}\""
    );
    let network = Network {
        address: ADDRESS.into(),
        prefix: PREFIX,
        gateway: GATEWAY.into(),
        nameserver: NAMESERVER.into(),
    };
    Ok((spec, network))
}

/// A device SPEC for streams between host and guest, by a socket in the machine's directory; nothing
/// where the program for it is not installed.
pub fn streams(machine: &Path) -> Result<Option<String>, Error> {
    if !is_in_path(STREAMS) {
        return Ok(None);
    }
    let path = machine.join(STREAMS_SOCKET);
    let path = word(&path)?;
    Ok(Some(format!(
        "vsock,exec=\"{STREAMS} --guest-cid {CID} --uds-path {path}\""
    )))
}

fn virtiofsd() -> Result<&'static str, Error> {
    if is_in_path("virtiofsd") {
        Ok("virtiofsd")
    } else if Path::new(VIRTIOFSD).is_file() {
        Ok(VIRTIOFSD)
    } else {
        Err(Error::NoProgram {
            name: "virtiofsd",
            advice: "install the package virtiofsd, or `cargo install virtiofsd`",
        })
    }
}

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// A path as a word of a command between double quotes.
fn word(path: &Path) -> Result<String, Error> {
    let refused = || Error::NotShared {
        path: path.to_owned(),
    };
    let text = path.to_str().filter(|text| !text.contains(['"', '\'']));
    let quoted = shlex::try_quote(text.ok_or_else(refused)?);
    quoted.map(String::from).map_err(|_| refused())
}

/// The path from the root, if it is there.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    path.canonicalize().map_err(|_| Error::NotShared {
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_one_word() {
        assert_eq!(word(Path::new("/a b")).unwrap(), "'/a b'");
        assert_eq!(word(Path::new("/a")).unwrap(), "/a");
        for path in ["/a\"b", "/a'b"] {
            assert!(word(Path::new(path)).is_err(), "{path}");
        }
    }
}
