//! Reasons why an image is not served.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::SECTOR_SIZE;

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
    #[error("image {path} has {len} bytes; a disk needs at least one sector of {SECTOR_SIZE}")]
    TooSmall {
        /// The path asked for.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
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
