//! Device types (virtio 1.3, section 5) and their names.

use std::fmt;
use std::str::FromStr;

/// A virtio device ID. Any number but 0 is a device type; some have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceType(u32);

/// The names that [`DeviceType`] is written and read with.
const NAMES: &[(&str, DeviceType)] = &[
    ("net", DeviceType::NET),
    ("blk", DeviceType::BLK),
    ("console", DeviceType::CONSOLE),
    ("rng", DeviceType::RNG),
    ("balloon", DeviceType::BALLOON),
    ("scsi", DeviceType::SCSI),
    ("9p", DeviceType::NINE_P),
    ("gpu", DeviceType::GPU),
    ("input", DeviceType::INPUT),
    ("vsock", DeviceType::VSOCK),
    ("crypto", DeviceType::CRYPTO),
    ("iommu", DeviceType::IOMMU),
    ("mem", DeviceType::MEM),
    ("sound", DeviceType::SOUND),
    ("fs", DeviceType::FS),
    ("pmem", DeviceType::PMEM),
    ("rpmb", DeviceType::RPMB),
    ("scmi", DeviceType::SCMI),
    ("i2c", DeviceType::I2C),
    ("can", DeviceType::CAN),
    ("gpio", DeviceType::GPIO),
    ("spi", DeviceType::SPI),
    ("media", DeviceType::MEDIA),
];

impl DeviceType {
    pub const NET: Self = Self(1);
    pub const BLK: Self = Self(2);
    pub const CONSOLE: Self = Self(3);
    pub const RNG: Self = Self(4);
    pub const BALLOON: Self = Self(5);
    pub const SCSI: Self = Self(8);
    pub const NINE_P: Self = Self(9);
    pub const GPU: Self = Self(16);
    pub const INPUT: Self = Self(18);
    pub const VSOCK: Self = Self(19);
    pub const CRYPTO: Self = Self(20);
    pub const IOMMU: Self = Self(23);
    pub const MEM: Self = Self(24);
    pub const SOUND: Self = Self(25);
    pub const FS: Self = Self(26);
    pub const PMEM: Self = Self(27);
    pub const RPMB: Self = Self(28);
    pub const SCMI: Self = Self(32);
    pub const I2C: Self = Self(34);
    pub const CAN: Self = Self(36);
    pub const GPIO: Self = Self(41);
    pub const SPI: Self = Self(45);
    pub const MEDIA: Self = Self(48);

    /// The type with this device ID. 0 is the ID of an absent device.
    pub fn new(id: u32) -> Option<Self> {
        (id != 0).then_some(Self(id))
    }

    /// The device ID, as the driver reads it.
    pub fn id(self) -> u32 {
        self.0
    }

    /// Every name that can be parsed, in the order of their IDs.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }
}

impl fmt::Display for DeviceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, known)| known == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// The text names no device type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no virtio device type {0:?}: give a number from 1, or one of {names}", names = DeviceType::names().collect::<Vec<_>>().join(", "))]
pub struct UnknownDeviceType(pub String);

impl FromStr for DeviceType {
    type Err = UnknownDeviceType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((_, known)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(*known);
        }
        text.parse()
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| UnknownDeviceType(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_bindings::virtio_ids::*;

    #[test]
    fn names_and_numbers_parse_to_the_same_type() {
        for (text, id) in [
            ("net", VIRTIO_ID_NET),
            ("blk", VIRTIO_ID_BLOCK),
            ("2", VIRTIO_ID_BLOCK),
            ("fs", VIRTIO_ID_FS),
            ("26", VIRTIO_ID_FS),
            ("vsock", VIRTIO_ID_VSOCK),
            ("sound", VIRTIO_ID_SOUND),
            ("gpio", VIRTIO_ID_GPIO),
            ("i2c", VIRTIO_ID_I2C_ADAPTER),
            // Not among those bindings.
            ("spi", 45),
            ("media", 48),
            ("4711", 4711),
        ] {
            assert_eq!(text.parse::<DeviceType>().unwrap().id(), id, "{text}");
        }
    }

    #[test]
    fn printing_and_parsing_are_inverse() {
        for id in 1..100 {
            let device_type = DeviceType::new(id).unwrap();
            assert_eq!(device_type.to_string().parse(), Ok(device_type));
        }
        for name in DeviceType::names() {
            assert_eq!(name.parse::<DeviceType>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn what_names_no_type_is_refused_with_the_known_names() {
        for text in ["", "0", "-1", "block", "4294967296"] {
            let error = text.parse::<DeviceType>().unwrap_err().to_string();
            assert!(error.contains("blk"), "{error}");
        }
    }
}
