//! What messages say of the rings of one connection, and what becomes of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use vhost::vhost_user::message::{
    FrontendReq as F, VhostUserProtocolFeatures as Protocol, VhostUserVringAddr,
    VhostUserVringState,
};
use vhost_user_wire::payload::{Config as ConfigPayload, MemoryTable, VringFile};
use vhost_user_wire::{HEADER_SIZE, Payload, Raw};

use super::in_flight::{InFlightRecord, Lost};
use super::mirror::{DevicePlaces, Witness};
use super::tape::Tape;
use super::vring::{Context, Signal, Vring};
use crate::follow::Addresses;
use crate::interpose::{Access, Interposed, Memory, Place, is_eventfd};
use crate::recording::{Config, Item};

/// What is not offered to the driver: VHOST_F_LOG_ALL, because the device's used rings are not in
/// pages of the driver's, and IN_ORDER, with which a device may leave out used entries.
const WITHHELD: u64 = 1 << 26 | 1 << 35;
const RING_PACKED: u64 = 1 << 34;

/// Memory regions that a backend without CONFIGURE_MEM_SLOTS has to take (vhost-user document,
/// "Memory regions description").
const MOST_REGIONS: usize = 8;

/// What is offered to the frontend, where the backend has it: nothing that has rings or guest
/// memory take another way.
const OFFERED: Protocol = Protocol::MQ
    .union(Protocol::RARP)
    .union(Protocol::REPLY_ACK)
    .union(Protocol::MTU)
    .union(Protocol::BACKEND_REQ)
    .union(Protocol::CONFIG)
    .union(Protocol::BACKEND_SEND_FD)
    .union(Protocol::RESET_DEVICE)
    .union(Protocol::STATUS)
    .union(Protocol::INFLIGHT_SHMFD)
    .union(Protocol::DEVICE_STATE);

pub struct Wiring {
    tape: Arc<Tape>,
    memory: Memory,
    places: DevicePlaces,
    features: u64,
    vrings: BTreeMap<u8, Vring>,
    record: Option<InFlightRecord>,
    lost: Arc<Lost>,
    is_closed: bool,
}

impl Wiring {
    pub fn new(tape: Arc<Tape>, lost: Arc<Lost>) -> io::Result<Self> {
        tape.tell(Item::Connected);
        Ok(Self {
            tape,
            memory: Memory::new(Access::ReadWrite),
            places: DevicePlaces::new()?,
            features: 0,
            vrings: BTreeMap::new(),
            record: None,
            lost,
            is_closed: false,
        })
    }

    /// Learns from a message of the frontend, and changes it. One that cannot be read, the backend
    /// refuses; one that comes when the backend has gone, nobody gets.
    pub fn request(&mut self, raw: &mut Raw) -> io::Result<()> {
        let Some((code, payload)) = parse(raw).filter(|_| !self.is_closed) else {
            return Ok(());
        };
        match code {
            F::SET_MEM_TABLE => self.set_memory(&payload, raw),
            F::SET_VRING_ADDR => self.set_addresses(&payload, raw),
            F::SET_VRING_KICK => self.set_kick(&payload, raw),
            F::SET_VRING_CALL => self.set_call(&payload, raw),
            F::SET_INFLIGHT_FD => {
                self.record = InFlightRecord::new(&payload, &raw.files);
                Ok(())
            }
            F::RESET_DEVICE => {
                self.stop_all();
                self.tape.tell(Item::Reset);
                Ok(())
            }
            _ => {
                self.learn(code, &payload);
                Ok(())
            }
        }
    }

    fn learn(&mut self, code: F, payload: &[u8]) {
        let number = || u64::decode(payload).unwrap_or(0);
        match code {
            F::SET_FEATURES => {
                self.features = number();
                self.tape.tell(Item::Features(self.features));
            }
            F::SET_PROTOCOL_FEATURES => self.tape.tell(Item::ProtocolFeatures(number())),
            F::SET_STATUS => self.tape.tell(Item::Status(number())),
            F::SET_CONFIG => {
                if let Some(config) = config(payload) {
                    self.tape.tell(Item::ConfigWritten(config));
                }
            }
            F::SET_VRING_NUM | F::SET_VRING_BASE | F::GET_VRING_BASE | F::SET_VRING_ENABLE => {
                let state = VhostUserVringState::decode(payload).ok();
                let index = state.map(|state| (u8::try_from(state.index), state.num));
                if let Some((Ok(index), num)) = index {
                    self.learn_of_ring(code, index, num);
                }
            }
            _ => {}
        }
    }

