//! What a guest of `outboard up` is to do, as its first process reads it, and how it answers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the job lies in the initial RAM disk.
pub const FILE: &str = "job.json";
/// Directory of the modules in the initial RAM disk.
pub const MODULES: &str = "modules";
/// Mount tag of the host's files.
pub const ROOT_TAG: &str = "root";
/// Mount tag of the directory in which the guest leaves its answer.
pub const ANSWER_TAG: &str = "answer";
/// The file there: the command's exit status, in decimal.
pub const ANSWER: &str = "status";

/// Mount tag of a writable directory, by its place in [`Job::writable`].
pub fn writable_tag(place: usize) -> String {
    format!("rw{place}")
}

/// What the guest's root is, below a layer that is forgotten at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// A directory of the host, by virtiofs.
    Directory,
    /// A file system on the first disk, or on its first partition.
    Disk,
}

/// Size of the terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub columns: u16,
    pub rows: u16,
}

/// An address of the guest in the network that its backend makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub address: String,
    pub prefix: u8,
    pub gateway: String,
    pub nameserver: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub name: String,
    /// Names of files in [`MODULES`], in the order in which they can be loaded.
    pub modules: Vec<String>,
    pub root: Root,
    /// Directories of the host that the guest may change, each at the same path.
    pub writable: Vec<PathBuf>,
    /// Program and arguments. Without any, a shell.
    pub command: Vec<String>,
    /// Where the command starts, if the guest has it.
    pub directory: PathBuf,
    pub environment: BTreeMap<String, String>,
    /// Without a terminal, output is passed on as it is, and there is no input.
    pub window: Option<Window>,
    pub network: Option<Network>,
    /// The host may start further commands by streams of vsock (see [`crate::frame`]).
    pub has_shells: bool,
}
