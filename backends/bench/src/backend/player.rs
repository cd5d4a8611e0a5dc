//! One connection to a frontend.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::{
    FrontendReq, VhostUserInflight, VhostUserProtocolFeatures as Protocol,
    VhostUserSingleMemoryRegion, VhostUserVringState,
};
use vhost_user_wire::payload::{Config, ConfigReply, MemoryTable, VringFile};
use vhost_user_wire::{Connection, Deadline, Header, Message, Payload, VERSION, WireError};

use super::channel::Channel;
use super::device::Device;
use super::history::{Attached, History, Milestone, Seen};
use super::inflight;
use super::memory::Memory;
use super::offer::Offer;
use super::queues::{Context, Queues};
use super::script::{Act, Script};
use super::state::{Region, State, vring_state};
use crate::driver::MessageLog;

/// How often is looked for what nobody tells.
const TICK: Duration = Duration::from_millis(20);
/// How long after the start of a ring without a request the backend asks its question.
const SETTLED: Duration = Duration::from_millis(200);
/// How long a message may take once it has begun.
const MESSAGE: Duration = Duration::from_secs(5);

/// When a connection has been served for long enough.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How far the frontend should come.
    pub goal: Milestone,
    /// How long to stay then.
    pub linger: Duration,
    /// How long nothing may happen.
    pub idle: Duration,
    pub total: Duration,
}

/// Why serving has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The frontend hung up.
    Closed,
    /// The script hung up.
    HungUp,
    /// It was long enough.
    Over,
}

/// What outlives a connection.
pub struct Scene<'a> {
    pub offer: &'a Offer,
    pub script: Script,
    pub device: Device,
    pub history: History,
    pub log: MessageLog,
}

pub struct Player<'a, 'b> {
    connection: Connection,
    scene: &'a mut Scene<'b>,
    state: State,
    memory: Memory,
    queues: Queues,
    channel: Option<Channel>,
    last: Instant,
}

/// What a message is answered by.
enum Reply {
    None,
    /// An acknowledgement, if one was asked for.
    Done(Result<(), String>),
    Payload(Vec<u8>, Option<File>),
}

impl Reply {
    fn number(number: u64) -> Self {
        Self::Payload(number.to_bytes(), None)
    }
}

impl<'a, 'b> Player<'a, 'b> {
    pub fn new(stream: UnixStream, scene: &'a mut Scene<'b>) -> Self {
        scene.history.connected();
        scene.log.event("the frontend is connected");
        Self {
            connection: Connection::to_frontend(stream),
            scene,
            state: State::default(),
            memory: Memory::default(),
            queues: Queues::default(),
            channel: None,
            last: Instant::now(),
        }
    }

    /// The frontend is about to be asked to end.
    pub fn dismiss(&mut self) {
        self.scene.history.dismissed();
    }

    /// It has not ended.
    pub fn outlived(&mut self) {
        self.scene.history.outlived();
    }

    /// Serves until there is reason to end. `is_alive` is asked all the time.
    pub fn serve(&mut self, limits: &Limits, mut is_alive: impl FnMut() -> bool) -> End {
        let begun = Instant::now();
        let mut reached = None;
        self.last = begun;
        loop {
            if let Err(end) = self.step() {
                return end;
            }
            self.ask();
            if self.scene.history.milestone() >= limits.goal {
                reached.get_or_insert_with(Instant::now);
            }
            let is_reached = reached.is_some_and(|at| at.elapsed() >= limits.linger);
            let is_idle = self.last.elapsed() >= limits.idle;
            if is_reached || is_idle || begun.elapsed() >= limits.total || !is_alive() {
                return End::Over;
            }
        }
    }

