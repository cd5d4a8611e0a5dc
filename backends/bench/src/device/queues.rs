//! Queues by device type, and what goes with more of them (virtio 1.4, section 5).

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

/// Features that a driver accepts only if it does more than use the queues that every device of
/// the type has: they require a control queue, or change what a request looks like.
pub fn features_on_demand(device_type: DeviceType) -> &'static [u32] {
    match device_type {
        // CTRL_VQ and what requires it, up to CTRL_MAC_ADDR; HASH_TUNNEL, VQ_NOTF_COAL,
        // NOTF_COAL, HASH_REPORT and RSS, of which some lengthen the header (section 5.1.3).
        DeviceType::NET => &[17, 18, 19, 20, 21, 22, 23, 51, 52, 53, 57, 60],
        // MULTIPORT has two queues for each port (section 5.3.2).
        DeviceType::CONSOLE => &[1],
        // NOTIFICATION puts a queue before those of requests (section 5.11.2).
        DeviceType::FS => &[0],
        // T10_PI lengthens the header (section 5.6.6.1).
        DeviceType::SCSI => &[3],
        _ => &[],
    }
}
