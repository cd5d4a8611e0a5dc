//! A picture as people read it.

use std::fmt;

use crate::duration::duration;
use crate::picture::{Backend, Device, Look, Queue, QueueState, Ring, Seen, Thread, Wish};

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.about)?;
        if let Some(backend) = &self.backend {
            write!(f, "\n{backend}")?;
        }
        for diagnosis in &self.diagnoses {
            write!(f, "\n  => {diagnosis}")?;
        }
        for queue in &self.queues {
            write!(f, "\n  queue {}: {queue}", queue.number)?;
            for diagnosis in &queue.diagnoses {
                write!(f, "\n    => {diagnosis}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.is_connected {
            true => "connected",
            false => "away",
        };
        write!(f, "  backend {}, {state}", self.address)?;
        for (first, more) in alike(&self.threads) {
            let (id, name, state) = (first.id, &first.name, state_name(first.state));
            write!(f, "\n    {state}")?;
            if let Some(place) = &first.waits_in {
                write!(f, " in {place}")?;
            }
            write!(f, ": {name} ({id})")?;
            if more > 0 {
                write!(f, " and {more} more")?;
            }
        }
        Ok(())
    }
}

/// A thread of each state and place, and how many others are like it.
fn alike(threads: &[Thread]) -> Vec<(&Thread, usize)> {
    let mut found: Vec<(&Thread, usize)> = Vec::new();
    for thread in threads {
        let is_like = |(first, _): &&mut (&Thread, usize)| {
            (first.state, &first.waits_in) == (thread.state, &thread.waits_in)
        };
        match found.iter_mut().find(is_like) {
            Some((_, more)) => *more += 1,
            None => found.push((thread, 0)),
        }
    }
    found
}

/// Of proc_pid_stat(5).
fn state_name(state: char) -> String {
    let name = match state {
        'R' => "running",
        'S' => "sleeping",
        'I' => "idle",
        'D' => "waiting for a resource (D)",
        'T' => "stopped (T)",
        't' => "stopped by a debugger (t)",
        'Z' => "ended (Z)",
        other => return other.to_string(),
    };
    name.into()
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            QueueState::NotSetUp => "not set up",
            QueueState::Stopped => "stopped",
            QueueState::Disabled => "started, disabled",
            QueueState::Running if self.seen.is_some() => "started",
            QueueState::Running => "running",
        })?;
        if let Some(look) = &self.now {
            write!(f, "{look}")?;
        }
        if self.is_edge_triggered == Some(true) {
            write!(f, ", kicks are watched edge-triggered and not read")?;
        }
        if let Some(seen) = &self.seen {
            write!(f, "{seen}")?;
        }
        if self.stalled > 0 {
            write!(f, ", not served for {}", duration(self.stalled))?;
        }
        Ok(())
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ring) = &self.ring {
            write!(f, "{ring}")?;
        }
        if let Some(unread) = self.unread_kicks {
            write!(f, ", {unread} unread signals in the kick eventfd")?;
        }
        if let Some(taken) = self.taken {
            write!(f, ", {taken} in flight by the backend's record")?;
        }
        Ok(())
    }
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ", {} entries", self.size)?;
        if let Some(indices) = self.indices {
            let (available, used) = (indices.available, indices.used);
            let in_flight = indices.in_flight();
            write!(
                f,
                ", available {available}, used {used}, in flight {in_flight}"
            )?;
        }
        let interrupts = wish(self.interrupts, "used_event");
        let kicks = wish(self.kicks, "avail_event");
        write!(f, "; interrupts wanted {interrupts}, kicks wanted {kicks}")
    }
}

fn wish(wish: Wish, event: &str) -> String {
    match wish {
        Wish::Always => "always".into(),
        Wish::Never => "never".into(),
        Wish::AtIndex(index) => format!("at {event} {index}"),
        Wish::AtEntry(entry, wrap) => format!("at entry {entry}, wrap {}", u8::from(wrap)),
        Wish::Reserved(flags) => format!("by reserved flags {flags:#x}"),
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kicks,
            calls,
            chains,
            used,
            ..
        } = self;
        write!(
            f,
            ", {kicks} kicks, {calls} calls, {chains} chains, {used} used"
        )
    }
}
