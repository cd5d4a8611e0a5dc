use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use vhost::vhost_user::message::{
    VhostUserLog, VhostUserMemory, VhostUserMemoryRegion, VhostUserSingleMemoryRegion,
    VhostUserVringAddr, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost_user_wire::Header;
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestAddressSpace, GuestMemoryBackend};

use super::*;
use crate::progress::Progress;
use crate::shutdown::Shutdown;
use crate::testing::{Events, Recorder, eventfd, memfd};

const NEED_REPLY: u32 = 0x8;
const USER: u64 = 0x7000_0000_0000;
const MEMORY: u64 = 0x10_0000;
const PROTOCOL_FEATURES: u64 = 1 << 30;
const LOG_ALL: u64 = 1 << 26;
const PACKED: u64 = 1 << VIRTIO_F_RING_PACKED;

/// A device, a session on it, and the frontend's end of the socket.
struct Bench {
    device: Device<Arc<Recorder>>,
    recorder: Arc<Recorder>,
    events: Events,
    connection: Connection,
    far: UnixStream,
}

impl Bench {
    fn new(queues: usize) -> Self {
        Self::with_features(queues, 0)
    }

    fn with_features(queues: usize, features: u64) -> Self {
        let (mut recorder, events) = Recorder::new(queues);
        Arc::get_mut(&mut recorder).unwrap().features |= features;
        let shutdown = Shutdown::new().unwrap();
        let device = Device::new(Arc::clone(&recorder), &shutdown.handle()).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        Bench {
            device,
            recorder,
            events,
            connection: Connection::to_frontend(near),
            far,
        }
    }

    /// Splits the borrow: the session keeps the device, the rest talks to it.
    fn talk(&mut self) -> (Talk<'_>, &Recorder, &Events) {
        let talk = Talk {
            session: Session::new(&self.device),
            connection: &self.connection,
            far: &self.far,
        };
        (talk, &self.recorder, &self.events)
    }
}

struct Talk<'a> {
    session: Session<'a, Arc<Recorder>>,
    connection: &'a Connection,
    far: &'a UnixStream,
}

impl Talk<'_> {
    fn try_ask(
        &mut self,
        code: u32,
        flags: u32,
        payload: &[u8],
        files: Vec<File>,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        let mut header = Header::request(code, payload.len());
        header.flags |= flags;
        let request = Message {
            header,
            payload: payload.to_vec(),
            files,
        };
        self.session.handle(self.connection, request)?;
        let mut bytes = vec![0; 8192];
        let Ok(n) = self.far.read(&mut bytes) else {
            return Ok(None);
        };
        let word = |i: usize| u32::from_ne_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap());
        assert_eq!([word(0), word(1), word(2)], [code, 0x5, n as u32 - 12]);
        Ok(Some(bytes[12..n].to_vec()))
    }

    fn ask(&mut self, kind: FrontendReq, payload: &[u8], files: Vec<File>) -> Option<Vec<u8>> {
        self.try_ask(kind as u32, 0, payload, files).unwrap()
    }

    /// Sends a request with NEED_REPLY; whether it was acknowledged with 0.
    fn acked(&mut self, kind: FrontendReq, payload: &[u8], files: Vec<File>) -> bool {
        let reply = self.try_ask(kind as u32, NEED_REPLY, payload, files);
        let value = reply.unwrap().expect("an acknowledgement");
        u64::from_ne_bytes(value.try_into().unwrap()) == 0
    }

    fn get(&mut self, kind: FrontendReq) -> u64 {
        let reply = self.ask(kind, &[], vec![]).expect("a reply");
        u64::from_ne_bytes(reply.try_into().unwrap())
    }

    fn negotiate(&mut self) {
        let protocol = self.get(FrontendReq::GET_PROTOCOL_FEATURES);
        assert_ne!(protocol & Protocol::REPLY_ACK.bits(), 0);
        // The request that turns acknowledgements on is acknowledged: user-mode-linux waits.
        let bits = protocol.to_ne_bytes();
        assert!(self.acked(FrontendReq::SET_PROTOCOL_FEATURES, &bits, vec![]));
        let features = self.get(FrontendReq::GET_FEATURES).to_ne_bytes();
        assert!(self.acked(FrontendReq::SET_FEATURES, &features, vec![]));
    }

    fn set_memory(&mut self, guest: u64, user: u64) -> File {
        let file = memfd(MEMORY);
        let table = mem_table(&[VhostUserMemoryRegion::new(guest, MEMORY, user, 0)]);
        let sent = vec![file.try_clone().unwrap()];
        assert!(self.acked(FrontendReq::SET_MEM_TABLE, &table, sent));
        file
    }

    /// Everything a ring needs except SET_VRING_ENABLE. Returns kick and call.
    fn set_ring(&mut self, index: u32, base: u32) -> (File, File) {
        use FrontendReq as R;
        let (kick, call) = (eventfd(), eventfd());
        assert!(self.acked(R::SET_VRING_NUM, state(index, 16).as_slice(), vec![]));
        let at = addresses(index, USER);
        assert!(self.acked(R::SET_VRING_ADDR, at.as_slice(), vec![]));
        assert!(self.acked(R::SET_VRING_BASE, state(index, base).as_slice(), vec![]));
        let fd = |file: &File| vec![file.try_clone().unwrap()];
        let number = u64::from(index).to_ne_bytes();
        assert!(self.acked(R::SET_VRING_CALL, &number, fd(&call)));
        assert!(self.acked(R::SET_VRING_KICK, &number, fd(&kick)));
        (kick, call)
    }

    fn enable(&mut self, index: u32, on: bool) -> bool {
        let value = state(index, u32::from(on));
        self.acked(FrontendReq::SET_VRING_ENABLE, value.as_slice(), vec![])
    }

    fn base(&mut self, index: u32) -> u32 {
        let reply = self.ask(
            FrontendReq::GET_VRING_BASE,
            state(index, 0).as_slice(),
            vec![],
        );
        let reply: VhostUserVringState = Payload::decode(&reply.unwrap()).unwrap();
        assert_eq!({ reply.index }, index);
        reply.num
    }
}

