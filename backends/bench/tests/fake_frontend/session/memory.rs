//! Regions of guest memory.

use vhost::vhost_user::message::{VhostUserMemoryRegion, VhostUserSingleMemoryRegion};
use vhost_user_wire::Payload;
use vhost_user_wire::payload::MemoryTable;

use super::super::breaks::Break;
use super::super::guest::Guest;
use super::super::link::{Done, Gone};
use super::Session;
use super::features::SLOTS;

impl Session<'_> {
    pub(super) fn share(&mut self, guest: &Guest) -> Done {
        let regions = guest.regions();
        if self.protocol & SLOTS == 0 {
            let table = MemoryTable(regions.iter().map(|(region, _)| *region).collect());
            let files: Vec<_> = regions.iter().map(|(_, file)| *file).collect();
            return self.link.tell(5, &table.to_bytes(), &files);
        }
        if !self.is(Break::SlotsNotAsked) {
            let slots = self.link.number(36)?;
            if slots < 2 && !self.is(Break::IgnoresSlots) {
                return Err(Gone::Wrong("two slots are needed".into()));
            }
        }
        for (region, file) in &regions {
            let files = [*file];
            let files = if self.is(Break::NoMemoryFile) {
                &[][..]
            } else {
                &files
            };
            self.link.tell(37, &single(region).to_bytes(), files)?;
        }
        Ok(())
    }

    pub(super) fn change_memory(&mut self, guest: &Guest) -> Done {
        if self.protocol & SLOTS == 0 {
            return Ok(());
        }
        let (region, file) = guest.extra();
        let named = single(&region).to_bytes();
        self.link.tell(37, &named, &[file])?;
        let mut removed = region;
        if self.is(Break::RemovesUnknown) {
            removed.user_addr += 0x1000;
        }
        let files = [file];
        let files = if self.is(Break::RemovesWithFile) {
            &files[..]
        } else {
            &[]
        };
        self.link.tell(38, &single(&removed).to_bytes(), files)
    }
}

fn single(region: &VhostUserMemoryRegion) -> VhostUserSingleMemoryRegion {
    VhostUserSingleMemoryRegion::new(
        region.guest_phys_addr,
        region.memory_size,
        region.user_addr,
        region.mmap_offset,
    )
}
