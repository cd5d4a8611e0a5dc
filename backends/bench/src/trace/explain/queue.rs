//! What is known of a queue.

use std::collections::BTreeMap;

use diagnosis::{Oldest, QueueState, Seen};

use crate::trace::record::{Available, Used};

#[derive(Debug, Default)]
pub struct Queue {
    is_started: bool,
    /// What SET_VRING_ENABLE said last.
    enable: Option<bool>,
    kicks: u64,
    calls: u64,
    available: u64,
    used: u64,
    last_kick: Option<u64>,
    last_call: Option<u64>,
    last_used: Option<u64>,
    /// By head: when it was seen, and what it asks for.
    waiting: BTreeMap<u16, (u64, String)>,
}

impl Queue {
    pub fn start(&mut self) {
        self.is_started = true;
    }

    pub fn enable(&mut self, enable: bool) {
        self.enable = Some(enable);
    }

    /// GET_VRING_BASE: what is not used by then is the next start's.
    pub fn stop(&mut self) {
        self.is_started = false;
        self.waiting.clear();
    }

    pub fn kick(&mut self, time: u64) {
        self.kicks += 1;
        self.last_kick = Some(time);
    }

    pub fn call(&mut self, time: u64) {
        self.calls += 1;
        self.last_call = Some(time);
    }

    pub fn make_available(&mut self, time: u64, chain: &Available) {
        self.available += 1;
        self.waiting.insert(chain.head, (time, chain.what.clone()));
    }

    pub fn use_chain(&mut self, time: u64, used: &Used) {
        self.used += 1;
        self.last_used = Some(time);
        self.waiting.remove(&used.head);
    }

    /// `needs_enable` where rings are enabled one by one.
    pub fn state(&self, needs_enable: bool) -> QueueState {
        match (self.is_started, self.enable) {
            (false, _) => QueueState::Stopped,
            (true, Some(false)) => QueueState::Disabled,
            (true, None) if needs_enable => QueueState::Disabled,
            (true, _) => QueueState::Running,
        }
    }

    /// As of `end`.
    pub fn seen(&self, end: u64) -> Seen {
        let age = |time: u64| end.saturating_sub(time);
        let oldest = self.waiting.values().min();
        Seen {
            kicks: self.kicks,
            calls: self.calls,
            chains: self.available,
            used: self.used,
            last_kick: self.last_kick.map(age),
            last_call: self.last_call.map(age),
            last_used: self.last_used.map(age),
            in_flight: self.waiting.len() as u64,
            oldest: oldest.map(|(time, what)| Oldest {
                age: age(*time),
                what: what.clone(),
            }),
        }
    }
}
