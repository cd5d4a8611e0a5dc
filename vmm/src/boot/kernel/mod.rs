//! Finding the format of a kernel file, and loading it.
//!
//! The checks before give the user one clear line instead of a guest that dies at once.

mod bzimage;
mod clear;
mod elf;
mod error;
mod fields;
mod image;
mod looks;
mod parts;

use std::io;
use std::path::Path;

use devices::virtio::GuestMemory;

use super::kept::{self, Kept};

pub use error::Error;
use image::Image;
pub use image::Kernel;

/// Finds the parts that are needed of the kernel at `path`, for a machine with so much RAM.
pub fn read(path: &Path, ram: u64) -> Result<Kept, Error> {
    Kept::parts(path, ram, parts::needed).map_err(|error| {
        let path = path.to_owned();
        match error {
            kept::Error::Open(source) if source.kind() == io::ErrorKind::IsADirectory => {
                Error::Directory { path }
            }
            kept::Error::Open(source) => Error::Open { path, source },
            kept::Error::Read(source) => Error::Read { path, source },
            kept::Error::TooLarge(limit) | kept::Error::Endless(limit) => {
                Error::Endless { path, limit }
            }
        }
    })
}

/// Loads a kernel.
pub fn load(memory: &GuestMemory, kernel: &Kept) -> Result<Kernel, Error> {
    let mut image = Image::open(kernel, memory)?;
    let start = image.prefix(0, looks::LEN)?;
    if start.starts_with(b"\x7fELF") {
        image.load_elf(memory)
    } else if image.is_bzimage()? {
        image.load_bzimage(memory)
    } else {
        Err(Error::Unknown {
            path: image.path().to_owned(),
            looks: looks::like(&start),
        })
    }
}

#[cfg(test)]
#[path = "kernel_test.rs"]
pub mod tests;
