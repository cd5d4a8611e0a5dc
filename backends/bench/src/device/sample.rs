//! A request of each type, for checks of what all devices have in common.
//!
//! A device completes it without anything that comes from elsewhere, and it changes nothing that
//! outlives the connection.

use vhost_user_wire::DeviceType;

/// A request, and the queue on which it is made.
#[derive(Clone, Debug)]
pub struct Sample {
    pub queue: usize,
    pub readable: Vec<u8>,
    pub writable: u32,
    /// What is wrong with an answer: the writable part, as far as the device says it wrote it.
    pub judge: fn(&[u8]) -> Result<(), String>,
    /// The same request is answered by the same bytes.
    pub repeats: bool,
}

impl Sample {
    fn new(queue: usize, readable: Vec<u8>, writable: u32) -> Self {
        Self {
            queue,
            readable,
            writable,
            judge: |_| Ok(()),
            repeats: false,
        }
    }

    fn judged(mut self, judge: fn(&[u8]) -> Result<(), String>) -> Self {
        self.judge = judge;
        self
    }
}

/// Bytes that the sample of a block device reads: a multiple of every logical block size.
const BLOCK: u32 = 4096;

/// The request for a device of this type, if one is known.
pub fn sample(device_type: DeviceType) -> Option<Sample> {
    match device_type {
        DeviceType::BLK => Some(block()),
        DeviceType::RNG => Some(Sample::new(0, Vec::new(), 64).judged(not_empty)),
        DeviceType::CONSOLE => Some(Sample::new(1, b"outboard-check\r\n".to_vec(), 0)),
        DeviceType::NET => Some(Sample::new(1, frame(), 0)),
        DeviceType::VSOCK => Some(Sample::new(1, vsock_reset(), 0)),
        DeviceType::INPUT => Some(Sample::new(1, vec![0; 8], 0)),
        DeviceType::FS => Some(Sample::new(1, fuse_init(), 80).judged(not_empty)),
        DeviceType::SCSI => Some(Sample::new(2, scsi_test_unit_ready(), 108).judged(not_empty)),
        DeviceType::SOUND => Some(Sample::new(0, sound_query(), 4).judged(not_empty)),
        DeviceType::GPIO => Some(Sample::new(0, gpio_get_direction(), 2).judged(not_empty)),
        _ => None,
    }
}

fn not_empty(answer: &[u8]) -> Result<(), String> {
    if answer.is_empty() {
        return Err("the device says that it wrote nothing".into());
    }
    Ok(())
}

/// VIRTIO_BLK_T_IN of the first block (section 5.2.6).
fn block() -> Sample {
    Sample {
        repeats: true,
        ..Sample::new(0, vec![0; 16], BLOCK + 1).judged(|answer| match answer.get(BLOCK as usize) {
            Some(0) => Ok(()),
            Some(status) => Err(format!("the status is {status}")),
            None => Err(format!(
                "the device says that it wrote {} bytes, so none of them is the status",
                answer.len()
            )),
        })
    }
}

/// Bytes of the header before each packet (section 5.1.6).
const NET_HEADER: usize = 12;

/// A broadcast with the EtherType of local experiments (IEEE 802, 88-B5).
fn frame() -> Vec<u8> {
    let mut bytes = vec![0; NET_HEADER];
    bytes.extend([0xff; 6]);
    bytes.extend([2, 0, 0, 0, 0, 1]);
    bytes.extend([0x88, 0xb5]);
    bytes.resize(NET_HEADER + 60, 0);
    bytes
}

/// VIRTIO_VSOCK_OP_RST of a connection to the host that there is not (section 5.10.6).
fn vsock_reset() -> Vec<u8> {
    let (guest, host, port) = (3u64, 2u64, 0x7fff_fff0u32);
    let mut bytes = Vec::new();
    bytes.extend(guest.to_le_bytes());
    bytes.extend(host.to_le_bytes());
    bytes.extend(port.to_le_bytes());
    bytes.extend(port.to_le_bytes());
    // No payload, a stream, the operation, no flags, and no credit.
    bytes.extend(0u32.to_le_bytes());
    bytes.extend([1, 0, 3, 0]);
    bytes.extend([0; 12]);
    bytes
}

/// FUSE_INIT, which a device answers whether it has had one or not (section 5.11.6).
fn fuse_init() -> Vec<u8> {
    let (len, opcode) = (40u32 + 64, 26u32);
    let mut bytes = Vec::new();
    bytes.extend(len.to_le_bytes());
    bytes.extend(opcode.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.resize(40, 0);
    // Version 7.31, and no flags.
    bytes.extend(7u32.to_le_bytes());
    bytes.extend(31u32.to_le_bytes());
    bytes.resize(len as usize, 0);
    bytes
}

/// TEST UNIT READY of target 0, unit 0 (section 5.6.6).
fn scsi_test_unit_ready() -> Vec<u8> {
    let mut bytes = vec![1, 0, 0x40, 0, 0, 0, 0, 0];
    bytes.resize(19 + 32, 0);
    bytes
}

/// VIRTIO_SND_R_PCM_INFO for no stream at all (section 5.14.6).
fn sound_query() -> Vec<u8> {
    let words = [0x0100u32, 0, 0, 32];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// VIRTIO_GPIO_MSG_GET_DIRECTION of line 0 (section 5.18.6).
fn gpio_get_direction() -> Vec<u8> {
    [2, 0, 0, 0, 0, 0, 0, 0].to_vec()
}
