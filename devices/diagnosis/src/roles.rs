//! What a queue is for, by the device's type (virtio 1.4, section 5).

/// Device IDs (section 5).
const NET: u32 = 1;
const CONSOLE: u32 = 3;
const SCSI: u32 = 8;
const INPUT: u32 = 18;
const VSOCK: u32 = 19;
const SOUND: u32 = 25;
const CAN: u32 = 36;
const GPIO: u32 = 41;

/// Whether the driver fills the queue with buffers before there is anything for them: a device
/// may keep those for as long as it likes. `control` is the number of a network device's control
/// queue.
pub fn is_filled_ahead(device_type: u32, queue: u16, control: Option<u16>) -> bool {
    match device_type {
        // Section 5.1.2: a pair is a receive queue and a transmit queue.
        NET => queue.is_multiple_of(2) && Some(queue) != control,
        // Section 5.3.2: each port, and the control of all ports, has such a pair too.
        CONSOLE => queue.is_multiple_of(2),
        // Section 5.6.2: control, events, requests. Section 5.14.2: control, events, streams.
        SCSI | SOUND => queue == 1,
        // Section 5.8.2: events, status.
        INPUT => queue == 0,
        // Section 5.10.2: receive, transmit, events.
        VSOCK => queue == 0 || queue == 2,
        // Transmit, receive; and requests, events.
        CAN | GPIO => queue == 1,
        _ => false,
    }
}