fn state(index: u32, num: u32) -> VhostUserVringState {
    VhostUserVringState::new(index, num)
}

fn addresses(index: u32, user: u64) -> VhostUserVringAddr {
    let ring = user + 0x4000 * u64::from(index);
    let flags = VhostUserVringAddrFlags::empty();
    VhostUserVringAddr::new(index, flags, ring, ring + 0x2000, ring + 0x1000, 0)
}

fn mem_table(regions: &[VhostUserMemoryRegion]) -> Vec<u8> {
    let mut payload = VhostUserMemory::new(regions.len() as u32)
        .as_slice()
        .to_vec();
    for region in regions {
        payload.extend_from_slice(region.as_slice());
    }
    payload
}

fn signal(mut file: &File) {
    file.write_all(&1u64.to_ne_bytes()).unwrap();
}

fn count(mut file: &File) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact(&mut bytes)
        .map_or(0, |()| u64::from_ne_bytes(bytes))
}

#[test]
fn features_are_offered_masked_and_checked() {
    let mut bench = Bench::new(1);
    let (mut talk, recorder, _) = bench.talk();
    let offered = talk.get(FrontendReq::GET_FEATURES);
    assert_eq!(offered, recorder.features | PROTOCOL_FEATURES | LOG_ALL);
    let accept = (1u64 << 29 | PROTOCOL_FEATURES).to_ne_bytes();
    // REPLY_ACK is not negotiated yet: the flag means nothing.
    let reply = talk.try_ask(
        FrontendReq::SET_FEATURES as u32,
        NEED_REPLY,
        &accept,
        vec![],
    );
    assert_eq!(reply.unwrap(), None);
    assert!(recorder.event_idx.load(Ordering::SeqCst));
    talk.negotiate();
    let unoffered = (1u64 << 5).to_ne_bytes();
    assert!(!talk.acked(FrontendReq::SET_FEATURES, &unoffered, vec![]));
    assert_eq!(recorder.acked.load(Ordering::SeqCst), offered & !LOG_ALL);
    assert_eq!(talk.get(FrontendReq::GET_QUEUE_NUM), 1);
    assert_eq!(talk.get(FrontendReq::GET_MAX_MEM_SLOTS), 509);
    let unoffered = Protocol::INFLIGHT_SHMFD | Protocol::REPLY_ACK;
    let unoffered = unoffered.bits().to_ne_bytes();
    assert!(!talk.acked(FrontendReq::SET_PROTOCOL_FEATURES, &unoffered, vec![]));
}

