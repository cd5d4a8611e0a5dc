//! What one connection's messages have set up so far.

use std::collections::BTreeMap;
use std::rc::Rc;

use vhost::vhost_user::message::{
    FrontendReq, VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures as Protocol,
    VhostUserSingleMemoryRegion, VhostUserVringAddr, VhostUserVringState,
};
use vhost_user_wire::Payload;
use vhost_user_wire::features::VHOST_USER_F_PROTOCOL_FEATURES;
use vhost_user_wire::payload::{MemoryTable, VringFile};
use virtio_bindings::virtio_config::VIRTIO_F_RING_PACKED;

use super::ring::lengths;

/// A region of guest memory as a message names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest-physical.
    pub guest: u64,
    /// In bytes.
    pub size: u64,
    pub user: u64,
    /// Where it begins in its file.
    pub offset: u64,
}

impl From<&VhostUserMemoryRegion> for Region {
    fn from(region: &VhostUserMemoryRegion) -> Self {
        Self {
            guest: region.guest_phys_addr,
            size: region.memory_size,
            user: region.user_addr,
            offset: region.mmap_offset,
        }
    }
}

impl From<&VhostUserSingleMemoryRegion> for Region {
    fn from(region: &VhostUserSingleMemoryRegion) -> Self {
        Self {
            guest: region.guest_phys_addr,
            size: region.memory_size,
            user: region.user_addr,
            offset: region.mmap_offset,
        }
    }
}

impl Region {
    /// Whether REM_MEM_REG for `other` means this one: the offset does not count.
    pub fn is_named_by(&self, other: &Self) -> bool {
        (self.guest, self.size, self.user) == (other.guest, other.size, other.user)
    }
}

/// One vring.
#[derive(Clone, Debug, Default)]
pub struct RingState {
    pub size: Option<u32>,
    /// User addresses: descriptor table, available ring, used ring.
    pub places: Option<[u64; 3]>,
    /// The guest address at which writes to the used ring are logged, where they are.
    pub log: Option<u64>,
    pub base: Option<u32>,
    pub is_started: bool,
    pub is_enabled: bool,
    /// The base with which it was stopped last.
    pub returned: Option<u32>,
}

/// VHOST_VRING_F_LOG of SET_VRING_ADDR
const LOG: u32 = 1;

impl RingState {
    /// What of the log belongs to the used ring: a guest address, and bytes.
    pub fn logged(&self, state: &State) -> Option<(u64, u64)> {
        let size = u16::try_from(self.size?).ok()?;
        let [descriptors, _, used] = lengths(size, state.is_packed());
        // A packed ring is its own used ring.
        let len = if state.is_packed() { descriptors } else { used };
        Some((self.log?, len))
    }
}

/// What the two sides have said on one connection.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The reply to GET_FEATURES.
    pub offered: Option<u64>,
    pub features: Option<u64>,
    /// The reply to GET_PROTOCOL_FEATURES.
    pub protocol_offered: Option<u64>,
    pub protocol: Option<u64>,
    pub has_owner: bool,
    pub queues: Option<u64>,
    pub slots: Option<u64>,
    pub regions: Rc<Vec<Region>>,
    /// Whether SET_MEM_TABLE or ADD_MEM_REG has come.
    pub has_memory: bool,
    pub rings: BTreeMap<u32, RingState>,
    pub status: u64,
    /// Bytes of the log of written pages, once there is one.
    pub log: Option<u64>,
    /// The features with which FEATURES_OK was set.
    pub features_ok: Option<u64>,
}

/// FEATURES_OK of a device's status (virtio 1.4, section 2.1).
pub const FEATURES_OK: u64 = 8;

impl State {
    pub fn has(&self, feature: u32) -> bool {
        self.features.unwrap_or(0) & 1 << feature != 0
    }

    pub fn is_packed(&self) -> bool {
        self.has(VIRTIO_F_RING_PACKED)
    }

    /// Whether rings have to be enabled.
    pub fn has_protocol_features(&self) -> bool {
        self.has(VHOST_USER_F_PROTOCOL_FEATURES)
    }

    pub fn has_protocol(&self, feature: Protocol) -> bool {
        self.protocol.unwrap_or(0) & feature.bits() == feature.bits()
    }

    pub fn is_running(&self) -> bool {
        self.rings.values().any(|ring| ring.is_started)
    }

