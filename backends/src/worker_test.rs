use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::thread;

use vhost_user_backend::VringT;
use virtio_queue::QueueT;
use vm_memory::GuestMemoryAtomic;

use super::*;
use crate::page_log::GuestRam;
use crate::shutdown::Shutdown;
use crate::testing::{Events, Recorder, eventfd, readable};
use crate::vring::Vring;

struct Bench {
    recorder: Arc<Recorder>,
    events: Events,
    pool: Pool<Arc<Recorder>>,
    shutdown: Shutdown,
}

fn vrings(count: usize) -> Vec<Vring> {
    let memory = GuestMemoryAtomic::new(GuestRam::new());
    (0..count)
        .map(|_| Vring::new(memory.clone(), 16).unwrap())
        .collect()
}

fn bench(recorder: Arc<Recorder>, events: Events) -> Bench {
    let shutdown = Shutdown::new().unwrap();
    let pool = Pool::new(&recorder, &vrings(recorder.queues), &shutdown.handle()).unwrap();
    Bench {
        recorder,
        events,
        pool,
        shutdown,
    }
}

fn simple(queues: usize) -> Bench {
    let (recorder, events) = Recorder::new(queues);
    bench(recorder, events)
}

fn signal(mut file: &File) {
    file.write_all(&1u64.to_ne_bytes()).unwrap();
}

fn start(bench: &Bench, ring: usize) -> File {
    let kick = eventfd();
    let watched = kick.try_clone().unwrap();
    bench.pool.start(ring, watched).unwrap().unwrap();
    kick
}

#[test]
fn a_started_ring_is_processed_once_and_at_every_kick() {
    let bench = simple(2);
    let kick = start(&bench, 1);
    assert_eq!(bench.events.next(), (0, 1), "worker 1 calls it its ring 0");
    for _ in 0..100 {
        signal(&kick);
        assert_eq!(bench.events.next(), (0, 1));
    }
    // Nobody reads the counter; that must not matter.
    let mut count = [0; 8];
    (&kick).read_exact(&mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 100);
}

#[test]
fn a_kick_before_the_start_is_not_lost() {
    let bench = simple(1);
    let kick = eventfd();
    signal(&kick);
    bench.pool.start(0, kick).unwrap().unwrap();
    assert_eq!(bench.events.next(), (0, 0));
}

#[test]
fn stopping_waits_for_the_event_in_progress_and_none_comes_after() {
    let bench = simple(1);
    let gate = bench.recorder.gate.lock().unwrap();
    let kick = start(&bench, 0);
    assert_eq!(bench.events.next(), (0, 0));
    thread::scope(|scope| {
        let stopping = scope.spawn(|| bench.pool.stop(0).unwrap());
        signal(&kick);
        // The worker is within handle_event, so the stop cannot have been answered.
        assert!(!stopping.is_finished());
        drop(gate);
        stopping.join().unwrap();
    });
    while !bench.events.none() {}
    signal(&kick);
    // A job is a barrier: had there been an event to handle, it would have been by now.
    bench.pool.set_err(0, None).unwrap();
    bench.pool.set_err(0, None).unwrap();
    assert!(bench.events.none());
}

/// Else an event of the device's own finds the ring running at first and not running then, which
/// it fails over, and it is not heard of again.
#[test]
fn a_ring_runs_as_long_as_an_event_of_it_is_handled() {
    let (recorder, events) = Recorder::new(1);
    let shutdown = Shutdown::new().unwrap();
    let rings = vrings(1);
    rings[0].set_queue_ready(true);
    rings[0].set_enabled(true);
    let pool = Pool::new(&recorder, &rings, &shutdown.handle()).unwrap();
    let gate = recorder.gate.lock().unwrap();
    pool.start(0, eventfd()).unwrap().unwrap();
    assert_eq!(events.next(), (0, 0));
    let runs = || rings[0].get_ref().is_enabled() && rings[0].get_ref().get_queue().ready();
    thread::scope(|scope| {
        let stopping = scope.spawn(|| pool.stop(0).unwrap());
        assert!(readable(pool.workers[0].wake.as_raw_fd()));
        assert!(runs());
        drop(gate);
        stopping.join().unwrap();
    });
    assert!(!runs());
}

#[test]
fn a_kick_taken_from_epoll_together_with_the_stop_is_ignored() {
    let bench = simple(1);
    let gate = bench.recorder.gate.lock().unwrap();
    let kick = start(&bench, 0);
    assert_eq!(bench.events.next(), (0, 0));
    thread::scope(|scope| {
        let stopping = scope.spawn(|| bench.pool.stop(0).unwrap());
        // The stop is announced before the kick comes; the worker will see both at once.
        assert!(readable(bench.pool.workers[0].wake.as_raw_fd()));
        signal(&kick);
        drop(gate);
        stopping.join().unwrap();
    });
    bench.pool.set_err(0, None).unwrap();
    assert!(bench.events.none());
}