#[test]
fn what_cannot_be_served_is_answered_and_the_session_goes_on() {
    let mut bench = Bench::new(1);
    let (mut talk, _, _) = bench.talk();
    talk.negotiate();
    let nack = Some(1u64.to_ne_bytes().to_vec());
    // Unknown, unsupported, too short, with stray descriptors, and a reply to nothing.
    assert_eq!(
        talk.try_ask(9999, NEED_REPLY, &[0; 64], vec![]).unwrap(),
        nack
    );
    assert_eq!(talk.try_ask(9999, 0, &[], vec![]).unwrap(), None);
    assert!(!talk.acked(FrontendReq::SEND_RARP, &[0; 8], vec![]));
    assert!(!talk.acked(FrontendReq::SET_VRING_NUM, &[0; 7], vec![]));
    assert!(!talk.acked(FrontendReq::SET_MEM_TABLE, &mem_table(&[]), vec![memfd(1)]));
    let owner = FrontendReq::SET_OWNER as u32;
    assert_eq!(
        talk.try_ask(owner, 0x4 | NEED_REPLY, &[], vec![]).unwrap(),
        nack
    );
    // Requests with an answer of their own.
    let config = VhostUserConfig::new(4090, 100, vhost_flags());
    let reply = talk.ask(FrontendReq::GET_CONFIG, config.as_slice(), vec![]);
    assert_eq!(reply, Some(vec![]));
    let reply = talk.ask(FrontendReq::GET_INFLIGHT_FD, &[0; 24], vec![]);
    assert_eq!(reply, Some(vec![0; 24]));
    assert_ne!(talk.get(FrontendReq::CHECK_DEVICE_STATE) & 0xff, 0);
    // No such ring: there is no way to say so, and the frontend waits.
    let base = talk.try_ask(FrontendReq::GET_VRING_BASE as u32, 0, &[9; 8], vec![]);
    assert!(matches!(base, Err(SessionError::Unanswerable { .. })));
    assert!(talk.acked(FrontendReq::SET_OWNER, &[], vec![]));
}

fn vhost_flags() -> vhost::vhost_user::message::VhostUserConfigFlags {
    vhost::vhost_user::message::VhostUserConfigFlags::empty()
}

#[test]
fn configuration_space_is_read_in_any_length_and_written() {
    let mut bench = Bench::new(1);
    let (mut talk, recorder, _) = bench.talk();
    talk.negotiate();
    let mut message = VhostUserConfig::new(2, 5, vhost_flags())
        .as_slice()
        .to_vec();
    message.extend_from_slice(&[0xee; 5]);
    let reply = talk.ask(FrontendReq::GET_CONFIG, &message, vec![]).unwrap();
    assert_eq!(reply[..12], message[..12]);
    assert_eq!(reply[12..], [3, 4, 0, 0, 0]);
    assert!(talk.acked(FrontendReq::SET_CONFIG, &message, vec![]));
    assert_eq!(*recorder.written.lock().unwrap(), [(2, vec![0xee; 5])]);
    assert!(!talk.acked(FrontendReq::SET_CONFIG, &message[..16], vec![]));
    recorder.failing.store(true, Ordering::SeqCst);
    assert!(!talk.acked(FrontendReq::SET_CONFIG, &message, vec![]));
}

#[test]
fn a_memory_table_at_full_size_is_accepted() {
    let mut bench = Bench::new(1);
    let (mut talk, recorder, _) = bench.talk();
    talk.negotiate();
    // user-mode-linux: one region, and room for another.
    let mut table = mem_table(&[VhostUserMemoryRegion::new(0, MEMORY, USER, 0)]);
    table.resize(72, 0);
    assert!(talk.acked(FrontendReq::SET_MEM_TABLE, &table, vec![memfd(MEMORY)]));
    let memory = recorder.memory.lock().unwrap().clone().unwrap();
    assert_eq!(memory.memory().num_regions(), 1);
    // A count beyond the payload, and descriptors that do not match the count.
    table[0] = 3;
    let files = || (0..3).map(|_| memfd(MEMORY)).collect();
    assert!(!talk.acked(FrontendReq::SET_MEM_TABLE, &table, files()));
    table[0] = 1;
    assert!(!talk.acked(FrontendReq::SET_MEM_TABLE, &table, files()));
    assert!(!talk.acked(FrontendReq::SET_MEM_TABLE, &table, vec![]));
    table[0..4].copy_from_slice(&u32::MAX.to_ne_bytes());
    assert!(!talk.acked(FrontendReq::SET_MEM_TABLE, &table, files()));
    // What was refused changed nothing.
    assert_eq!(memory.memory().num_regions(), 1);
}

#[test]
fn regions_are_added_and_removed() {
    let mut bench = Bench::new(1);
    let (mut talk, recorder, _) = bench.talk();
    talk.negotiate();
    let add = VhostUserSingleMemoryRegion::new(0, MEMORY, USER, 0);
    assert!(talk.acked(
        FrontendReq::ADD_MEM_REG,
        add.as_slice(),
        vec![memfd(MEMORY)]
    ));
    assert!(!talk.acked(
        FrontendReq::ADD_MEM_REG,
        add.as_slice(),
        vec![memfd(MEMORY)]
    ));
    let memory = recorder.memory.lock().unwrap().clone().unwrap();
    assert_eq!(memory.memory().num_regions(), 1);
    // Some frontends attach a descriptor to the removal.
    assert!(talk.acked(FrontendReq::REM_MEM_REG, add.as_slice(), vec![memfd(1)]));
    assert!(!talk.acked(FrontendReq::REM_MEM_REG, add.as_slice(), vec![]));
    assert_eq!(memory.memory().num_regions(), 0);
}

