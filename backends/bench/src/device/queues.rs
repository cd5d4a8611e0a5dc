//! Queues by device type (virtio 1.4, section 5).

use vhost_user_wire::DeviceType;

/// The virtqueues that every backend of the type has; 1 where nothing is known of it. The event
/// queue of a socket device and the control queue of a crypto device may be the frontend's.
pub fn least_queues(device_type: DeviceType) -> usize {
    match device_type {
        DeviceType::NET | DeviceType::CONSOLE | DeviceType::BALLOON => 2,
        DeviceType::GPU | DeviceType::INPUT | DeviceType::VSOCK => 2,
        DeviceType::IOMMU | DeviceType::FS => 2,
        DeviceType::SCSI | DeviceType::CAN => 3,
        DeviceType::SOUND => 4,
        _ => 1,
    }
}