#[test]
fn a_stopped_ring_can_be_started_with_the_same_descriptor() {
    let bench = simple(1);
    let kick = start(&bench, 0);
    assert_eq!(bench.events.next(), (0, 0));
    bench.pool.stop(0).unwrap();
    bench
        .pool
        .start(0, kick.try_clone().unwrap())
        .unwrap()
        .unwrap();
    assert_eq!(bench.events.next(), (0, 0));
    signal(&kick);
    assert_eq!(bench.events.next(), (0, 0));
}

#[test]
fn a_file_that_cannot_be_waited_on_is_refused() {
    let bench = simple(1);
    let file = tempfile::tempfile().unwrap();
    assert!(bench.pool.start(0, file).unwrap().is_err());
    assert!(bench.events.none());
}

#[test]
fn a_device_that_fails_signals_the_error_descriptor_and_is_asked_again() {
    let bench = simple(1);
    let err = eventfd();
    bench
        .pool
        .set_err(0, Some(err.try_clone().unwrap()))
        .unwrap();
    bench.recorder.failing.store(true, Ordering::SeqCst);
    start(&bench, 0);
    bench.events.next();
    // Only then has the event been handled to its end.
    bench.pool.stop(0).unwrap();
    bench.recorder.failing.store(false, Ordering::SeqCst);
    start(&bench, 0);
    bench.events.next();
    bench.pool.stop(0).unwrap();
    let mut count = [0; 8];
    (&err).read_exact(&mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 1);
}

#[test]
fn listeners_are_heard_until_they_fail_or_are_removed() {
    let bench = simple(2);
    let listeners = bench.pool.listeners(1).unwrap();
    let first = listeners.first_event();
    assert_eq!(first, 3, "two rings and the stock daemon's exit event");
    let file = eventfd();
    assert!(
        listeners
            .register(file.as_raw_fd(), EventSet::IN, first - 1)
            .is_err()
    );
    let set = EventSet::IN | EventSet::EDGE_TRIGGERED;
    listeners.register(file.as_raw_fd(), set, first).unwrap();
    signal(&file);
    assert_eq!(bench.events.next(), (first, 1));

    // Only after this job has the event been handled to its end.
    bench.pool.stop(1).unwrap();
    bench.recorder.failing.store(true, Ordering::SeqCst);
    signal(&file);
    assert_eq!(bench.events.next(), (first, 1));
    bench.pool.stop(1).unwrap();
    bench.recorder.failing.store(false, Ordering::SeqCst);
    signal(&file);
    bench.pool.stop(1).unwrap();
    assert!(bench.events.none(), "it has been removed");
    assert!(listeners.unregister(first).is_err());

    listeners.register(file.as_raw_fd(), set, first).unwrap();
    assert_eq!(bench.events.next(), (first, 1));
    listeners.unregister(first).unwrap();
    signal(&file);
    bench.pool.stop(1).unwrap();
    assert!(bench.events.none());
    assert!(bench.pool.listeners(2).is_none());
}

#[test]
fn a_device_can_ask_to_exit() {
    let (recorder, events) = Recorder::new(1);
    let trigger = recorder.with_exit_event();
    let bench = bench(recorder, events);
    trigger.notify().unwrap();
    assert!(readable(bench.shutdown.fds().next().unwrap()));
    // The thread has ended or is about to; whichever, the pool goes without waiting.
    drop(bench.pool);
}

#[test]
fn queues_are_numbered_within_their_worker() {
    let slots = assign(&[0b1010, 0b0101], 4).unwrap();
    assert_eq!(slots, [(1, 0), (0, 0), (1, 1), (0, 1)]);
    // The first mask that names a queue has it; masks may name queues that do not exist.
    assert_eq!(assign(&[u64::MAX, 1], 2).unwrap(), [(0, 0), (0, 1)]);
    assert!(matches!(
        assign(&[0b01], 2),
        Err(WorkerError::Unassigned(1))
    ));
}

#[test]
fn two_rings_of_one_worker_keep_apart() {
    let (mut recorder, events) = Recorder::new(2);
    Arc::get_mut(&mut recorder).unwrap().masks = vec![0b11];
    let bench = bench(recorder, events);
    let first = start(&bench, 0);
    assert_eq!(bench.events.next(), (0, 0));
    let second = start(&bench, 1);
    assert_eq!(bench.events.next(), (1, 0));
    signal(&second);
    assert_eq!(bench.events.next(), (1, 0));
    bench.pool.stop(1).unwrap();
    signal(&second);
    signal(&first);
    assert_eq!(bench.events.next(), (0, 0));
}
