//! Where the device's copies of rings are: in a region of guest memory that the driver does not
//! know.

use std::fs::File;
use std::io;

use crate::follow::Addresses;
use crate::interpose::Place;

/// Room for the largest ring there is: 32768 descriptors.
const SLOT: u64 = 1 << 20;
const DRIVER: u64 = 512 << 10;
const DEVICE: u64 = 640 << 10;
/// Queues have 8 bits in vhost-user's messages.
const QUEUES: u64 = 256;
/// The region begins at the next multiple of this behind all memory.
const ALIGN: u64 = 1 << 40;

pub struct DevicePlaces {
    file: File,
    /// Once memory is known.
    place: Option<Place>,
}

impl DevicePlaces {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            file: host_io::files::sealed_memfd("rings", QUEUES * SLOT)?,
            place: None,
        })
    }

    /// The region, behind all of these. It stays where it is from then on.
    pub fn region(&mut self, others: &[Place]) -> io::Result<(Place, File)> {
        let behind = |end: fn(&Place) -> Option<u64>| {
            let ends = others.iter().map(|place| end(place).unwrap_or(u64::MAX));
            let end = ends.max().unwrap_or(0);
            end.checked_next_multiple_of(ALIGN)
                .and_then(|begin| begin.checked_add(ALIGN))
                .ok_or_else(|| io::Error::other("memory has no address left for the rings"))
        };
        let place = match self.place {
            Some(place) => place,
            None => Place {
                guest: behind(|place| place.guest.checked_add(place.size))?,
                size: QUEUES * SLOT,
                user: behind(|place| place.user.checked_add(place.size))?,
                offset: 0,
            },
        };
        self.place = Some(place);
        Ok((place, self.file.try_clone()?))
    }

    /// Where a queue's copy is.
    pub fn of_queue(&self, index: u8) -> Option<Addresses> {
        let begin = self.place?.user + u64::from(index) * SLOT;
        Some(Addresses {
            descriptors: begin,
            driver: begin + DRIVER,
            device: begin + DEVICE,
        })
    }
}
