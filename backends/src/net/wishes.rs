//! The driver's settings from the control queue, which it need not make again for another process.

use std::io;

use serde::{Deserialize, Serialize};

use super::filter::Filter;

/// All that commands have set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    pub filter: Filter,
    /// Queue pairs in use.
    pub pairs: u16,
    /// Feature bits of the work that the driver does on received packets, if it has set them
    /// since the features were negotiated.
    pub offloads: Option<u64>,
}

impl Wishes {
    /// Those of a driver that has not asked for anything yet.
    pub fn new(mac: [u8; 6]) -> Self {
        Wishes {
            filter: Filter::new(mac),
            pairs: 1,
            offloads: None,
        }
    }

    /// For another process of this device.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A structure of numbers and lists has nothing that could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Those of another process of this device.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inflight::state;

    #[test]
    fn the_longest_wishes_fit_and_come_back() {
        let mut wishes = Wishes::new([0xff; 6]);
        wishes.filter.set_tables(&[0xff; 6 * 100], &[0xff; 6 * 100]);
        wishes.pairs = u16::MAX;
        wishes.offloads = Some(u64::MAX);
        let bytes = wishes.to_bytes();
        assert!(bytes.len() <= state::MAX, "{}", bytes.len());
        assert_eq!(Wishes::from_bytes(&bytes).unwrap(), wishes);
        assert!(Wishes::from_bytes(&bytes[1..]).is_err());
    }
}
