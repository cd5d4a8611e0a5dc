//! What is known of a connection.

use std::collections::BTreeMap;
use std::fmt::Write;

use vhost::vhost_user::message::{FrontendReq as F, VhostUserVringState};
use vhost_user_wire::Payload;
use vhost_user_wire::features::VHOST_USER_F_PROTOCOL_FEATURES;
use vhost_user_wire::payload::VringFile;

use super::queue::Queue;
use crate::trace::decode;
use crate::trace::duration::duration;
use crate::trace::pending::expects_reply;
use crate::trace::record::{Event, Message, Record, Side};

#[derive(Debug, Default)]
pub struct Connection {
    name: String,
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
        let mut text = format!("{}:", self.name);
        match self.closed_by {
            Some(side) => _ = write!(text, " closed by the {}", side.name()),
            None => text += " open at the end of the trace",
        }
        if let (count, Some((time, what, at))) = &self.faults {
            let age = duration(end.saturating_sub(*time));
            let _ = write!(
                text,
                "\n  => {count} faults were injected on purpose, the last {age} before the end: \
                 {what} ({at})"
            );
        }
        for (channel, code, time) in &self.asked {
            let (name, who) = (
                decode::request_name(*channel, *code),
                channel.other().name(),
            );
            let age = duration(end.saturating_sub(*time));
            let _ = write!(
                text,
                "\n  => the {who} has not answered {name}, asked {age} before the end"
            );
        }
        for (index, queue) in &self.queues {
            let _ = write!(text, "\n  queue {index}: {}", queue.state());
            if self.closed_by.is_none() {
                for diagnosis in queue.diagnoses(end, self.needs_enable, self.has_rings) {
                    let _ = write!(text, "\n    => {diagnosis}");
                }
            } else if queue.in_flight() > 0 {
                let count = queue.in_flight();
                let _ = write!(
                    text,
                    "\n    => {count} requests were in flight when it was closed"
                );
            }
        }
        if !self.has_rings && !self.queues.is_empty() {
            text +=
                "\n  Nothing is known of kicks, calls and requests: they are traced with --rings";
        }
        text
    }
}
