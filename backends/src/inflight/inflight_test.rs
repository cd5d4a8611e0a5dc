//! The record, checked against a model of the document's rules: any backend that keeps them, cut
//! off after any store, leaves what is recovered here. (That the pump keeps them, instruction by
//! instruction, is `inflight_step_test.rs`.)

use std::fs::File;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use vhost::vhost_user::message::VhostUserInflight;

use super::*;
use crate::testing::memfd;

const SIZE: u16 = 8;

fn shape() -> Shape {
    Shape::new(2, SIZE, 4, false).unwrap()
}

fn region() -> (Arc<Region>, File) {
    let (place, file) = create(shape()).unwrap();
    let region = Region::map(&place, file.try_clone().unwrap(), 4, false).unwrap();
    (Arc::new(region), file)
}

fn recover(region: &Arc<Region>, used: u16) -> (Vec<u16>, Option<u16>) {
    let (tracker, next_avail) = Tracker::recover(region, 1, SIZE, used).unwrap();
    (tracker.left.into_iter().collect(), next_avail)
}

#[test]
fn a_record_is_as_the_document_lays_it_out() {
    let (region, file) = region();
    let (mut tracker, next_avail) = Tracker::recover(&region, 1, SIZE, 0x1234).unwrap();
    assert_eq!(next_avail, None);
    for head in [5, 3, 5] {
        tracker.put_back(head).unwrap();
        tracker.take(head).unwrap();
    }
    tracker.completing(3).unwrap();
    tracker.completing(5).unwrap();
    let mut bytes = vec![0; shape().bytes()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    // 16 bytes of header and 16 an entry, up to the next multiple of 64; the second of two.
    assert_eq!(bytes.len(), 2 * 192);
    assert_eq!(bytes[..192], [0; 192]);
    let ring = &bytes[192..];
    let header = [
        [0, 0],
        [0, 0],
        [0, 0],
        [0, 0],
        [1, 0],
        [8, 0],
        [5, 0],
        [0x34, 0x12],
    ];
    assert_eq!(ring[..16], header.concat());
    let entry = |i: usize| &ring[16 + 16 * i..32 + 16 * i];
    assert_eq!(entry(3), [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(entry(5), [1, 0, 0, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(entry(7), [0; 16]);
}

#[test]
fn a_part_is_forgotten_when_nothing_of_it_is_in_flight() {
    let (region, _) = region();
    let (mut tracker, _) = Tracker::recover(&region, 1, SIZE, 5).unwrap();
    tracker.take(3).unwrap();
    region.forget_if_idle(1).unwrap();
    assert_eq!(recover(&region, 5), (vec![3], Some(6)), "the chain is kept");
    tracker.put_back(3).unwrap();
    assert!(
        Tracker::recover(&region, 1, SIZE, 0).is_err(),
        "another ring"
    );
    region.forget_if_idle(1).unwrap();
    assert_eq!(recover(&region, 0), (vec![], None));
    // A ring that the record has no part of.
    region.forget_if_idle(2).unwrap();
}

#[test]
fn a_record_cannot_change_its_size_and_is_described_in_full() {
    let (place, file) = create(shape()).unwrap();
    assert!(file.set_len(0).is_err());
    assert!(file.set_len(1 << 20).is_err());
    assert_eq!((place.mmap_size, place.mmap_offset), (384, 0));
    assert_eq!((place.num_queues, place.queue_size), (2, SIZE));
}

#[test]
fn impossible_records_are_refused() {
    let map = |size, offset, queues, entries, file| {
        let place = VhostUserInflight::new(size, offset, queues, entries);
        Region::map(&place, memfd(file), 4, false).unwrap_err()
    };
    for (queues, entries) in [(0, 8), (5, 8), (2, 0), (2, 32769)] {
        let error = map(1 << 30, 0, queues, entries, 0);
        assert!(matches!(error, InflightError::Shape { .. }), "{error}");
    }
    for (size, offset, file) in [
        (383, 0, 4096),
        (384, 0, 383),
        (384, 4096, 4479),
        (384, u64::MAX - 10, 4096),
    ] {
        let error = map(size, offset, 2, 8, file);
        assert!(matches!(error, InflightError::Small { .. }), "{error}");
    }
    let error = map(384, 8, 2, 8, 4096);
    assert!(matches!(error, InflightError::Map(_)), "{error}");
}

#[test]
fn a_record_of_something_else_is_refused() {
    let (region, file) = region();
    let fails = |index, size, used| Tracker::recover(&region, index, size, used).unwrap_err();
    assert!(matches!(fails(2, 8, 0), InflightError::Room { .. }));
    assert!(matches!(fails(1, 16, 0), InflightError::Room { .. }));
    assert_eq!(recover(&region, 7), (vec![], None));
    assert!(matches!(fails(1, 8, 6), InflightError::Foreign { .. }));
    assert!(matches!(fails(1, 8, 16), InflightError::Foreign { .. }));
    // A batch that begins outside the ring.
    file.write_all_at(&[9], 192 + 12).unwrap();
    assert!(matches!(fails(1, 8, 8), InflightError::Foreign { .. }));
    for (version, entries) in [(2, 8), (1, 7)] {
        file.write_all_at(&[version, 0, entries], 192 + 8).unwrap();
        assert!(matches!(fails(1, 8, 7), InflightError::Unknown { .. }));
    }
}

/// A packet may need both.
#[test]
fn what_is_left_is_taken_one_behind_the_other() {
    let (region, _file) = region();
    let (mut killed, _) = Tracker::recover(&region, 0, SIZE, 0).unwrap();
    killed.take(5).unwrap();
    killed.take(2).unwrap();
    let (mut tracker, next_avail) = Tracker::recover(&region, 0, SIZE, 0).unwrap();
    assert_eq!(next_avail, Some(2));
    for _ in 0..2 {
        assert_eq!(tracker.take_left(), Some(5));
        assert_eq!(tracker.take_left(), Some(2));
        assert_eq!(tracker.take_left(), None);
        assert!(!tracker.put_left_back(5), "not the last");
        assert!(tracker.put_left_back(2));
        assert!(tracker.put_left_back(5));
        assert!(!tracker.put_left_back(5), "it is back");
    }
    assert_eq!(tracker.take_left(), Some(5));
    tracker.completed(5).unwrap();
    assert_eq!((tracker.left_count(), tracker.take_left()), (1, Some(2)));
}

#[test]
fn heads_that_the_ring_has_not_got_leave_no_trace() {
    let (region, file) = region();
    let (mut tracker, _) = Tracker::recover(&region, 0, SIZE, 0).unwrap();
    let bytes = || {
        let mut bytes = vec![0; shape().bytes()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let before = bytes();
    for head in [SIZE, u16::MAX] {
        tracker.take(head).unwrap();
        tracker.completing(head).unwrap();
        tracker.completed(head).unwrap();
        tracker.put_back(head).unwrap();
    }
    assert_eq!(bytes(), before);
}

/// A store of the model: into the record, or the one that moves the used ring's index.
enum Store {
    Record(usize, Vec<u8>),
    Used(u16),
}

/// What a backend did and what it was about to: the stores of the document's rules in order.
#[derive(Default)]
struct Model {
    stores: Vec<Store>,
    /// After so many stores a chain counts as taken; by head.
    taken: Vec<(usize, u16)>,
    /// After so many stores the driver has these back.
    used: Vec<(usize, Vec<u16>)>,
    in_flight: Vec<u16>,
    counter: u64,
    last: u16,
    idx: u16,
}

impl Model {
    fn entry(&mut self, head: u16, field: usize, bytes: &[u8]) {
        let at = 192 + 16 + 16 * usize::from(head) + field;
        self.stores.push(Store::Record(at, bytes.to_vec()));
    }

    fn header(&mut self, field: usize, value: u16) {
        let bytes = value.to_le_bytes().to_vec();
        self.stores.push(Store::Record(192 + field, bytes));
    }

    fn take(&mut self, head: u16) {
        if self.in_flight.contains(&head) {
            return;
        }
        self.entry(head, ENTRY_COUNTER, &self.counter.to_le_bytes());
        self.counter += 1;
        self.entry(head, ENTRY_INFLIGHT, &[1]);
        self.taken.push((self.stores.len(), head));
        self.in_flight.push(head);
    }

    /// Uses up to `count` chains as one batch, from the `from`-th on: in any order.
    fn complete(&mut self, from: usize, count: usize) {
        let count = count.min(self.in_flight.len());
        if count == 0 {
            return;
        }
        let len = self.in_flight.len();
        self.in_flight.rotate_left(from % len);
        let batch: Vec<u16> = self.in_flight.drain(..count).collect();
        for &head in &batch {
            self.entry(head, ENTRY_NEXT, &self.last.to_le_bytes());
            self.last = head;
            self.header(HEADER_LAST_BATCH_HEAD, head);
        }
        self.idx = self.idx.wrapping_add(count as u16);
        self.stores.push(Store::Used(self.idx));
        self.used.push((self.stores.len(), batch.clone()));
        for &head in &batch {
            self.entry(head, ENTRY_INFLIGHT, &[0]);
        }
        self.header(HEADER_USED_IDX, self.idx);
    }

    /// Carries out the first `cut` stores; what is then in flight, oldest first, and the used
    /// index.
    fn cut(&self, cut: usize, file: &File) -> (Vec<u16>, u16) {
        let mut idx = self.start();
        for store in &self.stores[..cut] {
            match store {
                Store::Record(at, bytes) => file.write_all_at(bytes, *at as u64).unwrap(),
                Store::Used(value) => idx = *value,
            }
        }
        let mut events: Vec<_> = self
            .taken
            .iter()
            .map(|(at, h)| (*at, vec![*h], true))
            .collect();
        events.extend(
            self.used
                .iter()
                .map(|(at, heads)| (*at, heads.clone(), false)),
        );
        events.sort();
        let mut left: Vec<u16> = Vec::new();
        for (_, heads, taken) in events.into_iter().filter(|(at, ..)| *at <= cut) {
            match taken {
                true => left.extend(heads),
                false => left.retain(|head| !heads.contains(head)),
            }
        }
        (left, idx)
    }

    fn start(&self) -> u16 {
        let total: usize = self.used.iter().map(|(_, heads)| heads.len()).sum();
        self.idx.wrapping_sub(total as u16)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Take(u16),
    Complete(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..SIZE).prop_map(Step::Take),
        (0usize..8, 1usize..5).prop_map(|(from, count)| Step::Complete(from, count)),
    ]
}

proptest! {
    #[test]
    fn whatever_store_was_the_last_all_is_known(
        steps in prop::collection::vec(step(), 1..20),
        start in prop_oneof![Just(0), any::<u16>(), Just(u16::MAX - 3)],
    ) {
        let mut model = Model { idx: start, ..Model::default() };
        for step in &steps {
            match *step {
                Step::Take(head) => model.take(head),
                Step::Complete(from, count) => model.complete(from, count),
            }
        }
        for cut in 0..=model.stores.len() {
            let (region, file) = region();
            prop_assert_eq!(recover(&region, start), (vec![], None));
            let (left, idx) = model.cut(cut, &file);
            let next_avail = Some(idx.wrapping_add(left.len() as u16));
            prop_assert_eq!(recover(&region, idx), (left.clone(), next_avail), "cut {}", cut);
            // Recovered twice is recovered once.
            prop_assert_eq!(recover(&region, idx), (left, next_avail));
        }
    }
}
