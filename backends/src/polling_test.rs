use super::*;

const LIMIT: Duration = Duration::from_micros(50);
const LOOK: Duration = Duration::from_nanos(500);

/// A thread with a clock of its own.
struct Thread {
    polling: Polling,
    now: Instant,
    /// What it takes to be woken.
    wake_up: Duration,
    /// Spent polling.
    polled: Duration,
    /// Another thread runs after so much time of polling, for as long.
    slice: Option<Duration>,
    /// It does not run, and nothing comes, while this one polls.
    is_rivals: bool,
}

impl Thread {
    fn new(limit: Duration) -> Self {
        Thread {
            polling: Polling::new(limit, Pressure::default()),
            now: Instant::now(),
            wake_up: Duration::from_micros(30),
            polled: Duration::ZERO,
            slice: None,
            is_rivals: false,
        }
    }

    /// Has nothing to do for `gap`. A thread that sleeps hears of it later by a wake-up. Whether
    /// it polled until then.
    fn idle(&mut self, gap: Duration) -> bool {
        let mut due = self.now + gap;
        if self.polling.begin(self.now) {
            while self.polling.is_open(self.now) {
                if self.now >= due && !self.is_rivals {
                    self.polling.found(self.now);
                    return true;
                }
                self.now += LOOK;
                self.run_other();
                self.polled += LOOK;
            }
        }
        if self.is_rivals {
            due = self.now + gap;
        }
        self.polling.sleeps(self.now);
        self.now = due.max(self.now) + self.wake_up;
        self.polling.wakes(self.now);
        false
    }

    /// Gives the processor up when the time slice is over.
    fn run_other(&mut self) {
        if let Some(slice) = self.slice {
            let slices = |polled: Duration| polled.as_nanos() / slice.as_nanos();
            if slices(self.polled) != slices(self.polled + LOOK) {
                self.now += slice;
            }
        }
    }

    /// The share of its time that it polls, where something comes every `gap`.
    fn share(&mut self, gap: Duration, times: u32) -> f64 {
        let (begin, polled) = (self.now, self.polled);
        for _ in 0..times {
            self.idle(gap);
        }
        (self.polled - polled).as_secs_f64() / (self.now - begin).as_secs_f64()
    }
}

#[test]
fn a_thread_polls_where_requests_follow_each_other_closely() {
    let mut thread = Thread::new(LIMIT);
    let polls = (0..1000).filter(|_| thread.idle(LIMIT / 5)).count();
    assert!((980..1000).contains(&polls), "{polls}");
    // One that is late is no reason to stop.
    assert!(!thread.idle(LIMIT) && thread.idle(LIMIT / 5));
}

#[test]
fn a_burst_is_polled_for_and_the_time_between_two_is_not() {
    let mut thread = Thread::new(LIMIT);
    for _ in 0..1000 {
        thread.share(LIMIT / 10, 50);
        thread.idle(Duration::from_millis(10));
    }
    let polled = thread.polled;
    let burst = thread.share(LIMIT / 10, 50);
    assert!(burst > 0.7, "{burst} of a burst");
    assert!(thread.share(Duration::from_millis(10), 1) < 0.01);
    assert!(thread.polled > polled);
}

#[test]
fn nothing_is_polled_for_what_does_not_come_soon() {
    for micros in [60, 100, 150, 170, 200, 1000, 1_000_000] {
        let mut thread = Thread::new(LIMIT);
        thread.share(Duration::from_micros(micros), 5_000);
        let share = thread.share(Duration::from_micros(micros), 50_000);
        assert!(share < 0.005, "{share} of the time for gaps of {micros} µs");
    }
}

#[test]
fn polling_ends_with_the_requests() {
    let mut thread = Thread::new(LIMIT);
    thread.share(LIMIT / 5, 1000);
    let polled = thread.polled;
    thread.share(Duration::from_millis(1), 1000);
    assert!(thread.polled - polled <= 3 * LIMIT);
}

#[test]
fn polling_does_not_pay_where_it_saves_little() {
    let mut thread = Thread::new(LIMIT);
    thread.wake_up = Duration::from_micros(5);
    thread.share(LIMIT / 2, 20_000);
    assert!(thread.share(LIMIT / 2, 100_000) < 0.005);
}

#[test]
fn a_thread_does_not_poll_beside_a_busy_one() {
    for millis in [1, 3, 10] {
        let mut thread = Thread::new(LIMIT);
        thread.slice = Some(Duration::from_millis(millis));
        thread.share(LIMIT / 5, 100_000);
        let share = thread.share(LIMIT / 5, 1_000_000);
        assert!(share < 0.01, "{share} of the time, slices of {millis} ms");
        // Alone again.
        thread.slice = None;
        thread.share(LIMIT / 5, 50_000);
        let polls = (0..10).filter(|_| thread.idle(LIMIT / 5)).count();
        assert!(polls >= 9);
    }
}

#[test]
fn a_thread_does_not_keep_the_processor_from_who_makes_the_requests() {
    let mut thread = Thread::new(LIMIT);
    thread.is_rivals = true;
    thread.wake_up = Duration::from_micros(1);
    thread.share(LIMIT / 10, 100_000);
    assert!(thread.share(LIMIT / 10, 500_000) < 0.005);
}

#[test]
fn without_a_limit_nothing_is_polled() {
    let mut thread = Thread::new(Duration::ZERO);
    assert_eq!(thread.share(Duration::ZERO, 1000), 0.0);
}
