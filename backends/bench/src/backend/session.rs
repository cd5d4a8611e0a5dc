//! What one connection has set up, and the answers to its messages.

use std::fs::File;

use vhost::vhost_user::message::{
    FrontendReq, VhostUserInflight, VhostUserProtocolFeatures as Protocol,
    VhostUserSingleMemoryRegion, VhostUserVringAddr, VhostUserVringState,
};
use vhost_user_wire::payload::{
    Config, ConfigReply, MemoryTable, NO_FILE, SharedMemorySizes, VringFile,
};
use vhost_user_wire::{Message, Payload};

use super::channel::{Channel, Question, SHARED_MEMORY};
use super::device_state::Transfer;
use super::history::Attached;
use super::inflight;
use super::memory::Memory;
use super::page_log::PageLog;
use super::queues::{Context, Queues};
use super::scene::Scene;
use super::state::{Region, State, places, vring_state};
use super::trouble::Trouble;

#[derive(Debug, Default)]
pub struct Session {
    state: State,
    memory: Memory,
    queues: Queues,
    channel: Option<Channel>,
    page_log: Option<PageLog>,
    transfer: Option<Transfer>,
}

/// What a message is answered by.
pub enum Reply {
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

impl Session {
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The kicks to wait on, each with its queue.
    pub fn kicks(&self) -> impl Iterator<Item = (u32, &File)> {
        self.queues.kicks()
    }

    pub fn channel(&self) -> impl Iterator<Item = &Channel> {
        self.channel.iter()
    }

    /// Takes what has come on the channel.
    pub fn hear(&mut self, scene: &mut Scene) {
        if let Some(channel) = &mut self.channel
            && !channel.receive(&mut scene.history, &scene.log)
        {
            self.channel = None;
        }
    }

    /// Asks something on the channel, if there is one.
    pub fn ask(&mut self, question: Question, scene: &mut Scene) {
        let Some(channel) = &self.channel else {
            return;
        };
        scene.history.act();
        if !channel.ask(question, &mut scene.history, &scene.log) {
            self.channel = None;
        }
    }

    /// Processes the queues that were kicked, those that are ready now, and those of whose
    /// buffers no kick told.
    pub fn process(&mut self, kicked: &[u32], scene: &mut Scene) {
        let mut context = Context {
            state: &self.state,
            memory: &self.memory,
            page_log: self.page_log.as_ref(),
            device: &mut scene.device,
            fault: scene.script.ring,
            history: &mut scene.history,
            log: &scene.log,
        };
        for index in kicked {
            self.queues.take_kick(*index, &mut context);
        }
        self.queues.begin(&mut context);
        self.queues.look_for_lost_kicks(&mut context);
    }

    /// Does what a message wants, and takes it in.
    pub fn answer(&mut self, message: &mut Message, scene: &mut Scene) -> Reply {
        let reply = self.find_answer(message, scene);
        let request = message.header.request;
        let number = match &reply {
            Reply::Payload(bytes, _) => reply_number(request, bytes),
            _ => None,
        };
        self.state.apply(request, &message.payload, number);
        reply
    }

    fn find_answer(&mut self, message: &mut Message, scene: &mut Scene) -> Reply {
        let Ok(request) = FrontendReq::try_from(message.header.request) else {
            return Reply::Done(Err("nobody has defined it".into()));
        };
        let offer = scene.offer;
        match request {
            FrontendReq::GET_FEATURES => Reply::number(offer.features),
            FrontendReq::GET_PROTOCOL_FEATURES => Reply::number(offer.protocol),
            FrontendReq::GET_QUEUE_NUM => Reply::number(offer.queues),
            FrontendReq::GET_MAX_MEM_SLOTS => Reply::number(offer.slots),
            FrontendReq::GET_STATUS => Reply::number(self.state.status),
            FrontendReq::GET_CONFIG => read_config(message, &offer.config),
            FrontendReq::GET_INFLIGHT_FD => make_inflight(message, scene),
            FrontendReq::GET_VRING_BASE => self.stop(message),
            FrontendReq::GET_SHMEM_CONFIG => {
                let sizes = SharedMemorySizes(vec![SHARED_MEMORY]);
                Reply::Payload(sizes.to_bytes(), None)
            }
            FrontendReq::POSTCOPY_ADVISE
            | FrontendReq::GET_SHARED_OBJECT
            | FrontendReq::CREATE_CRYPTO_SESSION => Reply::None,
            FrontendReq::SET_LOG_BASE => self.set_log(message),
            FrontendReq::SET_DEVICE_STATE_FD => self.transfer(message),
            FrontendReq::CHECK_DEVICE_STATE => self.check_transfer(scene),
            request => Reply::Done(self.set(request, message, scene)),
        }
    }

