//! How far a driver or a device has come in a packed ring.

const WRAP: u16 = 1 << 15;

/// A descriptor's place, and the wrap counter of who comes there next (virtio 1.4, section 2.8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    index: u16,
    wrap: bool,
}

impl Position {
    /// As the vhost-user document and event suppression have it: the wrap counter is the highest
    /// bit.
    pub fn from_bits(bits: u16, size: u16) -> Self {
        Self {
            index: (bits & !WRAP).checked_rem(size).unwrap_or(0),
            wrap: bits & WRAP != 0,
        }
    }

    /// The driver's and the device's, of a base as SET_VRING_BASE has it.
    pub fn of_base(base: u32, size: u16) -> [Self; 2] {
        [base as u16, (base >> 16) as u16].map(|bits| Self::from_bits(bits, size))
    }

    /// The reverse of [`from_bits`](Self::from_bits).
    pub fn bits(self) -> u16 {
        self.index | if self.wrap { WRAP } else { 0 }
    }

    pub fn index(self) -> u16 {
        self.index
    }

    pub fn wrap(self) -> bool {
        self.wrap
    }

    /// Over `count` descriptors of a ring, which has no more.
    pub fn advance(&mut self, count: u16, size: u16) {
        let index = u32::from(self.index) + u32::from(count.min(size));
        let is_round = index >= u32::from(size);
        self.index = (index - if is_round { u32::from(size) } else { 0 }) as u16;
        self.wrap ^= is_round;
    }

    /// Descriptors from here to another place, at most a round.
    pub fn distance(self, to: Self, size: u16) -> u16 {
        match self.wrap == to.wrap {
            true => to.index.saturating_sub(self.index),
            false => (size - self.index).saturating_add(to.index).min(size),
        }
    }
}
