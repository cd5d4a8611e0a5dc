//! Guest memory for buffers, which is given back when a request is done.

use std::collections::BTreeMap;

/// Buffers begin at multiples of this, and are that far apart at least.
const UNIT: u64 = 64;

#[derive(Debug, Default)]
pub struct Arena {
    /// Free pieces: begin and length. No two of them touch.
    free: BTreeMap<u64, u64>,
}

impl Arena {
    pub fn new(begin: u64, len: u64) -> Self {
        let free = BTreeMap::from([(begin, len / UNIT * UNIT)]);
        Self { free }
    }

    /// What a buffer of `len` bytes takes.
    pub fn cost(len: u64) -> u64 {
        len.saturating_add(UNIT).div_ceil(UNIT).saturating_mul(UNIT)
    }

    /// The address of room for `len` bytes, if there is any.
    pub fn take(&mut self, len: u64) -> Option<u64> {
        let cost = Self::cost(len);
        let (begin, size) = self.free.iter().find(|(_, size)| **size >= cost)?;
        let (begin, size) = (*begin, *size);
        self.free.remove(&begin);
        if size > cost {
            self.free.insert(begin + cost, size - cost);
        }
        Some(begin)
    }

    /// Gives back what was taken for `len` bytes.
    pub fn give(&mut self, mut begin: u64, len: u64) {
        let mut size = Self::cost(len);
        if let Some((before, length)) = self.free.range(..begin).next_back()
            && before + length == begin
        {
            (begin, size) = (*before, length + size);
        }
        if let Some(behind) = self.free.remove(&(begin + size)) {
            size += behind;
        }
        self.free.insert(begin, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_in_any_order_is_whole_again() {
        let mut arena = Arena::new(0x1000, 0x10000);
        let whole = Arena::new(0x1000, 0x10000).free;
        let lens = [1, 64, 65, 4096, 0, 17];
        let mut taken: Vec<_> = lens
            .iter()
            .map(|len| (arena.take(*len).unwrap(), *len))
            .collect();
        let ends: Vec<_> = taken.iter().map(|(at, len)| at + len).collect();
        let next = taken.iter().skip(1).map(|(at, _)| *at);
        assert!(ends.iter().zip(next).all(|(end, next)| *end < next));
        taken.swap(1, 4);
        taken.swap(0, 3);
        for (at, len) in taken {
            arena.give(at, len);
        }
        assert_eq!(arena.free, whole);
    }

    #[test]
    fn there_is_no_room_behind_the_end() {
        let mut arena = Arena::new(0, 256);
        assert_eq!(arena.take(192), Some(0));
        assert_eq!(arena.take(1), None);
        arena.give(0, 192);
        assert_eq!(arena.take(1), Some(0));
    }
}