    fn set(
        &mut self,
        request: FrontendReq,
        message: &mut Message,
        scene: &mut Scene,
    ) -> Result<(), String> {
        match request {
            FrontendReq::SET_MEM_TABLE => self.set_memory(message),
            FrontendReq::ADD_MEM_REG => {
                let region = region(message)?;
                let file = message.take_file().map_err(|error| error.to_string())?;
                self.memory.add(region, file)
            }
            FrontendReq::REM_MEM_REG => self.memory.remove(&region(message)?),
            FrontendReq::SET_VRING_KICK | FrontendReq::SET_VRING_CALL => {
                self.set_event(request, message, scene)
            }
            FrontendReq::SET_VRING_ADDR => {
                self.place_ring(message);
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

    /// Addresses that are sent again, to have the used ring logged, leave a ring where it is.
    fn place_ring(&mut self, message: &Message) {
        let Ok(addresses) = message.body::<VhostUserVringAddr>() else {
            return;
        };
        let (index, places) = (addresses.index, places(&addresses));
        let known = self.state.rings.get(&index);
        if known.and_then(|ring| ring.places) != Some(places) {
            self.queues.look_again(index);
        }
    }

    fn set_memory(&mut self, message: &mut Message) -> Result<(), String> {
        let table: MemoryTable = message.body().map_err(|error| error.to_string())?;
        let files = message.take_files(table.0.len());
        let files = files.map_err(|error| error.to_string())?;
        let regions = table.0.iter().map(Region::from).zip(files);
        self.memory.set(regions.collect())
    }

    fn set_event(
        &mut self,
        request: FrontendReq,
        message: &mut Message,
        scene: &mut Scene,
    ) -> Result<(), String> {
        let file: VringFile = message.body().map_err(|error| error.to_string())?;
        let event = message.files.pop();
        let index = file.index.into();
        if request == FrontendReq::SET_VRING_CALL {
            self.queues.set_call(index, event);
            return Ok(());
        }
        self.queues.set_kick(index, event);
        scene.history.started(index);
        Ok(())
    }

    fn stop(&mut self, message: &Message) -> Reply {
        let Some((index, _)) = vring_state(&message.payload) else {
            return Reply::None;
        };
        let known = self.state.rings.get(&index).and_then(|ring| ring.base);
        let base = self.queues.stop(index).unwrap_or(known.unwrap_or(0));
        Reply::Payload(VhostUserVringState::new(index, base).to_bytes(), None)
    }

    /// Begins to log which pages are written. The reply is one of its own where the file came with
    /// the message ("Communication").
    fn set_log(&mut self, message: &mut Message) -> Reply {
        let log = PageLog::new(message);
        let is_refused = log.is_err();
        let done = log.map(|log| self.page_log = Some(log));
        if self.state.has_protocol(Protocol::LOG_SHMFD) {
            return Reply::number(is_refused.into());
        }
        Reply::Done(done)
    }

    fn transfer(&mut self, message: &mut Message) -> Reply {
        let begun = Transfer::begin(message);
        let reply = if begun.is_ok() { NO_FILE } else { NO_FILE | 1 };
        self.transfer = begun.ok();
        Reply::number(reply)
    }

    fn check_transfer(&mut self, scene: &mut Scene) -> Reply {
        let transfer = self.transfer.take().ok_or("nothing was transferred".into());
        match transfer.and_then(Transfer::finish) {
            Ok(()) => Reply::number(0),
            Err(why) => {
                scene.log.event(format!("the device's state: {why}"));
                scene.history.trouble(Trouble::DeviceState, why);
                Reply::number(1)
            }
        }
    }
}

/// As many bytes as were asked for.
fn read_config(message: &Message, config: &[u8]) -> Reply {
    let Ok(request) = message.body::<Config>() else {
        return Reply::Payload(Vec::new(), None);
    };
    let (begin, size) = (request.access.offset as usize, request.access.size as usize);
    let config = config.iter().copied();
    let bytes = config.chain(std::iter::repeat(0)).skip(begin).take(size);
    let bytes: Vec<u8> = bytes.collect();
    let mut reply = ConfigReply(bytes).to_bytes();
    // The reply names what was read; nothing is a refusal, which has no payload.
    if let Some(place) = reply.first_chunk_mut() {
        *place = request.access.offset.to_ne_bytes();
    }
    Reply::Payload(reply, None)
}

fn make_inflight(message: &Message, scene: &mut Scene) -> Reply {
    let Ok(request) = message.body::<VhostUserInflight>() else {
        return Reply::None;
    };
    match inflight::record(&request) {
        Ok((payload, file)) => {
            let attached = Attached::of(&file);
            scene.history.gave_inflight(payload.clone(), Some(attached));
            Reply::Payload(payload, Some(file))
        }
        Err(error) => {
            scene.log.event(error.to_string());
            Reply::None
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
pub fn refusal(request: u32) -> Vec<u8> {
    if request == FrontendReq::GET_CONFIG as u32 {
        return Vec::new();
    }
    1u64.to_bytes()
}
