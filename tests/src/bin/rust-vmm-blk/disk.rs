//! Requests of a block device (virtio 1.3, section 5.2.6), whatever the crate's release.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

const SECTOR: u64 = 512;
const HEADER: usize = 16;
const ID_LEN: usize = 20;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// What a request takes at least. Without, none would be in flight when tests look.
const SERVICE_TIME: Duration = Duration::from_micros(200);

/// A buffer of a chain.
pub struct Segment {
    pub address: u64,
    pub len: u32,
    pub writable: bool,
}

/// Guest memory.
pub trait Memory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()>;
    fn write(&self, address: u64, bytes: &[u8]) -> io::Result<()>;
}

pub struct Disk(File);

impl Disk {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Self(file))
    }

    /// Its capacity and how many queues there are.
    pub fn config(&self, queues: u16) -> Vec<u8> {
        let len = self.0.metadata().map_or(0, |metadata| metadata.len());
        let mut config = (len / SECTOR).to_le_bytes().to_vec();
        config.resize(60, 0);
        config[34..36].copy_from_slice(&queues.to_le_bytes());
        config
    }

    /// Serves a request; the number of bytes written for the driver.
    pub fn serve(&self, memory: &impl Memory, chain: &[Segment]) -> io::Result<u32> {
        let [header, data @ .., status] = chain else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut bytes = [0; HEADER];
        memory.read(header.address, &mut bytes)?;
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = bytes;
        let kind = u32::from_le_bytes([t0, t1, t2, t3]);
        let at = u64::from_le_bytes(sector).saturating_mul(SECTOR);
        let (answer, written) = match self.transfer(memory, kind, at, data) {
            Ok(written) => (OK, written),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => (UNSUPP, 0),
            Err(_) => (IOERR, 0),
        };
        thread::sleep(SERVICE_TIME);
        memory.write(status.address, &[answer])?;
        Ok(written + 1)
    }

    fn transfer(
        &self,
        memory: &impl Memory,
        kind: u32,
        mut at: u64,
        data: &[Segment],
    ) -> io::Result<u32> {
        match kind {
            IN | OUT | GET_ID => {}
            FLUSH => return self.0.sync_data().map(|()| 0),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        }
        let mut written = 0;
        for segment in data {
            let mut bytes = vec![0; segment.len as usize];
            match kind {
                OUT => {
                    memory.read(segment.address, &mut bytes)?;
                    self.0.write_all_at(&bytes, at)?;
                }
                IN => self.0.read_exact_at(&mut bytes, at)?,
                _ => bytes.truncate(ID_LEN),
            }
            if segment.writable {
                memory.write(segment.address, &bytes)?;
                written += bytes.len() as u32;
            }
            at += u64::from(segment.len);
        }
        Ok(written)
    }
}