/// The pages of memory that a log's file says were written.
fn logged(file: &File) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 0).unwrap();
    u64::from_le_bytes(bytes)
}

#[test]
fn what_is_written_is_logged_while_the_frontend_wants_it() {
    let mut bench = Bench::new(1);
    let (mut talk, recorder, _) = bench.talk();
    talk.negotiate();
    talk.set_memory(0, USER);
    let features = talk.get(FrontendReq::GET_FEATURES);
    let file = memfd(4096);
    let log = |size| VhostUserLog::new(size, 0).as_slice().to_vec();
    let sent = || vec![file.try_clone().unwrap()];
    // One that is too small for the memory says so in its answer.
    let refused = talk.ask(FrontendReq::SET_LOG_BASE, &log(31), sent());
    assert_eq!(refused, Some(log(0)));
    let taken = talk.ask(FrontendReq::SET_LOG_BASE, &log(32), sent());
    assert_eq!(taken, Some(log(32)));
    let write = |at: u64| {
        let memory = recorder.memory.lock().unwrap().clone().unwrap();
        memory.memory().write_obj(1u8, GuestAddress(at)).unwrap();
    };
    write(0x1000);
    recorder.acked.store(7, Ordering::SeqCst);
    let without = (features & !LOG_ALL).to_ne_bytes();
    assert!(talk.acked(FrontendReq::SET_FEATURES, &without, vec![]));
    write(0x2000);
    assert!(talk.acked(FrontendReq::SET_FEATURES, &features.to_ne_bytes(), vec![]));
    write(0x3000);
    // The device need not know.
    assert_eq!(recorder.acked.load(Ordering::SeqCst), 7);
    assert_eq!(logged(&file), 1 << 1 | 1 << 3);
    // Memory that is added is logged too; what the log has no room for is refused.
    let beyond = VhostUserSingleMemoryRegion::new(MEMORY, 0x1000, USER + MEMORY, 0);
    let add = FrontendReq::ADD_MEM_REG;
    assert!(!talk.acked(add, beyond.as_slice(), vec![memfd(0x1000)]));
    talk.set_memory(0, USER);
    write(0x5000);
    assert_eq!(logged(&file), 1 << 1 | 1 << 3 | 1 << 5);
}

/// The ring is at page 2 of memory, and is logged as page 40 while it runs with VHOST_VRING_F_LOG.
#[test]
fn a_used_ring_is_logged_at_its_own_address_from_the_message_on() {
    let mut bench = Bench::new(1);
    let (mut talk, recorder, _) = bench.talk();
    talk.negotiate();
    talk.set_memory(0, USER);
    talk.set_ring(0, 0);
    talk.enable(0, true);
    let file = memfd(4096);
    let log = VhostUserLog::new(4096, 0);
    talk.ask(
        FrontendReq::SET_LOG_BASE,
        log.as_slice(),
        vec![file.try_clone().unwrap()],
    );
    let features = talk.get(FrontendReq::GET_FEATURES).to_ne_bytes();
    assert!(talk.acked(FrontendReq::SET_FEATURES, &features, vec![]));
    let write = |at: u64| {
        let memory = recorder.memory.lock().unwrap().clone().unwrap();
        memory.memory().write_obj(1u8, GuestAddress(at)).unwrap();
    };
    let mut address = addresses(0, USER);
    address.flags = VhostUserVringAddrFlags::VHOST_VRING_F_LOG.bits();
    address.log = 40 << 12;
    assert!(talk.acked(FrontendReq::SET_VRING_ADDR, address.as_slice(), vec![]));
    write(0x1000);
    assert_eq!(logged(&file), 1 << 1);
    write(0x2000);
    assert_eq!(logged(&file), 1 << 1 | 1 << 2 | 1 << 40);
    // One that the log has no room for is refused.
    address.log = 0x1000_0000;
    assert!(!talk.acked(FrontendReq::SET_VRING_ADDR, address.as_slice(), vec![]));
    let plain = addresses(0, USER);
    assert!(talk.acked(FrontendReq::SET_VRING_ADDR, plain.as_slice(), vec![]));
}