    /// Waits for something, but not for long.
    fn step(&mut self) -> Result<(), End> {
        let (is_message, is_channel, kicked) = self.wait();
        if is_message {
            self.last = Instant::now();
            self.receive()?;
        }
        if is_channel
            && let Some(channel) = &mut self.channel
            && !channel.receive(&mut self.scene.history, &self.scene.log)
        {
            self.channel = None;
        }
        self.with_queues(|queues, context| {
            for index in kicked.iter().copied() {
                queues.take_kick(index, context);
            }
            queues.begin(context);
            queues.look_for_lost_kicks(context);
        });
        if !kicked.is_empty() {
            self.last = Instant::now();
        }
        Ok(())
    }

    /// What is ready: the connection, the channel, kicks.
    fn wait(&self) -> (bool, bool, Vec<u32>) {
        let mut fds = vec![PollFd::new(&self.connection, PollFlags::IN)];
        let kicks: Vec<_> = self.queues.kicks().collect();
        fds.extend(
            kicks
                .iter()
                .map(|(_, kick)| PollFd::new(kick, PollFlags::IN)),
        );
        fds.extend(self.channel.iter().map(|it| PollFd::new(it, PollFlags::IN)));
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: TICK.as_nanos() as _,
        };
        if poll(&mut fds, Some(&timeout)).is_err() {
            return (false, false, Vec::new());
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let is_kicked = |((index, _), ready): (&(u32, _), &bool)| ready.then_some(*index);
        let kicked = kicks.iter().zip(&ready[1..]).filter_map(is_kicked);
        let is_channel = ready[1 + kicks.len()..].first() == Some(&true);
        (ready[0], is_channel, kicked.collect())
    }

    fn with_queues(&mut self, run: impl FnOnce(&mut Queues, &mut Context)) {
        let mut context = Context {
            state: &self.state,
            memory: &self.memory,
            device: &mut self.scene.device,
            fault: self.scene.script.ring,
            history: &mut self.scene.history,
            log: &self.scene.log,
        };
        run(&mut self.queues, &mut context);
    }

    /// Asks the script's question, once the driver is there.
    fn ask(&mut self) {
        let Some(question) = self.scene.script.question else {
            return;
        };
        let milestone = self.scene.history.milestone();
        let is_settled = milestone == Milestone::Started && self.last.elapsed() >= SETTLED;
        let is_used = milestone == Milestone::Completed;
        let is_time = (is_settled || is_used) && !self.scene.history.has_asked();
        if let Some(channel) = self.channel.as_ref().filter(|_| is_time) {
            self.scene.history.act();
            if !channel.ask(question, &mut self.scene.history, &self.scene.log) {
                self.channel = None;
            }
        }
    }

    fn receive(&mut self) -> Result<(), End> {
        // One of another version ends the connection, and is to be seen before.
        if let Ok(Some(header)) = self.connection.header()
            && header.version() != VERSION
        {
            self.note(header, &[], &[]);
        }
        let message = match self.connection.receive(&Deadline::after(MESSAGE)) {
            Ok(message) => message,
            Err(error) => return Err(self.closed(&error)),
        };
        self.note(message.header, &message.payload, &message.files);
        self.handle(message)
    }

    fn note(&mut self, header: Header, payload: &[u8], files: &[File]) {
        self.scene.log.sent(header, payload, files.len());
        self.scene.history.note(Seen {
            header,
            payload: payload.to_vec(),
            files: files.iter().map(Attached::of).collect(),
            connection: self.scene.history.connections(),
            before: self.state.clone(),
        });
    }

    fn closed(&mut self, error: &WireError) -> End {
        self.scene.log.event(error.to_string());
        self.scene.history.closed_by_frontend();
        End::Closed
    }

    fn handle(&mut self, mut message: Message) -> Result<(), End> {
        let request = message.header.request;
        let act = self.act_at(request);
        if act == Some(Act::HangUp) {
            self.scene.history.act();
            return Err(self.hang_up());
        }
        let reply = self.answer(&mut message);
        let number = match &reply {
            Reply::Payload(bytes, _) => reply_number(request, bytes),
            _ => None,
        };
        self.state.apply(request, &message.payload, number);
        let needs_ack =
            message.header.needs_reply() && self.state.has_protocol(Protocol::REPLY_ACK);
        let (payload, file) = match reply {
            Reply::Payload(payload, file) => (payload, file),
            Reply::Done(done) if needs_ack => {
                if let Err(why) = &done {
                    self.scene.log.event(format!("refused: {why}"));
                }
                (u64::from(done.is_err()).to_bytes(), None)
            }
            _ => return Ok(()),
        };
        self.send(&message, payload, file, act)
    }

