//! How fast a link is, as Linux tells it (linux/ethtool.h) and as the driver reads it (virtio 1.4,
//! section 5.1.4).

/// A speed and what the link does at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed {
    /// In Mbit/s, up to 0x7fff_ffff.
    megabits: Option<u32>,
    duplex: Option<Duplex>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duplex {
    /// One way at a time.
    Half,
    Full,
}

/// Both fields say so where it is unknown.
const UNKNOWN_SPEED: u32 = u32::MAX;
const UNKNOWN_DUPLEX: u8 = u8::MAX;

impl Speed {
    /// Of what Linux calls SPEED_* and DUPLEX_*, which is what virtio has, too. `None` if both are
    /// unknown.
    pub fn new(megabits: u32, duplex: u8) -> Option<Self> {
        let speed = Speed {
            megabits: Some(megabits).filter(|speed| *speed <= i32::MAX as u32),
            duplex: match duplex {
                0 => Some(Duplex::Half),
                1 => Some(Duplex::Full),
                _ => None,
            },
        };
        (speed.megabits.is_some() || speed.duplex.is_some()).then_some(speed)
    }
}

/// `speed` and `duplex` in the configuration space.
pub fn fields(speed: Option<Speed>) -> [u8; 5] {
    let megabits = speed.and_then(|speed| speed.megabits);
    let [a, b, c, d] = megabits.unwrap_or(UNKNOWN_SPEED).to_le_bytes();
    let duplex = match speed.and_then(|speed| speed.duplex) {
        Some(Duplex::Half) => 0,
        Some(Duplex::Full) => 1,
        None => UNKNOWN_DUPLEX,
    };
    [a, b, c, d, duplex]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_said_so() {
        assert_eq!(fields(Speed::new(1000, 0)), [0xe8, 3, 0, 0, 0]);
        assert_eq!(fields(Speed::new(u32::MAX, 1)), [255, 255, 255, 255, 1]);
        assert_eq!(fields(Speed::new(0, 255)), [0, 0, 0, 0, 255]);
        // Linux and virtio both know 31 bits.
        assert_eq!(Speed::new(1 << 31, 255), None);
        assert_eq!(fields(None), [255; 5]);
    }
}
