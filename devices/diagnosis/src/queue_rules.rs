//! What can be wrong with a queue.
//!
//! Rules need two looks that show the same wherever a moment would not tell: a notification takes
//! some time to arrive, and a request to be done.

use crate::device_rules::is_live;
use crate::duration::duration;
use crate::picture::{Device, Look, Queue, QueueState, Ring, Seen, Wish};

/// Signals and chains that came close together count as one event, in nanoseconds.
const CLOSE: u64 = 1_000_000_000;
/// Most defects of a ring that are listed.
const MOST_DEFECTS: usize = 4;

/// What a rule looks at.
struct Case<'a> {
    device: &'a Device,
    queue: &'a Queue,
}

type Rule = fn(&Case<'_>) -> Option<String>;

/// Each says what it finds. They are for queues that the driver has set up.
const RULES: &[Rule] = &[
    is_broken,
    is_not_enabled,
    is_not_worked_on,
    is_never_filled,
    has_no_room,
    is_not_read,
    is_not_kicked,
    is_not_finished,
    waits,
    is_not_interrupted,
    is_never_interrupted,
    is_not_called,
    has_errors,
];

pub fn diagnose(device: &Device, queue: &Queue) -> Vec<String> {
    if queue.state == QueueState::NotSetUp {
        return Vec::new();
    }
    let case = Case { device, queue };
    RULES.iter().filter_map(|rule| rule(&case)).collect()
}

impl<'a> Case<'a> {
    fn ring(&self) -> Option<&'a Ring> {
        self.queue.ring()
    }

    fn seen(&self) -> Option<&'a Seen> {
        self.queue.seen.as_ref()
    }

    /// The last look at a queue that is being served, where nothing has happened since the one
    /// before.
    fn still(&self) -> Option<(&'a Look, &'a Ring)> {
        let look = self.queue.now.as_ref()?;
        let ring = look.ring.as_ref()?;
        let is_so = self.is_running() && self.queue.is_still() && ring.broken.is_empty();
        is_so.then_some((look, ring))
    }

    /// Signals of the kick that the backend has still to notice. One that waits edge-triggered
    /// leaves those in the eventfd that it has noticed.
    fn unread(&self, look: &Look) -> Option<u64> {
        match self.queue.is_edge_triggered {
            Some(true) => None,
            _ => look.unread_kicks,
        }
    }

    /// The backend would see a kick, and none is there that it has not seen.
    fn has_seen_kicks(&self, look: &Look) -> bool {
        let is_edge = self.queue.is_edge_triggered == Some(true);
        is_edge || self.unread(look) == Some(0)
    }

    fn is_backend_stopped(&self) -> bool {
        let backend = self.device.backend.as_ref();
        backend.is_some_and(|backend| backend.threads.iter().any(|t| matches!(t.state, 'T' | 't')))
    }

    fn is_running(&self) -> bool {
        self.queue.state == QueueState::Running && is_live(self.device)
    }

    /// For how long it is known that nothing has happened.
    fn for_long(&self) -> String {
        duration(self.device.apart.max(self.queue.stalled))
    }
}

/// A ring that is read while others write to it may look broken for a moment.
fn is_broken(case: &Case<'_>) -> Option<String> {
    let before = case
        .queue
        .before
        .as_ref()
        .and_then(|look| look.ring.as_ref());
    let lasts = |defect: &&String| before.is_none_or(|before| before.broken.contains(defect));
    let defects: Vec<&String> = case.ring()?.broken.iter().filter(lasts).collect();
    let (first, rest) = defects.split_at(defects.len().min(MOST_DEFECTS));
    let more = match rest.len() {
        0 => String::new(),
        count => format!("; and {count} more"),
    };
    let first: Vec<&str> = first.iter().map(|defect| defect.as_str()).collect();
    let text = || format!("the driver has broken the ring: {}{more}", first.join("; "));
    (!first.is_empty()).then(text)
}

fn is_not_enabled(case: &Case<'_>) -> Option<String> {
    (case.queue.state == QueueState::Disabled)
        .then(|| "it was started and is not enabled: the backend must not serve it".into())
}

/// A device that is away or broken has been spoken of.
fn is_not_worked_on(case: &Case<'_>) -> Option<String> {
    let is_there = case
        .device
        .backend
        .as_ref()
        .is_some_and(|backend| backend.is_connected);
    let is_so = case.queue.state == QueueState::Stopped && is_live(case.device) && is_there;
    is_so.then(|| "the driver has set it up, and the device does not work on it".into())
}

fn is_never_filled(case: &Case<'_>) -> Option<String> {
    if let Some(seen) = case.seen() {
        let is_so = case.queue.state != QueueState::Stopped && seen.chains == 0 && seen.kicks == 0;
        return is_so.then(|| "the driver has not made any buffer available, nor kicked".into());
    }
    let (_, ring) = case.still()?;
    let is_so = case.queue.is_filled_ahead && !ring.is_touched;
    is_so.then(|| {
        "the driver never filled the receive queue: the device has nothing to put into it".into()
    })
}

fn has_no_room(case: &Case<'_>) -> Option<String> {
    let (_, ring) = case.still()?;
    let is_so = case.queue.is_filled_ahead && ring.is_touched && ring.in_flight() == Some(0);
    is_so.then(|| {
        "the driver has given the device no buffers in place of those that it has used: the \
         receive queue is empty"
            .into()
    })
}

