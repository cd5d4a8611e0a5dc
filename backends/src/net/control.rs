//! Commands of the control queue (virtio 1.3, section 5.1.6.5).

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, VIRTIO_NET_CTRL_GUEST_OFFLOADS,
    VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET,
    VIRTIO_NET_CTRL_MAC_TABLE_SET, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
    VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_CTRL_RX_ALLUNI,
    VIRTIO_NET_CTRL_RX_NOBCAST, VIRTIO_NET_CTRL_RX_NOMULTI, VIRTIO_NET_CTRL_RX_NOUNI,
    VIRTIO_NET_CTRL_RX_PROMISC,
};

/// Longest command accepted, in bytes: two tables of some thousand addresses.
pub const MAX_COMMAND: u64 = 65536;

/// A command of the driver.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// A switch of the filter.
    Mode(Mode, bool),
    /// The filter's tables: unicast and multicast addresses, six bytes each.
    Tables(&'a [u8], &'a [u8]),
    /// Another address of its own.
    Address([u8; 6]),
    /// So many queue pairs in use.
    Pairs(u16),
    /// Feature bits of the offloads that it can do with now.
    Offloads(u64),
    /// It announces itself, as it was asked to.
    Announces,
}

/// The filter's switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All packets.
    Promiscuous,
    /// All multicast packets.
    AllMulticast,
    /// All unicast packets.
    AllUnicast,
    /// No multicast packets.
    NoMulticast,
    /// No unicast packets.
    NoUnicast,
    /// No broadcast packets.
    NoBroadcast,
}

/// Reads class, command and data; `None` for a malformed or unknown command.
pub fn decode(bytes: &[u8]) -> Option<Command<'_>> {
    let [class, command, data @ ..] = bytes else {
        return None;
    };
    match (u32::from(*class), u32::from(*command)) {
        (VIRTIO_NET_CTRL_RX, command) => Some(Command::Mode(mode(command)?, *data.first()? != 0)),
        (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET) => {
            let (unicast, rest) = table(data)?;
            let (multicast, _) = table(rest)?;
            Some(Command::Tables(unicast, multicast))
        }
        (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET) => {
            Some(Command::Address(*data.first_chunk()?))
        }
        (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) => {
            Some(Command::Pairs(u16::from_le_bytes(*data.first_chunk()?)))
        }
        (VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET) => {
            Some(Command::Offloads(u64::from_le_bytes(*data.first_chunk()?)))
        }
        (VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK) => Some(Command::Announces),
        _ => None,
    }
}

fn mode(command: u32) -> Option<Mode> {
    Some(match command {
        VIRTIO_NET_CTRL_RX_PROMISC => Mode::Promiscuous,
        VIRTIO_NET_CTRL_RX_ALLMULTI => Mode::AllMulticast,
        VIRTIO_NET_CTRL_RX_ALLUNI => Mode::AllUnicast,
        VIRTIO_NET_CTRL_RX_NOMULTI => Mode::NoMulticast,
        VIRTIO_NET_CTRL_RX_NOUNI => Mode::NoUnicast,
        VIRTIO_NET_CTRL_RX_NOBCAST => Mode::NoBroadcast,
        _ => return None,
    })
}

/// `struct virtio_net_ctrl_mac`: a count and that many addresses; and what follows.
fn table(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (count, rest) = data.split_first_chunk()?;
    let length = 6usize.checked_mul(u32::from_le_bytes(*count) as usize)?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commands_are_decoded() {
        assert_eq!(
            decode(&[0, 1, 1]),
            Some(Command::Mode(Mode::AllMulticast, true))
        );
        assert_eq!(decode(&[4, 0, 2, 0]), Some(Command::Pairs(2)));
        assert_eq!(decode(&[3, 0]), Some(Command::Announces));
        let tables = [&[1, 0][..], &[1, 0, 0, 0], &[5; 6], &[0, 0, 0, 0]].concat();
        assert_eq!(decode(&tables), Some(Command::Tables(&[5; 6], &[])));
        assert_eq!(
            decode(&[1, 1, 2, 0, 0, 0, 0, 9]),
            Some(Command::Address([2, 0, 0, 0, 0, 9]))
        );
        for wrong in [
            &[][..],
            &[0],
            &[0, 0],
            &[0, 6, 1],
            &[9, 0, 0],
            &tables[..10],
            &[4, 0, 1],
        ] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
        }
    }
}
