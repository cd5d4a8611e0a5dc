//! Which received packets the driver wants (virtio 1.3, section 5.1.6.5.1 and 5.1.6.5.2).

use serde::{Deserialize, Serialize};

/// More addresses than this in one table, and all of their kind are let through.
const MAX_ADDRESSES: usize = 64;

type Address = [u8; 6];

/// The driver's wishes. At first it gets everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The interface's own address.
    pub mac: Address,
    /// All packets.
    pub promiscuous: bool,
    /// All multicast packets.
    pub all_multicast: bool,
    /// All unicast packets.
    pub all_unicast: bool,
    /// No multicast packets.
    pub no_multicast: bool,
    /// No unicast packets.
    pub no_unicast: bool,
    /// No broadcast packets.
    pub no_broadcast: bool,
    unicast: Table,
    multicast: Table,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Table {
    addresses: Vec<Address>,
    overflow: bool,
}

impl Table {
    fn set(&mut self, bytes: &[u8]) {
        let (addresses, _) = bytes.as_chunks();
        self.overflow = addresses.len() > MAX_ADDRESSES;
        self.addresses = addresses.iter().take(MAX_ADDRESSES).copied().collect();
    }

    fn has(&self, address: &Address) -> bool {
        self.overflow || self.addresses.contains(address)
    }
}

impl Filter {
    /// Lets everything through.
    pub fn new(mac: Address) -> Self {
        Filter {
            mac,
            promiscuous: true,
            all_multicast: false,
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            unicast: Table::default(),
            multicast: Table::default(),
        }
    }

    /// Replaces both tables; addresses of six bytes stand one behind the other.
    pub fn set_tables(&mut self, unicast: &[u8], multicast: &[u8]) {
        self.unicast.set(unicast);
        self.multicast.set(multicast);
    }

    /// Whether the driver wants `frame`.
    pub fn accepts(&self, frame: &[u8]) -> bool {
        let Some(to) = frame.first_chunk() else {
            return false;
        };
        if self.promiscuous {
            true
        } else if *to == [0xff; 6] {
            !self.no_broadcast
        } else if to[0] & 1 != 0 {
            !self.no_multicast && (self.all_multicast || self.multicast.has(to))
        } else {
            !self.no_unicast && (self.all_unicast || *to == self.mac || self.unicast.has(to))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Address = [2, 0, 0, 0, 0, 1];
    const OTHER: Address = [2, 0, 0, 0, 0, 2];
    const GROUP: Address = [1, 0, 0x5e, 0, 0, 1];

    #[test]
    fn packets_pass_as_the_driver_wishes() {
        let mut filter = Filter::new(MAC);
        assert!(filter.accepts(&OTHER));
        filter.promiscuous = false;
        assert!(filter.accepts(&MAC) && filter.accepts(&[0xff; 60]));
        assert!(!filter.accepts(&OTHER) && !filter.accepts(&GROUP) && !filter.accepts(b""));
        filter.set_tables(&OTHER, &GROUP);
        assert!(filter.accepts(&OTHER) && filter.accepts(&GROUP));
        filter.no_multicast = true;
        filter.no_unicast = true;
        filter.no_broadcast = true;
        for address in [MAC, OTHER, GROUP, [0xff; 6]] {
            assert!(!filter.accepts(&address));
        }
        filter = Filter::new(MAC);
        filter.promiscuous = false;
        filter.all_unicast = true;
        assert!(filter.accepts(&OTHER) && !filter.accepts(&GROUP));
        filter.set_tables(&[], &[0; 6 * 65]);
        assert!(filter.accepts(&GROUP), "too many to remember");
    }
}
