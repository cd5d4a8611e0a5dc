//! Adaptive polling: a thread looks for more to do for a moment before it sleeps.
//!
//! To be woken takes longer than many requests do, so polling pays where the next request comes
//! soon. It costs where another thread could use the processor meanwhile: the very one that makes
//! the next request, perhaps. So a thread does not poll while threads wait for processors
//! ([`Pressure`]), and it looks what it gains: it measures how long it has nothing to do, as a mean,
//! where it sleeps at once and where it polls first. It polls as long as that makes the wait
//! clearly shorter. A thread that is preempted while it polls, or polls in vain, waits longer.
//!
//! What is in vain is tried again after pauses that become longer.

use std::time::{Duration, Instant};

use crate::pressure::Pressure;

/// A sleep of up to so many times as long as polling may last is a short one: it contains a
/// wake-up. In longer ones that does not count.
const SHORT: u32 = 4;

/// Polling has to make a wait shorter by one part of so many.
const GAIN: u32 = 3;

/// While it polls, a thread sleeps at once in one case of so many, to see what that is like.
const SAMPLE: u32 = 128;

/// Shortest and longest pause before polling is tried again. A trial may cost a time slice, which
/// is some milliseconds.
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Polling that is given up before was a trial in vain.
const TRIAL: Duration = Duration::from_millis(100);

/// Whether one thread polls.
#[derive(Debug, Default)]
pub struct Polling {
    /// How long it may take; zero to never poll.
    limit: Duration,
    /// The thread has nothing to do.
    wait: Option<Wait>,
    /// The last sleep was short.
    is_busy: bool,
    /// Waits without polling.
    slept: Mean,
    /// Polling pays, or is tried.
    stint: Option<Stint>,
    pause: Pause,
    pressure: Pressure,
}

/// A time without anything to do.
#[derive(Debug)]
struct Wait {
    since: Instant,
    /// Until when the thread polls. `None` if it does not.
    until: Option<Instant>,
    asleep: Option<Instant>,
}

/// A time in which the thread polls whenever it has nothing to do.
#[derive(Debug)]
struct Stint {
    begun: Instant,
    /// Waits so far.
    count: u32,
    polled: Mean,
}

impl Polling {
    /// Polls for `limit`, where it pays by itself and by the `pressure` on processors.
    pub fn new(limit: Duration, pressure: Pressure) -> Self {
        Polling {
            limit,
            pressure,
            ..Polling::default()
        }
    }

    /// The thread has nothing to do: whether it polls before it sleeps.
    pub fn begin(&mut self, now: Instant) -> bool {
        let polls = !self.limit.is_zero() && self.is_worthwhile(now);
        self.wait = Some(Wait {
            since: now,
            until: polls.then(|| now + self.limit),
            asleep: None,
        });
        polls
    }

    fn is_worthwhile(&mut self, now: Instant) -> bool {
        if !self.is_busy || self.stint.is_none() && !self.may_try(now) {
            return false;
        }
        if self.pressure.is_high(now) {
            self.stint = None;
            return false;
        }
        let stint = self.stint.get_or_insert(Stint {
            begun: now,
            count: 0,
            // Few waits that are longer are enough to give it up.
            polled: Mean::of(self.slept.value / 2),
        });
        stint.count += 1;
        !stint.count.is_multiple_of(SAMPLE)
    }

    /// Whether there is something to gain. To be woken is cheap where both threads take turns on one
    /// processor, because the others are busy.
    fn may_try(&self, now: Instant) -> bool {
        self.slept.value > self.limit / 4 && !self.pause.is_on(now)
    }

    /// Whether to look once more.
    pub fn is_open(&self, now: Instant) -> bool {
        let until = self.wait.as_ref().and_then(|wait| wait.until);
        until.is_some_and(|until| now < until)
    }

    /// The last look, at `now`, found something. More may come: a wait begins.
    pub fn found(&mut self, now: Instant) {
        if let Some(wait) = &mut self.wait {
            let waited = now.duration_since(wait.since);
            (wait.since, wait.until) = (now, Some(now + self.limit));
            self.polled(waited, now);
        }
    }

    /// The thread goes to sleep.
    pub fn sleeps(&mut self, now: Instant) {
        let wait = self.wait.get_or_insert(Wait {
            since: now,
            until: None,
            asleep: None,
        });
        wait.asleep = Some(now);
    }

    /// The thread has something to do, and is awake.
    pub fn wakes(&mut self, now: Instant) {
        let Some(wait) = self.wait.take() else {
            return;
        };
        let Some(asleep) = wait.asleep else {
            return;
        };
        self.is_busy = now.duration_since(asleep) <= SHORT * self.limit;
        let ended = if self.is_busy { now } else { asleep };
        let waited = ended.duration_since(wait.since);
        match wait.until {
            Some(_) => self.polled(waited, now),
            None if self.is_busy => self.slept.add(waited),
            None => (),
        }
    }

    /// Takes a wait with polling into account.
    fn polled(&mut self, waited: Duration, now: Instant) {
        let Some(stint) = &mut self.stint else {
            return;
        };
        stint.polled.add(waited);
        if stint.polled.value > self.slept.value / GAIN * (GAIN - 1) {
            let lasted = now.duration_since(stint.begun);
            self.pause.begin(now, lasted);
            self.stint = None;
        }
    }
}

/// An exponential mean.
#[derive(Debug, Default)]
struct Mean {
    value: Duration,
}

impl Mean {
    fn of(value: Duration) -> Self {
        Mean { value }
    }

    fn add(&mut self, value: Duration) {
        self.value = match self.value {
            Duration::ZERO => value,
            mean => (7 * mean + value) / 8,
        };
    }
}

/// A time in which polling is not tried.
#[derive(Debug, Default)]
struct Pause {
    length: Duration,
    until: Option<Instant>,
}

impl Pause {
    fn is_on(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Polling was given up after it `lasted` so long.
    fn begin(&mut self, now: Instant, lasted: Duration) {
        self.length = match lasted > TRIAL {
            true => PAUSE,
            false => LONGEST_PAUSE.min(2 * self.length).max(PAUSE),
        };
        self.until = Some(now + self.length);
    }
}

#[cfg(test)]
#[path = "polling_test.rs"]
mod tests;
