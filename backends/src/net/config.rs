//! Features and configuration space of the network device (virtio 1.3, sections 5.1.3, 5.1.4).

use std::fmt;
use std::io;
use std::str::FromStr;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX,
    VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_ANNOUNCE,
    VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_SPEED_DUPLEX, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_ANNOUNCE, VIRTIO_NET_S_LINK_UP,
};

use super::speed::{self, Speed};

/// Size of `struct virtio_net_config` up to and including the duplex mode.
pub const CONFIG_SIZE: usize = 17;

/// Smallest MTU that may be announced (virtio 1.3, section 5.1.4.1).
pub const MIN_MTU: u16 = 68;

/// The Ethernet address of one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// A locally administered unicast address for the interface at this link: another on every
    /// host, and the same for a backend that is started again. Its driver still uses the first.
    pub fn of_link(link: &str) -> io::Result<Self> {
        let host = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        // FNV-1a, 64 bits.
        let hash = host.bytes().chain(link.bytes());
        let hash = hash.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        let [mut first, b, c, d, e, f, ..] = hash.to_le_bytes();
        first = first & 0xfc | 0x02;
        Ok(MacAddress([first, b, c, d, e, f]))
    }
}

impl FromStr for MacAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is not six hexadecimal pairs such as 52:54:00:12:34:56");
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        if pairs.next().is_some() {
            return Err(wrong());
        }
        if bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(format!("{text} is not the address of a single interface"));
        }
        Ok(MacAddress(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The configuration of an interface.
#[derive(Debug, Clone, Copy)]
pub struct NetConfig {
    /// The guest's address.
    pub mac: MacAddress,
    /// The MTU to announce, in bytes.
    pub mtu: Option<u16>,
}

/// The changing part of the configuration space.
#[derive(Debug, Clone, Copy)]
pub struct Current {
    /// The address that the driver has set, or else that it was given.
    pub mac: MacAddress,
    /// Packets can pass.
    pub is_up: bool,
    /// How fast, if the link can tell.
    pub speed: Option<Speed>,
    /// The driver is to make itself known in the network.
    pub is_to_announce: bool,
}

impl Current {
    fn status(&self) -> u16 {
        let bit = |is_set: bool, bit: u32| if is_set { bit as u16 } else { 0 };
        bit(self.is_up, VIRTIO_NET_S_LINK_UP) | bit(self.is_to_announce, VIRTIO_NET_S_ANNOUNCE)
    }
}

impl NetConfig {
    /// Feature bits offered with `pairs` queue pairs, without the link's offloads.
    pub fn features(&self, pairs: u16) -> u64 {
        let mut bits = vec![
            VIRTIO_NET_F_MAC,
            VIRTIO_NET_F_STATUS,
            VIRTIO_NET_F_MRG_RXBUF,
            VIRTIO_NET_F_CTRL_VQ,
            VIRTIO_NET_F_CTRL_RX,
            VIRTIO_NET_F_CTRL_RX_EXTRA,
            VIRTIO_NET_F_CTRL_MAC_ADDR,
            VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
            VIRTIO_NET_F_GUEST_ANNOUNCE,
            VIRTIO_NET_F_SPEED_DUPLEX,
        ];
        if self.mtu.is_some() {
            bits.push(VIRTIO_NET_F_MTU);
        }
        if pairs > 1 {
            bits.push(VIRTIO_NET_F_MQ);
        }
        bits.into_iter().fold(0, |mask, bit| mask | 1 << bit)
    }

    /// The configuration space, little-endian. Fields of features that are not offered are zero.
    pub fn space(&self, current: &Current, pairs: u16) -> [u8; CONFIG_SIZE] {
        let mut space = [0; CONFIG_SIZE];
        space[0..6].copy_from_slice(&current.mac.0); // mac
        space[6..8].copy_from_slice(&current.status().to_le_bytes()); // status
        space[8..10].copy_from_slice(&pairs.to_le_bytes()); // max_virtqueue_pairs
        space[10..12].copy_from_slice(&self.mtu.unwrap_or(0).to_le_bytes()); // mtu
        space[12..17].copy_from_slice(&speed::fields(current.speed)); // speed, duplex
        space
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_strictly() {
        let mac: MacAddress = "52:54:00:Ab:cd:ef".parse().unwrap();
        assert_eq!(mac.0, [0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:ef");
        for wrong in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:ef:01",
            "52:54:00:ab:cd:+f",
            "5254:00:ab:cd:ef:1",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
        ] {
            assert!(wrong.parse::<MacAddress>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_backend_that_is_started_again_has_the_address_that_its_driver_knows() {
        let mut all = std::collections::HashSet::new();
        for n in 0..100 {
            let link = format!("tap{n}");
            let mac = MacAddress::of_link(&link).unwrap();
            assert_eq!(mac, MacAddress::of_link(&link).unwrap());
            assert_eq!(mac.0[0] & 3, 2, "{mac} is local and unicast");
            all.insert(mac.0);
        }
        assert_eq!(all.len(), 100);
    }

    #[test]
    fn the_space_is_laid_out_as_specified() {
        let mac = MacAddress([2, 0, 0, 0, 0, 7]);
        let mut config = NetConfig {
            mac,
            mtu: Some(9000),
        };
        let mut current = Current {
            mac: MacAddress([2, 0, 0, 0, 0, 8]),
            is_up: true,
            speed: Speed::new(10_000, 1),
            is_to_announce: true,
        };
        let expected = [
            2, 0, 0, 0, 0, 8, 3, 0, 3, 0, 0x28, 0x23, 0x10, 0x27, 0, 0, 1,
        ];
        assert_eq!(config.space(&current, 3), expected);
        let has = |features: u64, bit: u32| features & (1 << bit) != 0;
        assert!(has(config.features(1), VIRTIO_NET_F_MTU));
        assert!(has(config.features(2), VIRTIO_NET_F_MQ));
        config.mtu = None;
        let expected = [2, 0, 0, 0, 0, 7, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255, 255];
        current.speed = None;
        (current.mac, current.is_up, current.is_to_announce) = (mac, false, false);
        assert_eq!(config.space(&current, 1), expected);
        assert!(!has(config.features(1), VIRTIO_NET_F_MTU));
        assert!(!has(config.features(1), VIRTIO_NET_F_MQ));
    }
}
