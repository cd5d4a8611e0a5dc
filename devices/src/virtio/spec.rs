//! Names and bits of virtio over MMIO (virtio 1.3, section 4.2.2, table 4.1).

/// "virt" in little-endian: the value of [`Register::MagicValue`].
pub const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// The register layout of virtio 1.0 and later.
pub const VERSION: u32 = 2;
/// The value of [`Register::VendorId`].
pub const VENDOR: u32 = u32::from_le_bytes(*b"OUTB");

/// Where the device configuration space starts in the register window.
pub const CONFIG_OFFSET: usize = 0x100;

/// A control register. The discriminant is its offset in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Register {
    /// R: [`MAGIC`].
    MagicValue = 0x000,
    /// R: [`VERSION`].
    Version = 0x004,
    /// R: the device type's ID.
    DeviceId = 0x008,
    /// R: [`VENDOR`].
    VendorId = 0x00c,
    /// R: the half of the offered features that `DeviceFeaturesSel` selects.
    DeviceFeatures = 0x010,
    /// W: 0 selects features 0 to 31, 1 selects 32 to 63.
    DeviceFeaturesSel = 0x014,
    /// W: the half of the accepted features that `DriverFeaturesSel` selects.
    DriverFeatures = 0x020,
    /// W: as `DeviceFeaturesSel`.
    DriverFeaturesSel = 0x024,
    /// W: the queue that the other `Queue…` registers mean.
    QueueSel = 0x030,
    /// R: the queue's largest size in entries; 0 when there is no such queue.
    QueueSizeMax = 0x034,
    /// W: the queue's size in entries.
    QueueSize = 0x038,
    /// RW: 1 while the device may use the queue.
    QueueReady = 0x044,
    /// W: the queue that has new buffers.
    QueueNotify = 0x050,
    /// R: [`InterruptBits`].
    InterruptStatus = 0x060,
    /// W: the interrupt bits that the driver has handled.
    InterruptAck = 0x064,
    /// RW: [`super::status::Status`]; writing 0 resets the device.
    Status = 0x070,
    /// W: guest-physical address of the descriptor table, low half.
    QueueDescLow = 0x080,
    QueueDescHigh = 0x084,
    /// W: guest-physical address of the available ring, low half.
    QueueDriverLow = 0x090,
    QueueDriverHigh = 0x094,
    /// W: guest-physical address of the used ring, low half.
    QueueDeviceLow = 0x0a0,
    QueueDeviceHigh = 0x0a4,
    /// W: the shared memory region that the `Shm…` registers mean.
    ShmSel = 0x0ac,
    /// R: length of the shared memory region in bytes; all-ones when absent.
    ShmLenLow = 0x0b0,
    ShmLenHigh = 0x0b4,
    /// R: guest-physical address of the shared memory region.
    ShmBaseLow = 0x0b8,
    ShmBaseHigh = 0x0bc,
    /// RW: resets one queue. Only with VIRTIO_F_RING_RESET.
    QueueReset = 0x0c0,
    /// R: changes whenever the configuration space does.
    ConfigGeneration = 0x0fc,
}

impl Register {
    /// Every register, in the order of their offsets.
    pub const ALL: [Self; 29] = [
        Self::MagicValue,
        Self::Version,
        Self::DeviceId,
        Self::VendorId,
        Self::DeviceFeatures,
        Self::DeviceFeaturesSel,
        Self::DriverFeatures,
        Self::DriverFeaturesSel,
        Self::QueueSel,
        Self::QueueSizeMax,
        Self::QueueSize,
        Self::QueueReady,
        Self::QueueNotify,
        Self::InterruptStatus,
        Self::InterruptAck,
        Self::Status,
        Self::QueueDescLow,
        Self::QueueDescHigh,
        Self::QueueDriverLow,
        Self::QueueDriverHigh,
        Self::QueueDeviceLow,
        Self::QueueDeviceHigh,
        Self::ShmSel,
        Self::ShmLenLow,
        Self::ShmLenHigh,
        Self::ShmBaseLow,
        Self::ShmBaseHigh,
        Self::QueueReset,
        Self::ConfigGeneration,
    ];