#[test]
fn without_log_shmfd_nobody_waits_for_an_answer_about_a_log() {
    let mut bench = Bench::new(1);
    let (mut talk, _, _) = bench.talk();
    // As the vhost crate's frontend sends it then: an address, and no file.
    let base = 0u64.to_ne_bytes();
    assert_eq!(talk.ask(FrontendReq::SET_LOG_BASE, &base, vec![]), None);
    let acks = Protocol::REPLY_ACK.bits().to_ne_bytes();
    assert!(talk.acked(FrontendReq::SET_PROTOCOL_FEATURES, &acks, vec![]));
    let log = VhostUserLog::new(32, 0);
    let file = || vec![memfd(4096)];
    let log_base = FrontendReq::SET_LOG_BASE;
    assert_eq!(talk.ask(log_base, log.as_slice(), file()), None);
    assert!(!talk.acked(log_base, log.as_slice(), file()));
}

#[test]
fn a_ring_runs_when_it_is_complete_whatever_the_order() {
    let mut bench = Bench::new(1);
    let (mut talk, _, events) = bench.talk();
    talk.negotiate();
    // Enabled and kicked before anything else is known, the memory last of all.
    assert!(talk.enable(0, true));
    let (kick, _call) = talk.set_ring(0, 0);
    signal(&kick);
    assert!(events.none());
    talk.set_memory(0, USER);
    assert_eq!(events.next(), (0, 0));
    signal(&kick);
    assert_eq!(events.next(), (0, 0));
}

#[test]
fn without_protocol_features_rings_start_enabled() {
    let mut bench = Bench::new(1);
    let (mut talk, _, events) = bench.talk();
    talk.negotiate();
    talk.set_memory(0, USER);
    talk.set_ring(0, 0);
    assert!(events.none());
    let plain = (1u64 << 32).to_ne_bytes();
    assert!(talk.acked(FrontendReq::SET_FEATURES, &plain, vec![]));
    assert_eq!(events.next(), (0, 0));
}

#[test]
fn get_vring_base_stops_the_ring_and_says_where_it_stands() {
    let mut bench = Bench::new(2);
    let (mut talk, recorder, events) = bench.talk();
    talk.negotiate();
    talk.set_memory(0, USER);
    let (kick, call) = talk.set_ring(1, 77);
    assert!(talk.enable(1, true));
    events.next();
    assert_eq!(talk.base(1), 77);
    assert_eq!(*recorder.stops.lock().unwrap(), [1]);
    signal(&kick);
    // Enabling is not enough to run again: it lacks a kick descriptor.
    assert!(talk.enable(1, true));
    assert!(events.none());
    let number = 1u64.to_ne_bytes();
    let sent = vec![kick.try_clone().unwrap()];
    assert!(talk.acked(FrontendReq::SET_VRING_KICK, &number, sent));
    events.next();
    assert_eq!(talk.base(1), 77);
    // A ring that never ran.
    assert_eq!(talk.base(0), 0);
    drop(call);
}

#[test]
fn a_ring_outside_memory_is_refused_and_says_so() {
    let mut bench = Bench::new(1);
    let (mut talk, _, events) = bench.talk();
    talk.negotiate();
    talk.set_memory(0, USER);
    talk.set_ring(0, 0);
    let outside = addresses(0, USER + MEMORY - 0x1000);
    assert!(talk.acked(FrontendReq::SET_VRING_ADDR, outside.as_slice(), vec![]));
    assert!(!talk.enable(0, true));
    assert!(events.none());
    // Put right, it runs without being enabled once more.
    let inside = addresses(0, USER);
    assert!(talk.acked(FrontendReq::SET_VRING_ADDR, inside.as_slice(), vec![]));
    events.next();
    // A guest address where a user address belongs.
    assert!(!talk.acked(
        FrontendReq::SET_VRING_ADDR,
        addresses(0, 0).as_slice(),
        vec![]
    ));
}

#[test]
fn a_refused_change_leaves_a_running_ring_as_it_was() {
    let mut bench = Bench::new(1);
    let (mut talk, _, events) = bench.talk();
    talk.negotiate();
    talk.set_memory(0, USER);
    let (kick, _call) = talk.set_ring(0, 5);
    assert!(talk.enable(0, true));
    events.next();
    for wrong in [0, 3, 512] {
        let request = FrontendReq::SET_VRING_NUM;
        assert!(!talk.acked(request, state(0, wrong).as_slice(), vec![]));
        events.next();
    }
    signal(&kick);
    events.next();
    assert_eq!(talk.base(0), 5);
}