    /// Takes in a message, and the number that answered it.
    pub fn apply(&mut self, request: u32, payload: &[u8], reply: Option<u64>) {
        let Ok(request) = FrontendReq::try_from(request) else {
            return;
        };
        let number = u64::decode(payload).ok();
        match request {
            FrontendReq::SET_OWNER => self.has_owner = true,
            FrontendReq::GET_FEATURES => self.offered = reply,
            FrontendReq::SET_FEATURES => self.features = number,
            FrontendReq::GET_PROTOCOL_FEATURES => self.protocol_offered = reply,
            FrontendReq::SET_PROTOCOL_FEATURES => self.protocol = number,
            FrontendReq::GET_QUEUE_NUM => self.queues = reply,
            FrontendReq::GET_MAX_MEM_SLOTS => self.slots = reply,
            FrontendReq::SET_STATUS => self.set_status(number.unwrap_or(0)),
            FrontendReq::RESET_DEVICE => self.reset(),
            FrontendReq::SET_LOG_BASE => {
                self.log = VhostUserLog::decode(payload).ok().map(|log| log.mmap_size);
            }
            _ => {
                self.apply_memory(request, payload);
                self.apply_ring(request, payload, reply);
            }
        }
    }

    fn set_status(&mut self, status: u64) {
        if status & FEATURES_OK != 0 && self.status & FEATURES_OK == 0 {
            self.features_ok = self.features;
        }
        if status == 0 {
            self.features_ok = None;
        }
        self.status = status;
    }

    /// The device forgets, the connection does not.
    fn reset(&mut self) {
        self.set_status(0);
        for ring in self.rings.values_mut() {
            (ring.is_started, ring.is_enabled, ring.returned) = (false, false, None);
        }
    }

    fn apply_memory(&mut self, request: FrontendReq, payload: &[u8]) {
        match request {
            FrontendReq::SET_MEM_TABLE => {
                let Ok(table) = MemoryTable::decode(payload) else {
                    return;
                };
                self.regions = Rc::new(table.0.iter().map(Region::from).collect());
                self.has_memory = true;
            }
            FrontendReq::ADD_MEM_REG | FrontendReq::REM_MEM_REG => {
                let Ok(region) = VhostUserSingleMemoryRegion::decode(payload) else {
                    return;
                };
                let region = Region::from(&region);
                let regions = Rc::make_mut(&mut self.regions);
                if request == FrontendReq::ADD_MEM_REG {
                    regions.push(region);
                } else {
                    regions.retain(|known| !known.is_named_by(&region));
                }
                self.has_memory = true;
            }
            _ => {}
        }
    }

    fn apply_ring(&mut self, request: FrontendReq, payload: &[u8], reply: Option<u64>) {
        match request {
            FrontendReq::SET_VRING_ADDR => self.set_places(payload),
            FrontendReq::SET_VRING_KICK => self.start(payload),
            FrontendReq::SET_VRING_NUM
            | FrontendReq::SET_VRING_BASE
            | FrontendReq::SET_VRING_ENABLE
            | FrontendReq::GET_VRING_BASE => self.set_ring(request, payload, reply),
            _ => {}
        }
    }

    fn set_ring(&mut self, request: FrontendReq, payload: &[u8], reply: Option<u64>) {
        let Some((index, value)) = vring_state(payload) else {
            return;
        };
        let ring = self.rings.entry(index).or_default();
        match request {
            FrontendReq::SET_VRING_NUM => ring.size = Some(value),
            FrontendReq::SET_VRING_BASE => ring.base = Some(value),
            FrontendReq::SET_VRING_ENABLE => ring.is_enabled = value == 1,
            _ => {
                ring.is_started = false;
                ring.returned = reply.map(|base| base as u32);
            }
        }
    }

    fn set_places(&mut self, payload: &[u8]) {
        if let Ok(addresses) = VhostUserVringAddr::decode(payload) {
            let ring = self.rings.entry(addresses.index).or_default();
            ring.places = Some(places(&addresses));
            ring.log = (addresses.flags & LOG != 0).then_some(addresses.log);
        }
    }

    fn start(&mut self, payload: &[u8]) {
        if let Ok(file) = VringFile::decode(payload) {
            let ring = self.rings.entry(file.index.into()).or_default();
            ring.is_started = true;
        }
    }
}

/// The places of SET_VRING_ADDR, in the order of [`RingState::places`].
pub fn places(addresses: &VhostUserVringAddr) -> [u64; 3] {
    [addresses.descriptor, addresses.available, addresses.used]
}

/// A ring's number, and the number that is told of it.
pub fn vring_state(payload: &[u8]) -> Option<(u32, u32)> {
    let state = VhostUserVringState::decode(payload).ok()?;
    Some((state.index, state.num))
}
