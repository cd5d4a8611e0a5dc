//! A frontend's guest memory, as far as it has shared it.

use std::fs::File;
use std::sync::Arc;

use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use super::state::Region;

/// Regions with their files, and where they are mapped.
#[derive(Debug, Default)]
pub struct Memory {
    regions: Vec<(Region, Arc<File>)>,
    map: GuestMemoryMmap,
}

impl Memory {
    /// Of these regions alone.
    pub fn set(&mut self, regions: Vec<(Region, File)>) -> Result<(), String> {
        let share = |(region, file)| (region, Arc::new(file));
        self.regions = regions.into_iter().map(share).collect();
        self.renew()
    }

    pub fn add(&mut self, region: Region, file: File) -> Result<(), String> {
        self.regions.push((region, Arc::new(file)));
        self.renew()
    }

    pub fn remove(&mut self, region: &Region) -> Result<(), String> {
        let before = self.regions.len();
        self.regions.retain(|(known, _)| !known.is_named_by(region));
        if self.regions.len() == before {
            return Err(format!("there is no region {region:x?} to remove"));
        }
        self.renew()
    }

    fn renew(&mut self) -> Result<(), String> {
        let mut regions: Vec<_> = self.regions.iter().collect();
        regions.sort_by_key(|(region, _)| region.guest);
        let ranges = regions.iter().map(|(region, file)| {
            let file = FileOffset::from_arc(Arc::clone(file), region.offset);
            (GuestAddress(region.guest), region.size as usize, Some(file))
        });
        self.map = if regions.is_empty() {
            GuestMemoryMmap::new()
        } else {
            GuestMemoryMmap::from_ranges_with_files(ranges)
                .map_err(|error| format!("guest memory cannot be mapped: {error}"))?
        };
        Ok(())
    }

    pub fn map(&self) -> &GuestMemoryMmap {
        &self.map
    }

    /// The guest-physical address of `len` bytes at a user address.
    pub fn guest(&self, user: u64, len: u64) -> Result<GuestAddress, String> {
        let place = self.regions.iter().find_map(|(region, _)| {
            let at = user.checked_sub(region.user)?;
            (at.checked_add(len)? <= region.size).then(|| region.guest.checked_add(at))?
        });
        place
            .map(GuestAddress)
            .ok_or_else(|| format!("{len} bytes at user address {user:#x} are in no region"))
    }
}
