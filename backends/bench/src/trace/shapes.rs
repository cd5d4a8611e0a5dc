//! What stands where in a payload (vhost-user document, "Payload types").

use vhost::vhost_user::message::{BackendReq as B, FrontendReq as F};

use super::record::{Message, Side};

/// One field. Numbers are in the byte order of the machine.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    U8,
    U16,
    U32,
    U64,
    /// 64 bits that are read as an address, a size or flags.
    Hex64,
    Hex32,
    /// Virtio features.
    Features,
    ProtocolFeatures,
    /// A device's status as 64 bits (virtio 1.4, section 2.1).
    Status,
    /// 64 bits: a ring's number, and whether a file comes with the message.
    VringFile,
    /// So many bytes without a meaning.
    Padding(usize),
    Bytes(usize),
    /// All bytes that are left.
    Rest,
    /// Memory regions up to the end: their number was the first field.
    Regions,
    /// Sizes of shared memory regions up to the end.
    Sizes,
}

/// The fields in their order.
pub type Shape = &'static [(&'static str, Kind)];

use Kind::*;

const EMPTY: Shape = &[];
const RESULT: Shape = &[("result", U64)];
const FEATURES: Shape = &[("features", Features)];
const PROTOCOL_FEATURES: Shape = &[("features", ProtocolFeatures)];
const COUNT: Shape = &[("count", U64)];
const STATUS: Shape = &[("status", Status)];
const VRING_NUM: Shape = &[("index", U32), ("num", U32)];
const VRING_BASE: Shape = &[("index", U32), ("base", U32)];
const VRING_ENABLE: Shape = &[("index", U32), ("enable", U32)];
const VRING_INDEX: Shape = &[("index", U32), ("num", U32)];
const VRING_FILE: Shape = &[("index", VringFile)];
const VRING_ADDR: Shape = &[
    ("index", U32),
    ("flags", Hex32),
    ("descriptor", Hex64),
    ("used", Hex64),
    ("available", Hex64),
    ("log", Hex64),
];
const MEMORY: Shape = &[
    ("count", U32),
    ("padding", Padding(4)),
    ("regions", Regions),
];
/// Of a memory region, alone or in a list.
pub const REGION: Shape = &[
    ("guest", Hex64),
    ("size", Hex64),
    ("user", Hex64),
    ("offset", Hex64),
];
const SINGLE_REGION: Shape = &[
    ("padding", Padding(8)),
    ("guest", Hex64),
    ("size", Hex64),
    ("user", Hex64),
    ("offset", Hex64),
];
const LOG: Shape = &[("size", Hex64), ("offset", Hex64)];
const IOTLB: Shape = &[
    ("iova", Hex64),
    ("size", Hex64),
    ("user", Hex64),
    ("permissions", U8),
    ("type", U8),
    ("padding", Padding(6)),
];
const CONFIG: Shape = &[
    ("offset", U32),
    ("size", U32),
    ("flags", Hex32),
    ("bytes", Rest),
];
const INFLIGHT: Shape = &[
    ("size", Hex64),
    ("offset", Hex64),
    ("queues", U16),
    ("queue_size", U16),
    ("padding", Padding(4)),
];
const VRING_AREA: Shape = &[("index", Hex64), ("size", Hex64), ("offset", Hex64)];
const TRANSFER: Shape = &[("direction", U32), ("phase", U32)];
const UUID: Shape = &[("uuid", Bytes(16))];
const MMAP: Shape = &[
    ("region", U8),
    ("padding", Padding(7)),
    ("file_offset", Hex64),
    ("offset", Hex64),
    ("size", Hex64),
    ("flags", Hex64),
];
const SHARED_MEMORY: Shape = &[("count", U32), ("padding", Padding(4)), ("sizes", Sizes)];
const UNKNOWN: Shape = &[("payload", Rest)];

/// The shape of a message's payload. A reply that has none of its own is an acknowledgement.
pub fn shape(message: &Message) -> Shape {
    let code = message.request;
    match (message.channel, message.is_reply()) {
        (Side::Frontend, false) => F::try_from(code).map_or(UNKNOWN, frontend_request),
        (Side::Frontend, true) => F::try_from(code).map_or(UNKNOWN, frontend_reply),
        (Side::Backend, false) => B::try_from(code).map_or(UNKNOWN, backend_request),
        (Side::Backend, true) => RESULT,
    }
}

fn frontend_request(code: F) -> Shape {
    match code {
        F::SET_FEATURES => FEATURES,
        F::SET_PROTOCOL_FEATURES => PROTOCOL_FEATURES,
        F::SET_MEM_TABLE => MEMORY,
        F::SET_LOG_BASE => LOG,
        F::SET_VRING_NUM => VRING_NUM,
        F::SET_VRING_BASE => VRING_BASE,
        F::SET_VRING_ENABLE => VRING_ENABLE,
        F::GET_VRING_BASE | F::SET_VRING_ENDIAN | F::VRING_KICK => VRING_INDEX,
        F::SET_VRING_ADDR => VRING_ADDR,
        F::SET_VRING_KICK | F::SET_VRING_CALL | F::SET_VRING_ERR => VRING_FILE,
        F::SEND_RARP => &[("mac", Bytes(6)), ("padding", Padding(2))],
        F::NET_SET_MTU => &[("mtu", U64)],
        F::IOTLB_MSG => IOTLB,
        F::GET_CONFIG | F::SET_CONFIG => CONFIG,
        F::GET_INFLIGHT_FD | F::SET_INFLIGHT_FD => INFLIGHT,
        F::ADD_MEM_REG | F::REM_MEM_REG => SINGLE_REGION,
        F::SET_STATUS => STATUS,
        F::GET_SHARED_OBJECT => UUID,
        F::SET_DEVICE_STATE_FD => TRANSFER,
        F::CREATE_CRYPTO_SESSION | F::CLOSE_CRYPTO_SESSION => UNKNOWN,
        _ => EMPTY,
    }
}

fn frontend_reply(code: F) -> Shape {
    match code {
        F::GET_FEATURES => FEATURES,
        F::GET_PROTOCOL_FEATURES => PROTOCOL_FEATURES,
        F::GET_QUEUE_NUM | F::GET_MAX_MEM_SLOTS => COUNT,
        F::GET_VRING_BASE => VRING_BASE,
        F::GET_CONFIG => CONFIG,
        F::GET_INFLIGHT_FD => INFLIGHT,
        F::GET_STATUS => STATUS,
        F::GET_SHMEM_CONFIG => SHARED_MEMORY,
        F::SET_DEVICE_STATE_FD => &[("result", Hex64)],
        // During postcopy: the table with the backend's addresses.
        F::SET_MEM_TABLE => UNKNOWN,
        F::SET_LOG_BASE | F::CREATE_CRYPTO_SESSION => UNKNOWN,
        _ => RESULT,
    }
}

fn backend_request(code: B) -> Shape {
    match code {
        B::IOTLB_MSG => IOTLB,
        B::VRING_HOST_NOTIFIER_MSG => VRING_AREA,
        B::VRING_CALL | B::VRING_ERR => VRING_INDEX,
        B::SHARED_OBJECT_ADD | B::SHARED_OBJECT_REMOVE | B::SHARED_OBJECT_LOOKUP => UUID,
        B::SHMEM_MAP | B::SHMEM_UNMAP => MMAP,
        _ => EMPTY,
    }
}
