//! The last exits of a vCPU, for the debugger.
//!
//! Recorded at every exit, so that it must cost next to nothing: four stores of a
//! single writer and one reading of the time-stamp counter; no lock, no
//! allocation, no system call. Read while the vCPU is stopped; read at another
//! time, the oldest entries may be torn, which harms nobody.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use gdb::inspect::RecentExit;

use super::exit::{Exit, Reason};
use super::x86_64::instructions::rdtsc;

/// Exits that are kept; a power of two.
const KEPT: usize = 256;

/// No address, and no RIP.
const NONE: u64 = u64::MAX;

#[derive(Default)]
struct Slot {
    reason: AtomicU64,
    addr: AtomicU64,
    rip: AtomicU64,
    time: AtomicU64,
}

/// A ring of the last [`KEPT`] exits.
pub struct Recent {
    slots: Box<[Slot]>,
    /// How many have been recorded.
    count: AtomicUsize,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            slots: std::iter::repeat_with(Slot::default).take(KEPT).collect(),
            count: AtomicUsize::new(0),
        }
    }
}

/// The record of an exit before it is answered.
#[derive(Clone, Copy)]
pub struct Note {
    pub reason: Reason,
    addr: u64,
}

impl Note {
    pub fn of(exit: &Exit<'_>) -> Self {
        let addr = match exit {
            Exit::PioIn { port, .. } | Exit::PioOut { port, .. } => (*port).into(),
            Exit::MmioRead { addr, .. } | Exit::MmioWrite { addr, .. } => *addr,
            Exit::Msr(access) => access.index.into(),
            _ => NONE,
        };
        Self {
            reason: exit.reason(),
            addr,
        }
    }
}

impl Recent {
    /// Only the vCPU's own thread may call this.
    pub fn record(&self, note: Note, rip: Option<u64>) {
        let count = self.count.load(Ordering::Relaxed);
        let slot = &self.slots[count % KEPT];
        slot.reason.store(note.reason as u64, Ordering::Relaxed);
        slot.addr.store(note.addr, Ordering::Relaxed);
        slot.rip.store(rip.unwrap_or(NONE), Ordering::Relaxed);
        slot.time.store(rdtsc(), Ordering::Relaxed);
        self.count.store(count.wrapping_add(1), Ordering::Release);
    }

    /// The recorded exits, the oldest first.
    pub fn list(&self) -> Vec<RecentExit> {
        let count = self.count.load(Ordering::Acquire);
        let kept = count.min(KEPT);
        let rate = nanoseconds_per_tick();
        (count - kept..count)
            .filter_map(|n| self.slots[n % KEPT].read(rate))
            .collect()
    }
}

impl Slot {
    fn read(&self, rate: f64) -> Option<RecentExit> {
        let value = |value: &AtomicU64| Some(value.load(Ordering::Relaxed)).filter(|v| *v != NONE);
        let reason = usize::try_from(self.reason.load(Ordering::Relaxed)).ok()?;
        Some(RecentExit {
            reason: Reason::NAMES.get(reason)?,
            addr: value(&self.addr),
            rip: value(&self.rip),
            time: (self.time.load(Ordering::Relaxed).saturating_sub(start().1) as f64 * rate)
                as u64,
        })
    }
}

/// The start of the clock.
fn start() -> &'static (Instant, u64) {
    static START: OnceLock<(Instant, u64)> = OnceLock::new();
    START.get_or_init(|| (Instant::now(), rdtsc()))
}

/// Starts the clock; the further back, the better its rate is known.
pub fn start_clock() {
    start();
}

/// By the rate since the clock's start.
fn nanoseconds_per_tick() -> f64 {
    let (began, first) = *start();
    let (elapsed, now) = (began.elapsed().as_nanos(), rdtsc());
    elapsed as f64 / now.saturating_sub(first).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_exits_are_kept_in_their_order() {
        start_clock();
        let recent = Recent::default();
        assert_eq!(recent.list(), []);
        let mut data = [0];
        for n in 0..KEPT as u64 + 10 {
            let addr = 0x1000 + n;
            let exit = Exit::MmioRead {
                addr,
                data: &mut data,
            };
            recent.record(Note::of(&exit), Some(n));
        }
        recent.record(Note::of(&Exit::Hlt), None);
        let list = recent.list();
        assert_eq!(list.len(), KEPT);
        assert_eq!((list[0].rip, list[0].addr), (Some(11), Some(0x100b)));
        let last = &list[KEPT - 1];
        assert_eq!((last.reason, last.addr, last.rip), ("HLT", None, None));
        assert!(list.is_sorted_by_key(|exit| exit.time));
        assert!(last.time > 0);
    }

    /// Printed with --nocapture; the bound is for a loaded machine.
    #[test]
    fn recording_costs_nanoseconds() {
        const ROUNDS: u32 = 1_000_000;
        let recent = Recent::default();
        let began = Instant::now();
        for n in 0..ROUNDS {
            recent.record(std::hint::black_box(Note::of(&Exit::Hlt)), Some(n.into()));
        }
        let each = began.elapsed() / ROUNDS;
        println!("recording an exit takes {each:?}");
        assert!(each.as_nanos() < 1000, "{each:?}");
    }
}