#[test]
fn memory_can_move_under_a_running_ring() {
    let mut bench = Bench::new(1);
    let (mut talk, recorder, events) = bench.talk();
    talk.negotiate();
    talk.set_memory(0, USER);
    let (kick, _call) = talk.set_ring(0, 3);
    assert!(talk.enable(0, true));
    events.next();
    let file = talk.set_memory(0x4000_0000, USER);
    events.next();
    let memory = recorder.memory.lock().unwrap().clone().unwrap();
    memory
        .memory()
        .write_obj(0x55u8, GuestAddress(0x4000_0000))
        .unwrap();
    let mut byte = [0];
    (&file).read_exact(&mut byte).unwrap();
    assert_eq!(byte, [0x55], "it is the new file");
    signal(&kick);
    events.next();
    // A table without the ring stops it; the frontend is told, the session lives.
    let elsewhere = mem_table(&[VhostUserMemoryRegion::new(0, MEMORY, USER + (1 << 30), 0)]);
    let file = vec![memfd(MEMORY)];
    assert!(!talk.acked(FrontendReq::SET_MEM_TABLE, &elsewhere, file));
    signal(&kick);
    assert_eq!(talk.base(0), 3);
    assert!(events.none());
}

#[test]
fn a_ring_that_cannot_go_on_does_not_hold_up_the_others() {
    let mut bench = Bench::new(2);
    let (mut talk, recorder, events) = bench.talk();
    talk.negotiate();
    talk.set_memory(0, USER);
    let (_kick, _call) = talk.set_ring(0, 1);
    let (kick, call) = talk.set_ring(1, 2);
    for index in [0, 1] {
        assert!(talk.enable(index, true));
        assert_eq!(events.next(), (0, index as usize));
    }
    // A table that has ring 1 (at 0x4000) and not ring 0.
    let region = VhostUserMemoryRegion::new(0x4000, MEMORY, USER + 0x4000, 0);
    let table = mem_table(&[region]);
    assert!(!talk.acked(FrontendReq::SET_MEM_TABLE, &table, vec![memfd(MEMORY)]));
    assert_eq!(events.next(), (0, 1));
    signal(&kick);
    assert_eq!(events.next(), (0, 1));
    // A device that fails to stop is forgotten all the same.
    recorder.failing.store(true, Ordering::SeqCst);
    talk.session.end().unwrap();
    // Those of one step stop side by side.
    let mut stops = recorder.stops.lock().unwrap().clone();
    stops.sort_unstable();
    assert_eq!(stops, [0, 1, 1]);
    assert!(bench.device.vring(1).get_ref().get_call().is_none());
    drop(call);
}

#[test]
fn polling_mode_is_refused_but_a_ring_needs_no_interrupts() {
    let mut bench = Bench::new(1);
    let (mut talk, _, events) = bench.talk();
    talk.negotiate();
    talk.set_memory(0, USER);
    let (_kick, call) = talk.set_ring(0, 0);
    assert!(talk.enable(0, true));
    events.next();
    assert_eq!(count(&call), 0);
    // A new call descriptor is signalled once: an interrupt may have been lost in the change.
    let fd = |file: &File| vec![file.try_clone().unwrap()];
    let next = eventfd();
    assert!(talk.acked(FrontendReq::SET_VRING_CALL, &0u64.to_ne_bytes(), fd(&next)));
    assert_eq!((count(&call), count(&next)), (0, 1));
    let no_fd = 0x100u64.to_ne_bytes();
    assert!(talk.acked(FrontendReq::SET_VRING_CALL, &no_fd, vec![]));
    assert!(talk.acked(FrontendReq::SET_VRING_ERR, &no_fd, vec![]));
    assert!(!talk.acked(FrontendReq::SET_VRING_CALL, &no_fd, fd(&next)));
    assert!(!talk.acked(FrontendReq::SET_VRING_CALL, &0u64.to_ne_bytes(), vec![]));
    assert!(!talk.acked(FrontendReq::SET_VRING_CALL, &9u64.to_ne_bytes(), fd(&next)));
    assert!(!talk.acked(FrontendReq::SET_VRING_KICK, &no_fd, vec![]));
    assert_eq!(talk.base(0), 0);
}

#[test]
fn reset_device_forgets_the_device_but_not_the_session() {
    let mut bench = Bench::new(1);
    let (mut talk, recorder, events) = bench.talk();
    talk.negotiate();
    talk.set_memory(0, USER);
    let (kick, _call) = talk.set_ring(0, 3);
    assert!(talk.enable(0, true));
    events.next();
    assert!(talk.acked(FrontendReq::RESET_DEVICE, &[], vec![]));
    assert_eq!(recorder.resets.load(Ordering::SeqCst), 1);
    signal(&kick);
    assert_eq!(talk.base(0), 0);
    assert!(events.none());
    talk.negotiate();
    talk.set_ring(0, 0);
    assert!(talk.enable(0, true));
    events.next();
}

