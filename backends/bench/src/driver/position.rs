//! Places in a packed ring, and the flags that both sides know them by (virtio 1.4, section 2.8).

/// VIRTQ_DESC_F_AVAIL
pub const AVAIL: u16 = 1 << 7;
/// VIRTQ_DESC_F_USED
pub const USED: u16 = 1 << 15;

/// RING_EVENT_FLAGS_ENABLE, _DISABLE and _DESC
pub const ENABLE: u16 = 0;
pub const DISABLE: u16 = 1;
pub const SPECIFIC: u16 = 2;

/// The bit of a position that is its wrap counter.
const WRAP: u16 = 1 << 15;

/// A place in the ring, with the wrap counter of whoever is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub index: u16,
    pub wrap: bool,
}

impl Position {
    pub const BEGIN: Self = Self {
        index: 0,
        wrap: true,
    };

    /// By at most the ring's size.
    pub fn advance(&mut self, count: u16, size: u16) {
        let index = u32::from(self.index) + u32::from(count);
        self.wrap ^= index >= size.into();
        self.index = (index % u32::from(size)) as u16;
    }

    /// As in an event suppression structure, and in half of a vring base.
    pub fn to_bits(self) -> u16 {
        self.index | if self.wrap { WRAP } else { 0 }
    }

    pub fn from_bits(bits: u16) -> Self {
        Self {
            index: bits & !WRAP,
            wrap: bits & WRAP != 0,
        }
    }
}
