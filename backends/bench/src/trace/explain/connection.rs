//! What is known of a connection.

use std::collections::BTreeMap;

use diagnosis::{Device, Unanswered, duration};
use vhost::vhost_user::message::{FrontendReq as F, VhostUserVringState};
use vhost_user_wire::Payload;
use vhost_user_wire::features::VHOST_USER_F_PROTOCOL_FEATURES;
use vhost_user_wire::payload::VringFile;

use super::queue::Queue;
use crate::trace::decode;
use crate::trace::pending::expects_reply;
use crate::trace::record::{Event, Message, Record, Side};

#[derive(Debug, Default)]
pub struct Connection {
    name: String,
    device_type: Option<u32>,
    queues: BTreeMap<u8, Queue>,
    /// Requests that wait for their replies: channel, code, time.
    asked: Vec<(Side, u32, u64)>,
    closed_by: Option<Side>,
    /// Rings are enabled one by one.
    needs_enable: bool,
    /// Faults on purpose: their number, and the last: its time, what and where.
    faults: (u64, Option<(u64, String, String)>),
    /// The trace has kicks, calls and chains.
    has_rings: bool,
}

impl Connection {
    pub fn follow(&mut self, record: &Record) {
        let time = record.time;
        self.name = format!("{}#{}", record.device, record.connection);
        self.device_type = record.device_type;
        self.has_rings |= matches!(
            record.event,
            Event::Kick { .. } | Event::Call { .. } | Event::Available(_) | Event::Used(_)
        );
        match &record.event {
            Event::Message(message) => self.hear(time, message),
            Event::Kick { queue } => self.queue(*queue).kick(time),
            Event::Call { queue } => self.queue(*queue).call(time),
            Event::Available(chain) => self.queue(chain.queue).make_available(time, chain),
            Event::Used(used) => self.queue(used.queue).use_chain(time, used),
            Event::Fault { at, what } => {
                self.faults.0 += 1;
                self.faults.1 = Some((time, what.clone(), at.clone()));
            }
            Event::Closed { by } => self.closed_by = Some(*by),
            Event::Connected | Event::Fragment(_) | Event::End | Event::Lost { .. } => {}
        }
    }

    fn queue(&mut self, index: u8) -> &mut Queue {
        self.queues.entry(index).or_default()
    }

    fn hear(&mut self, time: u64, message: &Message) {
        let key = (message.channel, message.request);
        if message.is_reply() {
            let is_it = |(channel, code, _): &(Side, u32, u64)| (*channel, *code) == key;
            if let Some(place) = self.asked.iter().position(is_it) {
                self.asked.remove(place);
            }
            return;
        }
        if expects_reply(message.channel, &message.header()) {
            self.asked.push((key.0, key.1, time));
        }
        if message.channel == Side::Frontend
            && let Ok(code) = F::try_from(message.request)
        {
            self.learn(code, &message.payload);
        }
    }

    fn learn(&mut self, code: F, payload: &[u8]) {
        let state = || VhostUserVringState::decode(payload).ok();
        let index = |state: VhostUserVringState| u8::try_from(state.index).ok();
        match code {
            F::SET_FEATURES => {
                let features = u64::decode(payload).unwrap_or(0);
                self.needs_enable = features & (1 << VHOST_USER_F_PROTOCOL_FEATURES) != 0;
            }
            F::SET_VRING_KICK => {
                if let Ok(VringFile { index, .. }) = VringFile::decode(payload) {
                    self.queue(index).start();
                }
            }
            F::SET_VRING_ENABLE => {
                if let Some(state) = state()
                    && let Some(index) = index(state)
                {
                    self.queue(index).enable(state.num != 0);
                }
            }
            F::GET_VRING_BASE => {
                if let Some(index) = state().and_then(index) {
                    self.queue(index).stop();
                }
            }
            _ => {}
        }
    }

    /// As of `end`, the end of the trace.
    pub fn explain(&self, end: u64) -> String {
        let mut device = self.picture(end);
        match self.closed_by {
            None => device.diagnose(),
            Some(_) => device.queues.iter_mut().for_each(was_closed),
        }
        device.diagnoses.splice(0..0, self.faults_on_purpose(end));
        let mut text = device.to_string();
        if !self.has_rings && !self.queues.is_empty() {
            text +=
                "\n  Nothing is known of kicks, calls and requests: they are traced with --rings";
        }
        text
    }

    fn picture(&self, end: u64) -> Device {
        let queues = self.queues.iter().map(|(index, queue)| diagnosis::Queue {
            number: (*index).into(),
            state: queue.state(self.needs_enable),
            is_filled_ahead: self.is_filled_ahead((*index).into()),
            seen: self.has_rings.then(|| queue.seen(end)),
            ..diagnosis::Queue::default()
        });
        let unanswered = self.asked.iter().map(|(channel, code, time)| Unanswered {
            by: channel.other().name().into(),
            what: decode::request_name(*channel, *code),
            age: end.saturating_sub(*time),
        });
        Device {
            id: self.name.clone(),
            about: match self.closed_by {
                Some(side) => format!("closed by the {}", side.name()),
                None => "open at the end of the trace".into(),
            },
            queues: queues.collect(),
            unanswered: unanswered.collect(),
            ..Device::default()
        }
    }

    /// The number of a network device's control queue follows from its configuration space, which
    /// need not be in the trace: it is the last of an odd number.
    fn is_filled_ahead(&self, queue: u16) -> bool {
        let last = self.queues.keys().max().copied().unwrap_or_default();
        let control = (last != 0 && last.is_multiple_of(2)).then_some(last.into());
        self.device_type
            .is_some_and(|device_type| diagnosis::is_filled_ahead(device_type, queue, control))
    }

    fn faults_on_purpose(&self, end: u64) -> Option<String> {
        let (count, Some((time, what, at))) = &self.faults else {
            return None;
        };
        let age = duration(end.saturating_sub(*time));
        Some(format!(
            "{count} faults were injected on purpose, the last {age} before the end: {what} ({at})"
        ))
    }
}

fn was_closed(queue: &mut diagnosis::Queue) {
    let in_flight = queue.in_flight().unwrap_or_default();
    if in_flight > 0 {
        let text = format!("{in_flight} requests were in flight when it was closed");
        queue.diagnoses.push(text);
    }
}