#[test]
fn status_is_kept_and_zero_resets_the_device() {
    let mut bench = Bench::new(1);
    let (mut talk, recorder, events) = bench.talk();
    talk.negotiate();
    talk.set_memory(0, USER);
    talk.set_ring(0, 0);
    assert!(talk.enable(0, true));
    events.next();
    let set = |talk: &mut Talk<'_>, value: u64| {
        assert!(talk.acked(FrontendReq::SET_STATUS, &value.to_ne_bytes(), vec![]));
    };
    set(&mut talk, 0xf);
    assert_eq!(talk.get(FrontendReq::GET_STATUS), 0xf);
    assert_eq!(recorder.resets.load(Ordering::SeqCst), 0);
    set(&mut talk, 0);
    assert_eq!(talk.get(FrontendReq::GET_STATUS), 0);
    assert_eq!(recorder.resets.load(Ordering::SeqCst), 1);
    assert_eq!(*recorder.stops.lock().unwrap(), [0]);
}

#[test]
fn the_backend_channel_must_be_a_socket() {
    let mut bench = Bench::new(1);
    let (mut talk, _, _) = bench.talk();
    talk.negotiate();
    let request = FrontendReq::SET_BACKEND_REQ_FD;
    assert!(!talk.acked(request, &[], vec![eventfd()]));
    assert!(!talk.acked(request, &[], vec![]));
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let ours = File::from(OwnedFd::from(ours));
    assert!(talk.acked(request, &[], vec![ours]));
    // A device that has nothing to say does not hang up either, until the session ends.
    theirs.set_nonblocking(true).unwrap();
    let silent = theirs.read(&mut [0]).unwrap_err();
    assert_eq!(silent.kind(), std::io::ErrorKind::WouldBlock);
    talk.session.end().unwrap();
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
}

#[test]
fn the_end_leaves_nothing_behind() {
    let mut bench = Bench::new(2);
    let (mut talk, _, events) = bench.talk();
    talk.negotiate();
    talk.set_memory(0, USER);
    let (kick, call) = talk.set_ring(1, 3);
    assert!(talk.enable(1, true));
    assert_eq!(events.next(), (0, 1));
    talk.session.end().unwrap();
    let recorder = Arc::clone(&bench.recorder);
    assert_eq!(recorder.resets.load(Ordering::SeqCst), 1);
    let memory = recorder.memory.lock().unwrap().clone().unwrap();
    assert_eq!(memory.memory().num_regions(), 0);
    signal(&kick);
    let vring = bench.device.vring(1);
    assert!(vring.get_ref().get_call().is_none());
    assert!(!vring.get_ref().is_enabled());
    drop(call);
    // The next frontend starts from nothing.
    let (mut talk, _, events) = bench.talk();
    talk.negotiate();
    talk.set_memory(0, USER);
    assert_eq!(talk.base(1), 0);
    assert!(events.none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any request in any state is answered or refused, never a panic.
    #[test]
    fn no_request_makes_it_panic(
        requests in proptest::collection::vec(
            (0u32..50, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..80), 0usize..3),
            1..12,
        )
    ) {
        let mut bench = Bench::new(1);
        let (mut talk, _, _) = bench.talk();
        talk.negotiate();
        for (code, need_reply, payload, fds) in requests {
            let flags = if need_reply { NEED_REPLY } else { 0 };
            let files = (0..fds).map(|_| memfd(4096)).collect();
            let header = Header { request: code, flags: flags | 1, size: payload.len() as u32 };
            let request = Message { header, payload, files };
            if talk.session.handle(talk.connection, request).is_err() {
                break;
            }
        }
        talk.session.end().unwrap();
    }
}

#[test]
fn a_device_that_keeps_no_record_says_so() {
    let mut bench = Bench::new(2);
    let (mut talk, ..) = bench.talk();
    talk.negotiate();
    let protocol = talk.get(FrontendReq::GET_PROTOCOL_FEATURES);
    assert_eq!(protocol & Protocol::INFLIGHT_SHMFD.bits(), 0);
    let mut asked = [0; 24];
    asked[16] = 2;
    asked[18] = 16;
    // "No record" in the request's own terms; and the session continues.
    let none = talk.ask(FrontendReq::GET_INFLIGHT_FD, &asked, vec![]);
    assert_eq!(none, Some(vec![0; 24]));
    assert!(!talk.acked(FrontendReq::SET_INFLIGHT_FD, &asked, vec![memfd(4096)]));
}

