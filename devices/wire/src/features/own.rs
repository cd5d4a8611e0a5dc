//! Features of one device type each (virtio 1.3, section 5).

use virtio_bindings::virtio_blk::*;
use virtio_bindings::virtio_net::*;

use crate::device_type::DeviceType;

/// The features of this type alone by bit; none for a type whose features have no names here.
pub fn own_names(device_type: DeviceType) -> &'static [(u32, &'static str)] {
    match device_type {
        DeviceType::BLK => BLK_NAMES,
        DeviceType::NET => NET_NAMES,
        DeviceType::CONSOLE => CONSOLE_NAMES,
        DeviceType::SCSI => SCSI_NAMES,
        DeviceType::VSOCK => VSOCK_NAMES,
        DeviceType::FS => FS_NAMES,
        _ => &[],
    }
}

/// Section 5.2.3.
const BLK_NAMES: &[(u32, &str)] = &[
    (VIRTIO_BLK_F_SIZE_MAX, "BLK_SIZE_MAX"),
    (VIRTIO_BLK_F_SEG_MAX, "BLK_SEG_MAX"),
    (VIRTIO_BLK_F_GEOMETRY, "BLK_GEOMETRY"),
    (VIRTIO_BLK_F_RO, "BLK_RO"),
    (VIRTIO_BLK_F_BLK_SIZE, "BLK_BLK_SIZE"),
    (VIRTIO_BLK_F_FLUSH, "BLK_FLUSH"),
    (VIRTIO_BLK_F_TOPOLOGY, "BLK_TOPOLOGY"),
    (VIRTIO_BLK_F_CONFIG_WCE, "BLK_CONFIG_WCE"),
    (VIRTIO_BLK_F_MQ, "BLK_MQ"),
    (VIRTIO_BLK_F_DISCARD, "BLK_DISCARD"),
    (VIRTIO_BLK_F_WRITE_ZEROES, "BLK_WRITE_ZEROES"),
    (VIRTIO_BLK_F_SECURE_ERASE, "BLK_SECURE_ERASE"),
    (VIRTIO_BLK_F_ZONED, "BLK_ZONED"),
];

/// Section 5.1.3.
const NET_NAMES: &[(u32, &str)] = &[
    (VIRTIO_NET_F_CSUM, "NET_CSUM"),
    (VIRTIO_NET_F_GUEST_CSUM, "NET_GUEST_CSUM"),
    (VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, "NET_CTRL_GUEST_OFFLOADS"),
    (VIRTIO_NET_F_MTU, "NET_MTU"),
    (VIRTIO_NET_F_MAC, "NET_MAC"),
    (VIRTIO_NET_F_GSO, "NET_GSO"),
    (VIRTIO_NET_F_GUEST_TSO4, "NET_GUEST_TSO4"),
    (VIRTIO_NET_F_GUEST_TSO6, "NET_GUEST_TSO6"),
    (VIRTIO_NET_F_GUEST_ECN, "NET_GUEST_ECN"),
    (VIRTIO_NET_F_GUEST_UFO, "NET_GUEST_UFO"),
    (VIRTIO_NET_F_HOST_TSO4, "NET_HOST_TSO4"),
    (VIRTIO_NET_F_HOST_TSO6, "NET_HOST_TSO6"),
    (VIRTIO_NET_F_HOST_ECN, "NET_HOST_ECN"),
    (VIRTIO_NET_F_HOST_UFO, "NET_HOST_UFO"),
    (VIRTIO_NET_F_MRG_RXBUF, "NET_MRG_RXBUF"),
    (VIRTIO_NET_F_STATUS, "NET_STATUS"),
    (VIRTIO_NET_F_CTRL_VQ, "NET_CTRL_VQ"),
    (VIRTIO_NET_F_CTRL_RX, "NET_CTRL_RX"),
    (VIRTIO_NET_F_CTRL_VLAN, "NET_CTRL_VLAN"),
    (VIRTIO_NET_F_CTRL_RX_EXTRA, "NET_CTRL_RX_EXTRA"),
    (VIRTIO_NET_F_GUEST_ANNOUNCE, "NET_GUEST_ANNOUNCE"),
    (VIRTIO_NET_F_MQ, "NET_MQ"),
    (VIRTIO_NET_F_CTRL_MAC_ADDR, "NET_CTRL_MAC_ADDR"),
    (VIRTIO_NET_F_DEVICE_STATS, "NET_DEVICE_STATS"),
    (VIRTIO_NET_F_VQ_NOTF_COAL, "NET_VQ_NOTF_COAL"),
    (VIRTIO_NET_F_NOTF_COAL, "NET_NOTF_COAL"),
    (VIRTIO_NET_F_GUEST_USO4, "NET_GUEST_USO4"),
    (VIRTIO_NET_F_GUEST_USO6, "NET_GUEST_USO6"),
    (VIRTIO_NET_F_HOST_USO, "NET_HOST_USO"),
    (VIRTIO_NET_F_HASH_REPORT, "NET_HASH_REPORT"),
    (VIRTIO_NET_F_GUEST_HDRLEN, "NET_GUEST_HDRLEN"),
    (VIRTIO_NET_F_RSS, "NET_RSS"),
    (VIRTIO_NET_F_RSC_EXT, "NET_RSC_EXT"),
    (VIRTIO_NET_F_STANDBY, "NET_STANDBY"),
    (VIRTIO_NET_F_SPEED_DUPLEX, "NET_SPEED_DUPLEX"),
];

/// Section 5.3.3.
const CONSOLE_NAMES: &[(u32, &str)] = &[
    (0, "CONSOLE_SIZE"),
    (1, "CONSOLE_MULTIPORT"),
    (2, "CONSOLE_EMERG_WRITE"),
];

/// Section 5.6.3.
const SCSI_NAMES: &[(u32, &str)] = &[
    (0, "SCSI_INOUT"),
    (1, "SCSI_HOTPLUG"),
    (2, "SCSI_CHANGE"),
    (3, "SCSI_T10_PI"),
];

/// Section 5.10.3.
const VSOCK_NAMES: &[(u32, &str)] = &[
    (0, "VSOCK_STREAM"),
    (1, "VSOCK_SEQPACKET"),
    (2, "VSOCK_NO_IMPLIED_STREAM"),
];

/// Section 5.11.3.
const FS_NAMES: &[(u32, &str)] = &[(0, "FS_NOTIFICATION")];
