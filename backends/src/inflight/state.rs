//! A device's own state, in the record behind the queues' parts.
//!
//! Settings that a driver has made by requests that are done (the address of a network device,
//! how many pairs of queues it uses) are in no ring any more, and would be lost with the
//! process. So the state is stored before the driver has the request back. There is room for two
//! states, and one word says which counts: a process that is killed during a store leaves the
//! one before.
//!
//! The document leaves a record's size to the backend, and the contents behind the queues' parts
//! too.

use std::sync::atomic::AtomicU32;

use vm_memory::VolatileMemory;

use super::layout::{STATE, STATE_SLOT, STATE_WORD};
use super::{InflightError, Region};

pub use super::layout::MAX_STATE as MAX;

impl Region {
    /// Where the part begins, if the record has it.
    fn state_start(&self) -> Option<usize> {
        self.shape.state.then(|| self.shape.bytes() - STATE)
    }

    /// Stores a state, which is found from here on in place of any before it. A record without
    /// room for one, or a state that is too long, is not: `false`.
    pub fn store_state(&self, state: &[u8]) -> Result<bool, InflightError> {
        let Some(start) = self.state_start().filter(|_| state.len() <= MAX) else {
            return Ok(false);
        };
        let slot = match self.load::<AtomicU32>(start)? {
            1 => 2,
            _ => 1,
        };
        let at = slot_start(start, slot);
        self.store::<AtomicU32>(at, state.len() as u32)?;
        self.map.get_slice(at + 4, state.len())?.copy_from(state);
        self.store::<AtomicU32>(start, slot).map(|()| true)
    }

    /// The state that was stored last, by this process or the one before it.
    pub fn state(&self) -> Result<Option<Vec<u8>>, InflightError> {
        let Some(start) = self.state_start() else {
            return Ok(None);
        };
        let slot = self.load::<AtomicU32>(start)?;
        if slot == 0 {
            return Ok(None);
        }
        let at = slot_start(start, slot);
        let len = self.load::<AtomicU32>(at)? as usize;
        if slot > 2 || len > MAX {
            return Err(InflightError::Corrupt);
        }
        let mut state = vec![0; len];
        self.map.get_slice(at + 4, len)?.copy_to(&mut state[..]);
        Ok(Some(state))
    }

    /// Forgets the state.
    pub fn forget_state(&self) -> Result<(), InflightError> {
        match self.state_start() {
            Some(start) => self.store::<AtomicU32>(start, 0),
            None => Ok(()),
        }
    }
}

fn slot_start(start: usize, slot: u32) -> usize {
    start + STATE_WORD + STATE_SLOT * (slot.clamp(1, 2) - 1) as usize
}

#[cfg(test)]
mod tests {
    use super::super::{Shape, create};
    use super::*;

    fn region(shape: Shape) -> Region {
        let (place, file) = create(shape).unwrap();
        Region::map(&place, file, 1, false).unwrap()
    }

    fn shape() -> Shape {
        Shape::new(1, 16, 1, false).unwrap()
    }

    #[test]
    fn the_last_state_is_found_and_the_one_before_until_it_is_complete() {
        let region = region(shape().with_state());
        assert_eq!(region.state().unwrap(), None);
        for round in 0..5u8 {
            let state = vec![round; usize::from(round) * 500];
            assert!(region.store_state(&state).unwrap());
            assert_eq!(region.state().unwrap(), Some(state.clone()));
            // Killed before the word is stored: all of the next slot may be another's.
            let start = region.state_start().unwrap();
            let slot = region.load::<AtomicU32>(start).unwrap();
            let next = slot_start(start, 3 - slot);
            let rest = region.map.get_slice(next, STATE_SLOT).unwrap();
            rest.copy_from(&[0xff; STATE_SLOT]);
            assert_eq!(region.state().unwrap(), Some(state));
        }
        region.forget_state().unwrap();
        assert_eq!(region.state().unwrap(), None);
    }

    #[test]
    fn what_has_no_room_is_not_stored_and_what_is_nonsense_not_believed() {
        let without = region(shape());
        assert!(!without.store_state(&[1]).unwrap());
        assert_eq!(without.state().unwrap(), None);
        let region = region(shape().with_state());
        assert!(!region.store_state(&[0; MAX + 1]).unwrap());
        assert!(region.store_state(&[1; MAX]).unwrap());
        let start = region.state_start().unwrap();
        region
            .store::<AtomicU32>(slot_start(start, 1), u32::MAX)
            .unwrap();
        assert!(matches!(region.state(), Err(InflightError::Corrupt)));
        region.store::<AtomicU32>(start, 7).unwrap();
        assert!(matches!(region.state(), Err(InflightError::Corrupt)));
    }
}