#[test]
fn a_record_is_used_by_running_rings_and_ends_with_a_reset() {
    let mut bench = Bench::new(1);
    bench.device.keep_records();
    let record = bench.device.record(0).unwrap();
    assert!(bench.device.record(1).is_none());
    let (mut talk, ..) = bench.talk();
    talk.negotiate();
    talk.set_memory(0, USER);
    talk.set_ring(0, 3);
    assert!(talk.enable(0, true));
    assert!(matches!(*record.lock(), Progress::Split(None)));
    // Of 16 entries a record takes 16 + 16 * 16 bytes, rounded up to a multiple of 64.
    let mut place = [0; 24];
    place[..8].copy_from_slice(&320u64.to_ne_bytes());
    place[16] = 1;
    place[18] = 16;
    let file = memfd(320);
    let given = |file: &File| vec![file.try_clone().unwrap()];
    assert!(talk.acked(FrontendReq::SET_INFLIGHT_FD, &place, given(&file)));
    assert!(matches!(*record.lock(), Progress::Split(Some(_))));
    // Two chains that another backend took: the ring resumes behind them, but stands before.
    file.write_all_at(&[1], 16).unwrap();
    file.write_all_at(&[1], 16 + 16).unwrap();
    assert!(talk.acked(FrontendReq::SET_INFLIGHT_FD, &place, given(&file)));
    let left = match &*record.lock() {
        Progress::Split(Some(tracker)) => tracker.left_count(),
        other => panic!("{other:?}"),
    };
    assert_eq!(left, 2);
    assert_eq!(talk.base(0), 0);
    assert!(matches!(*record.lock(), Progress::Split(None)));
    // A ring that is larger than its record runs without, as under QEMU's microvm.
    place[18] = 8;
    assert!(talk.acked(FrontendReq::SET_INFLIGHT_FD, &place, given(&file)));
    talk.set_ring(0, 3);
    assert!(matches!(*record.lock(), Progress::Split(None)));
    assert_eq!(talk.base(0), 3);
    assert!(talk.acked(FrontendReq::RESET_DEVICE, &[], vec![]));
    talk.set_ring(0, 3);
    assert!(talk.enable(0, true));
    assert!(matches!(*record.lock(), Progress::Split(None)));
    assert_eq!(talk.base(0), 3);
}

#[test]
fn a_packed_ring_may_have_any_number_of_entries() {
    use FrontendReq as R;
    let mut bench = Bench::with_features(1, PACKED);
    bench.device.keep_records();
    let (mut talk, _, events) = bench.talk();
    talk.negotiate();
    talk.set_memory(0, USER);
    assert!(talk.enable(0, true));
    let _fds = talk.set_ring(0, 0x8000_8000);
    assert_eq!(events.next(), (0, 0));
    assert!(talk.acked(R::SET_VRING_NUM, state(0, 5).as_slice(), vec![]));
    assert_eq!(events.next(), (0, 0));
    // Split rings are another matter, whichever is agreed on first.
    let split = (talk.get(R::GET_FEATURES) & !PACKED).to_ne_bytes();
    assert!(talk.acked(R::SET_FEATURES, &split, vec![]));
    assert!(!talk.enable(0, true));
    assert!(!talk.acked(R::SET_VRING_NUM, state(0, 5).as_slice(), vec![]));
}

#[test]
fn a_packed_ring_that_is_larger_than_its_record_runs_without_too() {
    const BASE: u32 = 0x8003_8003;
    let mut bench = Bench::with_features(1, PACKED);
    bench.device.keep_records();
    let record = bench.device.record(0).unwrap();
    let (mut talk, recorder, _) = bench.talk();
    talk.negotiate();
    assert_ne!(recorder.acked.load(Ordering::SeqCst) & PACKED, 0);
    talk.set_memory(0, USER);
    let file = memfd(4096);
    let mut place = [0; 24];
    place[..8].copy_from_slice(&4096u64.to_ne_bytes());
    place[16] = 1;
    for (entries, is_tracked) in [(16, true), (8, false)] {
        place[18] = entries;
        file.write_all_at(&[0; 4096], 0).unwrap();
        let given = vec![file.try_clone().unwrap()];
        assert!(talk.acked(FrontendReq::SET_INFLIGHT_FD, &place, given));
        talk.set_ring(0, BASE);
        assert!(talk.enable(0, true));
        assert!(matches!(*record.lock(), Progress::Packed(_)));
        assert_eq!(talk.base(0), BASE);
        // A record that is in use has its version.
        let mut used = [0; 16];
        file.read_exact_at(&mut used, 0).unwrap();
        assert_eq!(used != [0; 16], is_tracked);
    }
}
