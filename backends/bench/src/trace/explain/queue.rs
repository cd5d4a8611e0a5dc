//! What is known of a queue.

use std::collections::BTreeMap;

use crate::trace::duration::duration;
use crate::trace::record::{Available, Used};

/// Signals and chains that came close together count as one event, in nanoseconds.
const CLOSE: u64 = 1_000_000_000;

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

    /// How many requests the device has not finished.
    pub fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    pub fn state(&self) -> String {
        let run = match (self.is_started, self.enable) {
            (false, _) => "stopped",
            (true, Some(false)) => "started, disabled",
            (true, _) => "started",
        };
        format!(
            "{run}, {} kicks, {} calls, {} chains, {} used",
            self.kicks, self.calls, self.available, self.used
        )
    }

    /// What is wrong, or may be. Of kicks and chains only if they were `seen` at all.
    pub fn diagnoses(&self, end: u64, needs_enable: bool, seen: bool) -> Vec<String> {
        let mut found = Vec::new();
        if !self.is_started {
            return found;
        }
        if self.enable == Some(false) || needs_enable && self.enable.is_none() {
            found.push("it was started and is not enabled: the backend must not serve it".into());
        }
        if seen {
            found.extend(self.waits(end));
            found.extend(self.was_not_called(end));
        }
        if seen && self.available == 0 && self.kicks == 0 {
            found.push("the driver has not made any buffer available, nor kicked".into());
        }
        found
    }

    fn waits(&self, end: u64) -> Option<String> {
        let (time, what) = self.waiting.values().min()?;
        let age = duration(end.saturating_sub(*time));
        let since = self.last_used.is_some_and(|used| used > *time);
        let kicked = match self.last_kick {
            Some(kick) => format!("kicked last {} before the end", duration(end - kick)),
            None => "never kicked".to_owned(),
        };
        let other = match since {
            true => "it has finished later requests since",
            false => "it has finished none since",
        };
        Some(format!(
            "the oldest of {} requests in flight has waited for {age} ({what}): the backend was \
             {kicked}, and {other}",
            self.waiting.len()
        ))
    }

    fn was_not_called(&self, end: u64) -> Option<String> {
        let used = self.last_used?;
        let is_old = end.saturating_sub(used) >= CLOSE;
        let is_told = self.last_call.is_some_and(|call| call + CLOSE > used);
        (is_old && !is_told).then(|| {
            "the backend has used chains and sent no call for them: the driver has to poll, or \
             have said that it wants none"
                .into()
        })
    }
}