    fn learn_of_ring(&mut self, code: F, index: u8, num: u32) {
        let vring = self.vrings.entry(index).or_default();
        match code {
            F::SET_VRING_NUM => vring.set_size(num),
            F::SET_VRING_BASE => vring.set_base(num),
            F::GET_VRING_BASE => vring.begin_stop(),
            _ => self.tape.tell(Item::Enable {
                queue: index,
                on: num != 0,
            }),
        }
    }

    fn set_memory(&mut self, payload: &[u8], raw: &mut Raw) -> io::Result<()> {
        let Ok(MemoryTable(mut regions)) = MemoryTable::decode(payload) else {
            return Ok(());
        };
        let places: Vec<Place> = regions.iter().map(Place::from).collect();
        self.memory.clear();
        for (place, file) in places.iter().zip(&raw.files) {
            self.memory.add(*place, file.try_clone()?);
        }
        let (place, file) = self.places.region(&places)?;
        self.memory.add(place, file.try_clone()?);
        regions.push(vhost::vhost_user::message::VhostUserMemoryRegion::new(
            place.guest,
            place.size,
            place.user,
            place.offset,
        ));
        if regions.len() > MOST_REGIONS {
            return Err(io::Error::other(
                "the frontend has as many memory regions as a message can have, and none is left \
                 for the rings",
            ));
        }
        raw.files.push(file);
        replace(raw, &MemoryTable(regions).to_bytes());
        Ok(())
    }

    /// The device gets its own copy of what it writes, or has to be told in its own time.
    fn set_addresses(&mut self, payload: &[u8], raw: &mut Raw) -> io::Result<()> {
        let Ok(mut address) = VhostUserVringAddr::decode(payload) else {
            return Ok(());
        };
        let Ok(index) = u8::try_from(address.index) else {
            return Ok(());
        };
        let device = self.device_addresses(index)?;
        let vring = self.vrings.entry(index).or_default();
        vring.set_addresses(Addresses {
            descriptors: address.descriptor,
            driver: address.available,
            device: address.used,
        });
        (address.available, address.used) = (device.driver, device.device);
        if self.features & RING_PACKED != 0 {
            address.descriptor = device.descriptors;
        }
        replace(raw, &address.to_bytes());
        Ok(())
    }

    fn device_addresses(&self, index: u8) -> io::Result<Addresses> {
        let addresses = self.places.of_queue(index);
        addresses.ok_or_else(|| {
            io::Error::other(
                "the frontend set up a ring before it shared its memory (SET_MEM_TABLE)",
            )
        })
    }

    /// The ring starts, if it does not run.
    fn set_kick(&mut self, payload: &[u8], raw: &mut Raw) -> io::Result<()> {
        let Ok(VringFile { index, .. }) = VringFile::decode(payload) else {
            return Ok(());
        };
        let kick = match &raw.files[..] {
            [file] if is_eventfd(file) => file.try_clone()?,
            _ => {
                return Err(io::Error::other(format!(
                    "the frontend hands over no eventfd for kicks of queue {index}"
                )));
            }
        };
        let (kick, theirs) = Interposed::behind(kick)?;
        raw.files = vec![theirs];
        let device = self.device_addresses(index)?;
        let left = self.lost.take(index, self.record.as_ref());
        let (vring, context) = self.vring(index);
        vring.start(index, kick, device, left, context)
    }

