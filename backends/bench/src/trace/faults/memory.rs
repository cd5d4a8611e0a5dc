//! Guest memory as a backend has been told of it, which a fault can make smaller.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost::vhost_user::message::{
    FrontendReq as F, VhostUserMemoryRegion, VhostUserSingleMemoryRegion,
};
use vhost_user_wire::payload::MemoryTable;
use vhost_user_wire::{Connection, Deadline, HEADER_SIZE, Header, Payload, Raw, WireError};

use crate::interpose::Place;

/// A backend that reads nothing is not told: signals wait meanwhile.
const LIMIT: Duration = Duration::from_secs(1);

/// What the backend knows, and the way to it.
#[derive(Debug)]
pub struct ToldMemory {
    backend: Connection,
    regions: Vec<(Place, File)>,
    /// The frontend adds and removes single regions.
    by_region: bool,
}

impl ToldMemory {
    pub fn new(backend: &UnixStream) -> io::Result<Self> {
        Ok(Self {
            backend: Connection::to_either(backend.try_clone()?),
            regions: Vec::new(),
            by_region: false,
        })
    }

    /// Learns from a message to the backend. One that cannot be read, the backend refuses.
    pub fn learn(&mut self, raw: &Raw) -> io::Result<()> {
        let code = raw.header().map(|header| F::try_from(header.request));
        let payload = raw.bytes.get(HEADER_SIZE..).unwrap_or_default();
        match code {
            Some(Ok(F::SET_MEM_TABLE)) => {
                let table = MemoryTable::decode(payload).unwrap_or_default();
                let places = table.0.iter().map(Place::from).zip(&raw.files);
                let regions = places.map(|(place, file)| Ok((place, file.try_clone()?)));
                self.regions = regions.collect::<io::Result<_>>()?;
                self.by_region = false;
            }
            Some(Ok(code @ (F::ADD_MEM_REG | F::REM_MEM_REG))) => {
                let Ok(region) = VhostUserSingleMemoryRegion::decode(payload) else {
                    return Ok(());
                };
                let place = Place::from(&region);
                match raw.files.first() {
                    Some(file) if code == F::ADD_MEM_REG => {
                        self.regions.push((place, file.try_clone()?));
                    }
                    _ => self.regions.retain(|(known, _)| known.user != place.user),
                }
                self.by_region = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells the backend that the region with this number, counted round, has lost so many bytes
    /// of its end, or that it is gone. The frontend does not know of it, so that no answer is
    /// asked for.
    pub fn shrink(&mut self, region: u64, bytes: Option<u64>) -> Result<(), WireError> {
        let Some(index) = region.checked_rem(self.regions.len() as u64) else {
            return Ok(());
        };
        let index = index as usize;
        let whole = self.regions[index].0;
        let size = bytes.map_or(0, |bytes| whole.size.saturating_sub(bytes));
        let rest = Place { size, ..whole };
        self.regions[index].0 = rest;
        let removed = (size == 0).then(|| self.regions.remove(index));
        if !self.by_region {
            return self.send_table();
        }
        self.send(F::REM_MEM_REG, &single(whole), &[])?;
        match removed {
            None => {
                let file = self.regions[index].1.as_fd();
                self.send(F::ADD_MEM_REG, &single(rest), &[file])
            }
            Some(_) => Ok(()),
        }
    }

    fn send_table(&self) -> Result<(), WireError> {
        let regions = self.regions.iter().map(|(place, _)| {
            VhostUserMemoryRegion::new(place.guest, place.size, place.user, place.offset)
        });
        let files: Vec<_> = self.regions.iter().map(|(_, file)| file.as_fd()).collect();
        self.send(F::SET_MEM_TABLE, &MemoryTable(regions.collect()), &files)
    }

    fn send(
        &self,
        code: F,
        payload: &impl Payload,
        files: &[BorrowedFd<'_>],
    ) -> Result<(), WireError> {
        let payload = payload.to_bytes();
        let header = Header::request(code, payload.len());
        let deadline = Deadline::after(LIMIT);
        self.backend.send(header, &payload, files, &deadline)
    }
}

fn single(place: Place) -> VhostUserSingleMemoryRegion {
    VhostUserSingleMemoryRegion::new(place.guest, place.size, place.user, place.offset)
}
