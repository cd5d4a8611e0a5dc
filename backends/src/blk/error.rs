//! Reasons why an image is not served.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why an image cannot be used. The user's doing, or the host's.
#[derive(Debug, Error)]
pub enum ImageError {
    /// It cannot be opened.
    #[error("image {path} cannot be opened for {mode}")]
    Open {
        /// The path asked for.
        path: PathBuf,
        /// Reading, or reading and writing.
        mode: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe, a character device.
    #[error("image {0} is neither a regular file nor a block device")]
    Kind(PathBuf),
    /// Its size or geometry cannot be found out.
    #[error("image {path} cannot be examined")]
    Examine {
        /// The path asked for.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing to offer.
    #[error("image {path} has {len} bytes; a disk needs at least one block of {block}")]
    TooSmall {
        /// The path asked for.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// The disk's block size in bytes.
        block: u64,
    },
    /// Smaller blocks than the device can read and write.
    #[error("image {path} has blocks of {least} bytes; blocks of {asked} cannot be had of it")]
    BlockSize {
        /// The path asked for.
        path: PathBuf,
        /// The size asked for, in bytes.
        asked: u32,
        /// The device's own.
        least: u32,
    },
    /// Its contents are not valid.
    #[error("image {path} cannot be used as qcow2")]
    Qcow2 {
        /// The path asked for.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be accessed past the page cache.
    #[error("image {path} cannot be used with --direct; leave that out")]
    Direct {
        /// The path asked for.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Two writers would destroy it.
    #[error(
        "image {0} is in use by another process, or mounted; stop that, or use it --readonly in \
         both (--force overrides)"
    )]
    InUse(PathBuf),
}
