//! The block device (virtio 1.3, section 5.2).
//!
//! * [`image`] is the file or block device that holds the data, [`geometry`] its shape,
//!   [`qcow2`] one of its formats, [`named`] the files that the header of such an image names,
//!   [`lock`] who else uses them, [`error`] why an image is not served;
//! * [`resize`] notices that an image has got another size;
//! * [`full`] holds requests for which the host has no space left;
//! * [`config`] describes it to the driver, which sets the mode of its [`cache`];
//! * [`request`] makes a command of a descriptor chain, and a status byte of its result;
//! * [`queue`] has commands executed: at once where the page cache can, else as a [`job`] of the
//!   kernel's ([`uring`]) or of threads ([`pool`]), or past the page cache ([`direct`]);
//! * [`backend`] connects it to rings, [`args`] says what of it users choose.

pub mod args;
pub mod backend;
pub mod cache;
pub mod config;
pub mod direct;
pub mod error;
pub mod full;
pub mod geometry;
pub mod image;
pub mod job;
pub mod lock;
pub mod named;
pub mod pool;
pub mod qcow2;
pub mod queue;
pub mod request;
pub mod resize;
mod stability;
pub mod uring;

/// Size of a sector, the unit of capacity and of request positions, whatever the block size.
pub const SECTOR_SIZE: u64 = 512;

/// Largest DISCARD in one segment, in sectors (2 GiB).
pub const MAX_DISCARD_SECTORS: u32 = 1 << 22;

/// Largest WRITE_ZEROES in one segment, in sectors (64 MiB): on a file system that cannot zero a
/// range the zeroes are written out.
pub const MAX_WRITE_ZEROES_SECTORS: u32 = 1 << 17;

/// Most segments of one DISCARD or WRITE_ZEROES.
pub const MAX_RANGES: u32 = 32;

/// Largest ring.
pub const MAX_QUEUE_SIZE: u16 = 1024;

/// Most data buffers in one request. With header and status it fits a ring of 128 entries even
/// without indirect descriptors.
pub const SEG_MAX: u32 = 126;