    fn set_call(&mut self, payload: &[u8], raw: &mut Raw) -> io::Result<()> {
        let Ok(VringFile { index, .. }) = VringFile::decode(payload) else {
            return Ok(());
        };
        let call = match &raw.files[..] {
            [file] if is_eventfd(file) => file.try_clone()?,
            // A driver that wants no calls: here they are needed all the same.
            _ => File::from(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?),
        };
        let (call, theirs) = Interposed::before(call)?;
        raw.files = vec![theirs];
        let has_file = true;
        replace(raw, &VringFile { index, has_file }.to_bytes());
        let (vring, context) = self.vring(index);
        vring.set_call(call, context)
    }

    fn vring(&mut self, index: u8) -> (&mut Vring, Context<'_>) {
        let context = Context {
            memory: &self.memory,
            tape: &self.tape,
            features: self.features,
        };
        (self.vrings.entry(index).or_default(), context)
    }

    /// Learns from a message of the backend, and changes it.
    pub fn reply(&mut self, raw: &mut Raw) -> io::Result<()> {
        let Some((code, payload)) = parse(raw).filter(|_| !self.is_closed) else {
            return Ok(());
        };
        match code {
            F::GET_FEATURES => {
                if let Ok(features) = u64::decode(&payload) {
                    replace(raw, &(features & !WITHHELD).to_bytes());
                }
            }
            F::GET_PROTOCOL_FEATURES => {
                if let Ok(features) = u64::decode(&payload) {
                    replace(raw, &(features & OFFERED.bits()).to_bytes());
                }
            }
            F::GET_CONFIG => {
                if let Some(config) = config(&payload) {
                    self.tape.tell(Item::Config(config));
                }
            }
            F::GET_VRING_BASE => {
                if let Ok(state) = VhostUserVringState::decode(&payload)
                    && let Ok(queue) = u8::try_from(state.index)
                {
                    let (vring, context) = self.vring(queue);
                    vring.stop(context)?;
                    let base = state.num;
                    self.tape.tell(Item::Stop { queue, base });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn lose_all(&mut self) {
        let indices: Vec<u8> = self.vrings.keys().copied().collect();
        for index in indices {
            let (vring, context) = self.vring(index);
            if let Some(left) = vring.leave(context) {
                self.lost.keep(index, left);
            }
        }
    }

    fn stop_all(&mut self) {
        let indices: Vec<u8> = self.vrings.keys().copied().collect();
        for index in indices {
            let (vring, context) = self.vring(index);
            // Who cannot be signalled has gone.
            let _ = vring.stop(context);
        }
    }

    /// One side has gone. The driver gets what the device has used.
    pub fn close(&mut self, by_backend: bool) {
        if !self.is_closed {
            self.lose_all();
            self.tape.tell(Item::Closed { by_backend });
            self.is_closed = true;
        }
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// What to wait for.
    pub fn watched(&self) -> impl Iterator<Item = Signal> {
        let vrings = self.vrings.iter();
        vrings.flat_map(|(index, vring)| vring.signals(*index))
    }

    /// Passes a signal on, and what it is about, if it still is the queue's.
    pub fn signal(&mut self, signal: &Signal) -> io::Result<()> {
        let is_current = self
            .watched()
            .any(|current| Arc::ptr_eq(&current.wire, &signal.wire));
        if !is_current || self.is_closed {
            return Ok(());
        }
        signal.wire.take()?;
        let (vring, context) = self.vring(signal.queue);
        match signal.is_kick {
            true => vring.pass_available(context),
            false => vring.pass_used(context),
        }
    }
}

/// The code and the payload of a message that is complete.
fn parse(raw: &Raw) -> Option<(F, Vec<u8>)> {
    let header = raw.header()?;
    let code = F::try_from(header.request).ok()?;
    let payload = raw.bytes.get(HEADER_SIZE..)?;
    (payload.len() == header.size as usize).then(|| (code, payload.to_vec()))
}

/// Gives a message another payload.
fn replace(raw: &mut Raw, payload: &[u8]) {
    if let Some(mut header) = raw.header() {
        header.size = payload.len() as u32;
        raw.bytes = [&header.to_bytes()[..], payload].concat();
    }
}

fn config(payload: &[u8]) -> Option<Config> {
    let ConfigPayload { access, bytes } = ConfigPayload::decode(payload).ok()?;
    let offset = access.offset;
    (!bytes.is_empty()).then_some(Config { offset, bytes })
}
