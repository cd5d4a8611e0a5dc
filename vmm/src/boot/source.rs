//! The files that a machine boots, at first and again after each reset.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use devices::virtio::GuestMemory;

use super::{Config, Entry, Error, Files, load};
use crate::memory;

/// The files of a configuration, as they were when they were read.
pub struct Source {
    config: Config,
    /// Size of guest RAM in bytes.
    ram: u64,
    files: Mutex<Arc<Files>>,
    reloads: AtomicU64,
}

/// Why the current files are not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error(transparent)]
    Boot(#[from] Error),
    #[error("cannot try them")]
    Memory(#[from] memory::Error),
}

impl Source {
    /// Reads the files of `config`, for a machine with so much RAM.
    pub fn read(config: Config, ram: u64) -> Result<Self, Error> {
        let files = Files::read(&config, ram)?;
        Ok(Self {
            config,
            ram,
            files: Mutex::new(Arc::new(files)),
            reloads: AtomicU64::new(0),
        })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Copies the files that a reboot needs. A boot need not wait for it.
    pub fn keep(&self) -> Result<(), Error> {
        let files = self.files().clone();
        files.keep()
    }

    /// Puts everything into guest RAM as a boot loader does.
    pub fn load(&self, memory: &GuestMemory) -> Result<Entry, Error> {
        let files = self.files().clone();
        load(memory, &self.config, &files)
    }

    /// Reads the files again, for all boots from now on. If they cannot be booted it
    /// stays as it is.
    pub fn reload(&self) -> Result<(), ReloadError> {
        let files = Files::read(&self.config, self.ram)?;
        let trial = memory::allocate(self.ram)?;
        load(&trial, &self.config, &files)?;
        files.keep()?;
        *self.files() = Arc::new(files);
        self.reloads.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// How often there have been other files.
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::SeqCst)
    }

    fn files(&self) -> std::sync::MutexGuard<'_, Arc<Files>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
