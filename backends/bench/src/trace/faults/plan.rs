//! Which faults happen.

use std::fmt;

use super::rule::{Action, Pick, Place, Rule, When};
use crate::trace::record::Side;

/// Faults that the schedule lists. More are counted: a run may be long.
const LISTED: usize = 10_000;

/// Most numbers that the seed has for regions of guest memory.
const MOST_REGIONS: u64 = 64;

/// Something that passes the proxy.
#[derive(Clone, Copy, Debug)]
pub enum Occurrence<'a> {
    Message {
        name: &'a str,
        from: Side,
        /// In bytes, with the header.
        len: usize,
    },
    Kick(u8),
    Call(u8),
}

impl Occurrence<'_> {
    pub fn is_message(&self) -> bool {
        matches!(self, Self::Message { .. })
    }
}

/// The same seed, rules and occurrences give the same faults. Rules count independently of each
/// other, and on each device by itself, since devices do not wait for each other; where several
/// have a fault at once, the first has its way.
#[derive(Debug)]
pub struct Plan {
    seed: u32,
    devices: Vec<String>,
    /// Each with how often its place was passed, by device.
    rules: Vec<(Rule, Vec<u64>)>,
    /// Each as a rule for this fault alone.
    injected: Vec<Rule>,
    unlisted: u64,
}

impl Plan {
    pub fn new(rules: Vec<Rule>, seed: u32, devices: Vec<String>) -> Self {
        let uncounted = |rule| (rule, vec![0; devices.len()]);
        Self {
            seed,
            rules: rules.into_iter().map(uncounted).collect(),
            devices,
            injected: Vec::new(),
            unlisted: 0,
        }
    }

    pub fn seed(&self) -> u32 {
        self.seed
    }

    /// The number of a device.
    pub fn device(&self, name: &str) -> Option<usize> {
        self.devices.iter().position(|device| device == name)
    }

    /// The fault of what passes now on this device, with all that the rule left to the seed.
    pub fn next(&mut self, device: usize, occurrence: &Occurrence) -> Option<Action> {
        let name = &self.devices[device];
        let mut chosen = None;
        for (index, (rule, counts)) in self.rules.iter_mut().enumerate() {
            if !rule.is_for(name) || !rule.place.matches(occurrence) {
                continue;
            }
            let count = &mut counts[device];
            *count += 1;
            let of_it = [self.seed.into(), index as u64, device as u64, *count];
            let draw = |purpose| draw(of_it, purpose);
            if chosen.is_none() && rule.when.is_now(*count, draw(0)) {
                let action = rule.action.settled(occurrence, draw(1));
                // One device needs no name, and a schedule without it is for any proxy.
                let device = (self.devices.len() > 1).then(|| name.clone());
                chosen = Some(Rule {
                    device: rule.device.clone().or(device),
                    place: rule.place.clone(),
                    when: When {
                        after: 0,
                        pick: Pick::Nth(*count),
                    },
                    action,
                });
            }
        }
        let chosen = chosen?;
        let action = chosen.action;
        match self.injected.len() < LISTED {
            true => self.injected.push(chosen),
            false => self.unlisted += 1,
        }
        Some(action)
    }

    pub fn has_signals(&self) -> bool {
        let is_signal = |(rule, _): &(Rule, Vec<u64>)| !matches!(rule.place, Place::Message { .. });
        self.rules.iter().any(is_signal)
    }

    pub fn needs_process(&self, device: usize) -> bool {
        self.rules_of(device)
            .any(|rule| rule.action.needs_process())
    }

    pub fn fills(&self, device: usize) -> bool {
        self.rules_of(device)
            .any(|rule| rule.action == Action::Fill)
    }

    pub fn shrinks(&self, device: usize) -> bool {
        self.rules_of(device)
            .any(|rule| matches!(rule.action, Action::Shrink { .. }))
    }

    fn rules_of(&self, device: usize) -> impl Iterator<Item = &Rule> {
        let name = &self.devices[device];
        let rules = self.rules.iter().map(|(rule, _)| rule);
        rules.filter(move |rule| rule.is_for(name))
    }
}

impl Rule {
    fn is_for(&self, device: &str) -> bool {
        self.device.as_ref().is_none_or(|name| name == device)
    }
}

/// The faults that were injected, as a file of faults.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.injected.len() as u64 + self.unlisted;
        writeln!(f, "# {count} faults were injected")?;
        writeln!(f, "seed = {}", self.seed)?;
        for rule in &self.injected {
            write!(f, "\n{rule}")?;
        }
        if self.unlisted > 0 {
            writeln!(f, "\n# {} more are not listed", self.unlisted)?;
        }
        Ok(())
    }
}

impl Place {
    fn matches(&self, occurrence: &Occurrence) -> bool {
        match (self, occurrence) {
            (
                Self::Message { name, from },
                Occurrence::Message {
                    name: is, from: by, ..
                },
            ) => name.as_ref().is_none_or(|name| name == is) && from.is_none_or(|from| from == *by),
            (Self::Kick(queue), Occurrence::Kick(of)) => queue == of,
            (Self::Call(queue), Occurrence::Call(of)) => queue == of,
            _ => false,
        }
    }
}

impl When {
    fn is_now(&self, count: u64, draw: u64) -> bool {
        let Some(count) = count.checked_sub(self.after).filter(|count| *count > 0) else {
            return false;
        };
        match self.pick {
            Pick::Nth(nth) => count == nth,
            Pick::Every(every) => count.is_multiple_of(every),
            // 53 bits are what an f64 keeps.
            Pick::Probability(p) => ((draw >> 11) as f64) < p * (1u64 << 53) as f64,
        }
    }
}

impl Action {
    fn settled(self, occurrence: &Occurrence, draw: u64) -> Self {
        let len = match *occurrence {
            Occurrence::Message { len, .. } => len,
            Occurrence::Kick(_) | Occurrence::Call(_) => 0,
        };
        match self {
            Self::Shrink {
                region: None,
                bytes,
            } => Self::Shrink {
                region: Some(draw % MOST_REGIONS),
                bytes,
            },
            // At least a byte is sent, and one is not.
            Self::Truncate(None) => {
                let most = len.saturating_sub(1).max(1);
                Self::Truncate(Some(1 + (draw % most as u64) as usize))
            }
            Self::Corrupt(None) => Self::Corrupt(Some((draw % len.max(1) as u64) as usize)),
            _ => self,
        }
    }
}

/// A number for these numbers alone, so that it does not matter which thread comes first
/// (SplitMix64's output function).
fn draw(of: [u64; 4], purpose: u64) -> u64 {
    of.into_iter().chain([purpose]).fold(0, |state, word| {
        let mixed = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