    /// The register that starts at `offset` bytes into the window.
    pub fn at(offset: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|register| register.offset() as u64 == offset)
    }

    /// Bytes from the start of the window.
    pub const fn offset(self) -> usize {
        self as usize
    }
}

/// Bits of [`Register::InterruptStatus`] and [`Register::InterruptAck`].
pub struct InterruptBits;

impl InterruptBits {
    /// The device has used a buffer in at least one queue.
    pub const USED_BUFFER: u32 = 1 << 0;
    /// The device configuration space, or the device status, has changed.
    pub const CONFIG_CHANGE: u32 = 1 << 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_bindings::virtio_mmio::*;

    #[test]
    fn offsets_are_those_of_the_linux_headers() {
        for (register, offset) in [
            (Register::MagicValue, VIRTIO_MMIO_MAGIC_VALUE),
            (Register::Version, VIRTIO_MMIO_VERSION),
            (Register::DeviceId, VIRTIO_MMIO_DEVICE_ID),
            (Register::VendorId, VIRTIO_MMIO_VENDOR_ID),
            (Register::DeviceFeatures, VIRTIO_MMIO_DEVICE_FEATURES),
            (Register::DeviceFeaturesSel, VIRTIO_MMIO_DEVICE_FEATURES_SEL),
            (Register::DriverFeatures, VIRTIO_MMIO_DRIVER_FEATURES),
            (Register::DriverFeaturesSel, VIRTIO_MMIO_DRIVER_FEATURES_SEL),
            (Register::QueueSel, VIRTIO_MMIO_QUEUE_SEL),
            (Register::QueueSizeMax, VIRTIO_MMIO_QUEUE_NUM_MAX),
            (Register::QueueSize, VIRTIO_MMIO_QUEUE_NUM),
            (Register::QueueReady, VIRTIO_MMIO_QUEUE_READY),
            (Register::QueueNotify, VIRTIO_MMIO_QUEUE_NOTIFY),
            (Register::InterruptStatus, VIRTIO_MMIO_INTERRUPT_STATUS),
            (Register::InterruptAck, VIRTIO_MMIO_INTERRUPT_ACK),
            (Register::Status, VIRTIO_MMIO_STATUS),
            (Register::QueueDescLow, VIRTIO_MMIO_QUEUE_DESC_LOW),
            (Register::QueueDescHigh, VIRTIO_MMIO_QUEUE_DESC_HIGH),
            (Register::QueueDriverLow, VIRTIO_MMIO_QUEUE_AVAIL_LOW),
            (Register::QueueDriverHigh, VIRTIO_MMIO_QUEUE_AVAIL_HIGH),
            (Register::QueueDeviceLow, VIRTIO_MMIO_QUEUE_USED_LOW),
            (Register::QueueDeviceHigh, VIRTIO_MMIO_QUEUE_USED_HIGH),
            (Register::ShmSel, VIRTIO_MMIO_SHM_SEL),
            (Register::ShmLenLow, VIRTIO_MMIO_SHM_LEN_LOW),
            (Register::ShmLenHigh, VIRTIO_MMIO_SHM_LEN_HIGH),
            (Register::ShmBaseLow, VIRTIO_MMIO_SHM_BASE_LOW),
            (Register::ShmBaseHigh, VIRTIO_MMIO_SHM_BASE_HIGH),
            (Register::ConfigGeneration, VIRTIO_MMIO_CONFIG_GENERATION),
        ] {
            assert_eq!(register.offset(), offset as usize, "{register:?}");
        }
        assert_eq!(CONFIG_OFFSET, VIRTIO_MMIO_CONFIG as usize);
        assert_eq!(InterruptBits::USED_BUFFER, VIRTIO_MMIO_INT_VRING);
        assert_eq!(InterruptBits::CONFIG_CHANGE, VIRTIO_MMIO_INT_CONFIG);
    }

    #[test]
    fn every_register_is_found_at_its_offset_and_nothing_between() {
        for offset in 0..CONFIG_OFFSET as u64 + 16 {
            let found = Register::at(offset);
            assert!(found.is_none_or(|register| register.offset() as u64 == offset));
        }
        assert_eq!(Register::at(0x70), Some(Register::Status));
        assert_eq!(Register::at(0x71), None);
    }
}
