//! Feature bits, of the protocol and of the device.

pub const MQ: u64 = 1;
pub const REPLY_ACK: u64 = 1 << 3;
pub const BACKEND_REQ: u64 = 1 << 5;
pub const CONFIG: u64 = 1 << 9;
pub const INFLIGHT: u64 = 1 << 12;
pub const SLOTS: u64 = 1 << 15;
pub const STATUS: u64 = 1 << 16;
pub const GPA_ADDRESSES: u64 = 1 << 21;
pub const LOG_SHMFD: u64 = 1 << 1;
pub const SEND_FD: u64 = 1 << 10;
pub const DEVICE_STATE: u64 = 1 << 19;
pub const SHMEM: u64 = 1 << 22;
pub const USUAL: u64 = MQ | REPLY_ACK | BACKEND_REQ | CONFIG | INFLIGHT | SLOTS | STATUS;
pub const PROTOCOL: u64 = USUAL | LOG_SHMFD | SEND_FD | DEVICE_STATE | SHMEM;

pub const EVENT_IDX: u64 = 1 << 29;
pub const INDIRECT: u64 = 1 << 28;
pub const BIT_30: u64 = 1 << 30;
pub const VERSION_1: u64 = 1 << 32;
pub const RESERVED: u64 = 1 << 45;
pub const PACKED: u64 = 1 << 34;
pub const LOG_ALL: u64 = 1 << 26;
pub const FEATURES: u64 = EVENT_IDX | BIT_30 | VERSION_1 | PACKED;