/// A device that wants no kicks polls, and one that keeps buffers has no reason to hurry.
fn is_not_read(case: &Case<'_>) -> Option<String> {
    let (look, ring) = case.still()?;
    let waited = case.unread(case.queue.before.as_ref()?)?;
    let unread = case
        .unread(look)
        .filter(|unread| *unread > 0 && waited > 0)?;
    let has_work = case
        .queue
        .in_flight()
        .map_or(ring.is_touched, |count| count > 0);
    let is_so = has_work && !case.queue.is_filled_ahead && ring.kicks != Wish::Never;
    is_so.then(|| {
        format!(
            "the kick is waiting in the eventfd: the backend has not read it for {} ({unread} \
             signals)",
            case.for_long()
        )
    })
}

/// A backend that is stopped may have been kicked: where it waits edge-triggered nothing tells.
fn is_not_kicked(case: &Case<'_>) -> Option<String> {
    let (look, ring) = case.still()?;
    if !case.has_seen_kicks(look) || case.queue.is_filled_ahead {
        return None;
    }
    let event = passed(ring.kicks, ring.size, |i| i.available, ring);
    let waiting = ring.in_flight().filter(|count| *count > 0)?;
    if case.is_backend_stopped() {
        let is_so = event.is_some() || look.taken == Some(0);
        return is_so.then(|| {
            format!("the backend has not seen all of the {waiting} requests: it does not run")
        });
    }
    match (event, look.taken) {
        (Some(event), _) => Some(format!(
            "the backend has not been kicked since it asked for kicks: avail_event was {event} \
             and passed at {}, and the available index is {}",
            event.wrapping_add(1),
            ring.indices?.available
        )),
        (None, Some(0)) => Some(format!(
            "the backend has not been kicked: {waiting} requests are available, and its record has \
             none of them in flight"
        )),
        _ => None,
    }
}

/// The index at which a notification was wanted, if the one that is waited for is behind it.
///
/// Linux writes 0 for "never" into used_event, so that 0 says nothing once it is far behind.
fn passed(
    wish: Wish,
    size: u16,
    index: impl Fn(crate::picture::Indices) -> u16,
    ring: &Ring,
) -> Option<u16> {
    let Wish::AtIndex(event) = wish else {
        return None;
    };
    let behind = index(ring.indices?).wrapping_sub(event);
    let is_so = (1..=size).contains(&behind) && (event != 0 || behind == 1);
    is_so.then_some(event)
}

fn is_not_finished(case: &Case<'_>) -> Option<String> {
    let (look, ring) = case.still()?;
    let waiting = case.queue.in_flight().filter(|count| *count > 0)?;
    if case.queue.is_filled_ahead || !case.has_seen_kicks(look) || is_not_kicked(case).is_some() {
        return None;
    }
    let has_seen_all = ring.kicks
        == ring
            .indices
            .map_or(Wish::Always, |i| Wish::AtIndex(i.available));
    let (time, taken) = (case.for_long(), look.taken.unwrap_or(0));
    Some(if taken > 0 {
        format!("the backend has taken {taken} requests, and has finished none for {time}")
    } else if has_seen_all && ring.indices.is_some() {
        format!("the backend has seen all {waiting} requests, and has finished none for {time}")
    } else {
        format!(
            "{waiting} requests have waited for {time}, and the backend has read its kicks: it \
             works on them, or it was not kicked for them"
        )
    })
}

/// In a trace.
fn waits(case: &Case<'_>) -> Option<String> {
    let seen = case
        .seen()
        .filter(|_| case.is_running() && !case.queue.is_filled_ahead)?;
    let oldest = seen.oldest.as_ref()?;
    let kicked = match seen.last_kick {
        Some(kick) => format!("kicked last {} before the end", duration(kick)),
        None => "never kicked".to_owned(),
    };
    let other = match seen.last_used.is_some_and(|used| used < oldest.age) {
        true => "it has finished later requests since",
        false => "it has finished none since",
    };
    let (age, what) = (duration(oldest.age), &oldest.what);
    Some(format!(
        "the oldest of {} requests in flight has waited for {age} ({what}): the backend was \
         {kicked}, and {other}",
        seen.in_flight
    ))
}

fn is_not_interrupted(case: &Case<'_>) -> Option<String> {
    let (_, ring) = case.still()?;
    let event = passed(ring.interrupts, ring.size, |i| i.used, ring)?;
    Some(format!(
        "the driver waits for an interrupt that the backend did not send, or that the guest did \
         not take: used_event was {event} and passed at {}, and the used index is {}",
        event.wrapping_add(1),
        ring.indices?.used
    ))
}

/// Without an event index only the first one is known to be missing.
fn is_never_interrupted(case: &Case<'_>) -> Option<String> {
    let (_, ring) = case.still()?;
    let wants_all = ring.interrupts == Wish::Always;
    let is_so = wants_all && ring.has_used && case.device.driver.acknowledged == Some(0);
    is_so.then(|| {
        "the driver wants interrupts and has acknowledged none, though the device has used \
         chains: the backend did not send them, or the guest did not take them"
            .into()
    })
}

/// In a trace.
fn is_not_called(case: &Case<'_>) -> Option<String> {
    let seen = case.seen().filter(|_| case.is_running())?;
    let used = seen.last_used?;
    let is_told = seen
        .last_call
        .is_some_and(|call| call < used.saturating_add(CLOSE));
    (used >= CLOSE && !is_told).then(|| {
        "the backend has used chains and sent no call for them: the driver has to poll, or have \
         said that it wants none"
            .into()
    })
}

fn has_errors(case: &Case<'_>) -> Option<String> {
    let count = case.queue.errors;
    (count > 0).then(|| format!("the backend has reported {count} errors on it"))
}