    /// What the script has for this message.
    fn act_at(&self, request: u32) -> Option<Act> {
        let (wanted, act) = self.scene.script.message?;
        let is_it = request == wanted as u32 && !self.scene.history.has_acted();
        is_it.then_some(act)
    }

    fn hang_up(&self) -> End {
        self.scene.log.event("the backend hangs up");
        End::HungUp
    }

    fn send(
        &mut self,
        message: &Message,
        mut payload: Vec<u8>,
        file: Option<File>,
        act: Option<Act>,
    ) -> Result<(), End> {
        let request = message.header;
        if act.is_some() {
            self.scene.history.act();
        }
        match act {
            Some(Act::Silence) => return Ok(()),
            Some(Act::Late(time)) => std::thread::sleep(time),
            Some(Act::Refuse) => payload = refusal(request.request),
            _ => {}
        }
        let header = request.reply(payload.len());
        let bytes = match act {
            Some(Act::Damaged(damage)) => damage.bytes(header, &payload),
            Some(Act::HangUpWithin) => header.to_bytes()[..5].to_vec(),
            _ => [&header.to_bytes()[..], &payload].concat(),
        };
        match act {
            Some(act) => self.scene.log.event(format!("the reply: {act:?}")),
            None => self.scene.log.received(&Message {
                header,
                payload,
                files: Vec::new(),
            }),
        }
        let files: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        let sent = self
            .connection
            .send_bytes(&bytes, &files, &Deadline::after(MESSAGE));
        if let Err(error) = sent {
            return Err(self.closed(&error));
        }
        match act {
            Some(Act::HangUpWithin) => Err(self.hang_up()),
            _ => Ok(()),
        }
    }

    fn answer(&mut self, message: &mut Message) -> Reply {
        let Ok(request) = FrontendReq::try_from(message.header.request) else {
            return Reply::Done(Err("nobody has defined it".into()));
        };
        let offer = self.scene.offer;
        match request {
            FrontendReq::GET_FEATURES => Reply::number(offer.features),
            FrontendReq::GET_PROTOCOL_FEATURES => Reply::number(offer.protocol),
            FrontendReq::GET_QUEUE_NUM => Reply::number(offer.queues),
            FrontendReq::GET_MAX_MEM_SLOTS => Reply::number(offer.slots),
            FrontendReq::GET_STATUS => Reply::number(self.state.status),
            FrontendReq::GET_CONFIG => self.read_config(message),
            FrontendReq::GET_INFLIGHT_FD => self.make_inflight(message),
            FrontendReq::GET_VRING_BASE => self.stop(message),
            FrontendReq::POSTCOPY_ADVISE
            | FrontendReq::GET_SHMEM_CONFIG
            | FrontendReq::GET_SHARED_OBJECT
            | FrontendReq::CREATE_CRYPTO_SESSION => Reply::None,
            FrontendReq::SET_DEVICE_STATE_FD | FrontendReq::CHECK_DEVICE_STATE => Reply::number(1),
            request => Reply::Done(self.set(request, message)),
        }
    }

    fn set(&mut self, request: FrontendReq, message: &mut Message) -> Result<(), String> {
        match request {
            FrontendReq::SET_MEM_TABLE => self.set_memory(message),
            FrontendReq::ADD_MEM_REG => {
                let region = region(message)?;
                let file = message.take_file().map_err(|error| error.to_string())?;
                self.memory.add(region, file)
            }
            FrontendReq::REM_MEM_REG => self.memory.remove(&region(message)?),
            FrontendReq::SET_VRING_KICK | FrontendReq::SET_VRING_CALL => {
                self.set_event(request, message)
            }
            FrontendReq::SET_VRING_ADDR => {
                if let Some((index, _)) = vring_state(&message.payload) {
                    self.queues.look_again(index);
                }
                Ok(())
            }
            FrontendReq::SET_BACKEND_REQ_FD => {
                let file = message.take_file().map_err(|error| error.to_string())?;
                self.channel = Some(Channel::new(file));
                Ok(())
            }
            FrontendReq::RESET_DEVICE => {
                self.queues.stop_all();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn set_memory(&mut self, message: &mut Message) -> Result<(), String> {
        let table: MemoryTable = message.body().map_err(|error| error.to_string())?;
        let files = message.take_files(table.0.len());
        let files = files.map_err(|error| error.to_string())?;
        let regions = table.0.iter().map(Region::from).zip(files);
        self.memory.set(regions.collect())
    }

    fn set_event(&mut self, request: FrontendReq, message: &mut Message) -> Result<(), String> {
        let file: VringFile = message.body().map_err(|error| error.to_string())?;
        let event = message.files.pop();
        let index = file.index.into();
        if request == FrontendReq::SET_VRING_CALL {
            self.queues.set_call(index, event);
            return Ok(());
        }
        self.queues.set_kick(index, event);
        self.scene.history.started(index);
        Ok(())
    }

    fn stop(&mut self, message: &Message) -> Reply {
        let Some((index, _)) = vring_state(&message.payload) else {
            return Reply::None;
        };
        let known = self.state.rings.get(&index).and_then(|ring| ring.base);
        let base = self
            .queues
            .stop(index)
            .map_or(known.unwrap_or(0), u32::from);
        Reply::Payload(VhostUserVringState::new(index, base).to_bytes(), None)
    }

    /// As many bytes as were asked for.
    fn read_config(&self, message: &Message) -> Reply {
        let Ok(request) = message.body::<Config>() else {
            return Reply::Payload(Vec::new(), None);
        };
        let (begin, size) = (request.access.offset as usize, request.access.size as usize);
        let config = self.scene.offer.config.iter().copied();
        let bytes = config.chain(std::iter::repeat(0)).skip(begin).take(size);
        let bytes: Vec<u8> = bytes.collect();
        let mut reply = ConfigReply(bytes).to_bytes();
        // The reply names what was read; nothing is a refusal, which has no payload.
        if let Some(place) = reply.first_chunk_mut() {
            *place = request.access.offset.to_ne_bytes();
        }
        Reply::Payload(reply, None)
    }

    fn make_inflight(&mut self, message: &Message) -> Reply {
        let Ok(request) = message.body::<VhostUserInflight>() else {
            return Reply::None;
        };
        match inflight::record(&request) {
            Ok((payload, file)) => {
                let attached = Attached::of(&file);
                self.scene
                    .history
                    .gave_inflight(payload.clone(), Some(attached));
                Reply::Payload(payload, Some(file))
            }
            Err(error) => {
                self.scene.log.event(error.to_string());
                Reply::None
            }
        }
    }
}

fn region(message: &Message) -> Result<Region, String> {
    let region = message.body::<VhostUserSingleMemoryRegion>();
    region
        .map(|region| Region::from(&region))
        .map_err(|error| error.to_string())
}

/// The number of a reply: that of a ring's base, or its only one.
fn reply_number(request: u32, payload: &[u8]) -> Option<u64> {
    if request == FrontendReq::GET_VRING_BASE as u32 {
        return vring_state(payload).map(|(_, base)| base.into());
    }
    u64::decode(payload).ok()
}

/// A reply that says that nothing was done: an empty one of GET_CONFIG, else a number.
fn refusal(request: u32) -> Vec<u8> {
    if request == FrontendReq::GET_CONFIG as u32 {
        return Vec::new();
    }
    1u64.to_bytes()
}
