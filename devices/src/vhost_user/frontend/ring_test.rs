use libc::EFD_NONBLOCK;

use super::Evidence::{InOrder, Inflight};
use super::*;
use crate::virtio::fakes::FakeHypervisor;

const AVAILABLE: GuestAddress = GuestAddress(0x1000);
const USED: GuestAddress = GuestAddress(0x2000);

struct Test {
    memory: GuestMemory,
    ring: Ring,
}

impl Test {
    fn new() -> Self {
        Self::of(Format::Split)
    }

    fn of(format: Format) -> Self {
        let queue = QueueConfig {
            format,
            size: 16,
            descriptors: GuestAddress(0),
            available: AVAILABLE,
            used: USED,
        };
        let hypervisor = Arc::new(FakeHypervisor::default());
        let kick = Kick::new(hypervisor, GuestAddress(0xd000_0050), 0).unwrap();
        let call = EventFd::new(EFD_NONBLOCK).unwrap();
        Self {
            memory: GuestMemory::from_ranges(&[(GuestAddress(0), 0x3000)]).unwrap(),
            ring: Ring::new(&queue, &Arc::new(kick), &call).unwrap(),
        }
    }

    fn set(&self, available: u16, used: u16) {
        for (ring, index) in [(AVAILABLE, available), (USED, used)] {
            let at = GuestAddress(ring.0 + 2);
            self.memory.write_obj(index.to_le(), at).unwrap();
        }
    }

    /// A backend is lost when the indices are these.
    fn lose(&mut self, available: u16, used: u16) {
        self.ring.mark_running(self.ring.initial_base());
        self.set(available, used);
        self.ring.mark_lost(&self.memory);
    }

    fn base(&self, evidence: Evidence) -> Result<u32, CannotResume> {
        self.ring.base(evidence, &self.memory)
    }
}

#[test]
fn a_queue_that_no_backend_has_seen_starts_at_its_beginning() {
    let mut test = Test::new();
    test.set(7, 0);
    assert_eq!(
        (test.base(Evidence::None), test.base(InOrder)),
        (Ok(0), Ok(0))
    );
    test.ring.mark_lost(&test.memory);
    assert_eq!(
        test.base(Evidence::None),
        Ok(0),
        "nor does a loss change that"
    );
}

#[test]
fn requests_in_flight_need_knowledge() {
    let mut test = Test::new();
    test.lose(9, 5);
    assert_eq!(test.base(InOrder), Ok(5));
    assert_eq!(test.base(Evidence::None), Err(CannotResume::InFlight));
}

#[test]
fn requests_made_after_the_loss_are_not_in_flight() {
    let mut test = Test::new();
    test.lose(u16::MAX, u16::MAX);
    test.set(3, u16::MAX);
    assert_eq!(test.base(Evidence::None), Ok(u16::MAX.into()));
}

#[test]
fn a_backend_that_works_on_after_closing_its_socket_is_noticed() {
    let mut test = Test::new();
    test.lose(5, 5);
    test.set(8, 6);
    assert_eq!(test.base(Evidence::None), Err(CannotResume::InFlight));
    assert_eq!(test.base(InOrder), Ok(6));
}

#[test]
fn a_backend_that_stopped_in_order_has_left_nothing_in_flight() {
    let mut test = Test::new();
    test.ring.mark_running(0);
    test.set(9, 5);
    test.ring.mark_stopped(5, &test.memory);
    test.ring.mark_lost(&test.memory);
    assert_eq!(
        (test.base(Evidence::None), test.base(InOrder)),
        (Ok(5), Ok(5))
    );
}

#[test]
fn a_backend_that_stopped_with_requests_in_flight_is_as_one_lost() {
    let mut test = Test::new();
    test.ring.mark_running(0);
    test.set(9, 5);
    test.ring.mark_stopped(7, &test.memory);
    assert_eq!(
        (test.base(Evidence::None), test.base(InOrder)),
        (Err(CannotResume::InFlight), Ok(5))
    );
}

#[test]
fn what_has_been_used_is_compared_modulo_2_to_the_16() {
    let test = Test::new();
    for (used, index, expected) in [
        (5, 5, true),
        (6, 5, true),
        (4, 5, false),
        (2, 65535, true),
        (65535, 2, false),
    ] {
        test.set(9, used);
        assert_eq!(
            test.ring.has_used_up_to(index, &test.memory),
            expected,
            "{used} {index}"
        );
    }
    assert_eq!(
        (
            test.ring.available(&test.memory),
            test.ring.used(&test.memory)
        ),
        (9, 65535)
    );
}

#[test]
fn a_second_loss_counts_from_the_second_backend() {
    let mut test = Test::new();
    test.lose(5, 5);
    test.lose(8, 7);
    assert_eq!(test.base(Evidence::None), Err(CannotResume::InFlight));
    test.lose(8, 8);
    assert_eq!(test.base(Evidence::None), Ok(8));
}

#[test]
fn a_packed_queue_starts_with_both_wrap_counters_set() {
    let test = Test::of(Format::Packed);
    assert_eq!(test.ring.initial_base(), 0x8000_8000);
    assert_eq!(test.base(Evidence::None), Ok(0x8000_8000));
}

#[test]
fn only_a_record_tells_where_a_backend_was_lost_in_a_packed_queue() {
    let mut test = Test::of(Format::Packed);
    // Equal indices, were it a split queue.
    test.lose(5, 5);
    assert_eq!(test.base(Evidence::None), Err(CannotResume::Position));
    assert_eq!(test.base(InOrder), Err(CannotResume::Position));
    assert_eq!(test.base(Inflight), Ok(0x8000_8000));
}

#[test]
fn a_packed_queue_goes_on_where_its_backend_stopped_it_with_nothing_in_flight() {
    for (base, expected) in [
        (0x0007_0007, Ok(0x0007_0007)),
        (0x8007_8007, Ok(0x8007_8007)),
        // As DPDK says it.
        (0x0000_8007, Ok(0x8007_8007)),
        (0x0000_0007, Ok(0x0007_0007)),
        (0x8005_8007, Err(CannotResume::Position)),
        (0x0007_8007, Err(CannotResume::Position)),
    ] {
        let mut test = Test::of(Format::Packed);
        test.ring.mark_running(test.ring.initial_base());
        test.ring.mark_stopped(base, &test.memory);
        assert_eq!(test.base(Evidence::None), expected, "{base:#x}");
        test.ring.mark_lost(&test.memory);
        assert_eq!(test.base(Evidence::None), expected, "{base:#x}");
    }
}

/// With the device's position left out it may also be at the first entry, wrap counter 0.
#[test]
fn a_packed_queue_whose_first_entry_is_not_used_yet_has_it_in_flight() {
    let first_flags = GuestAddress(14);
    let (avail, used) = (1u16 << 7, 1u16 << 15);
    for (base, flags, expected) in [
        (0x0000_0007, used, Err(CannotResume::Position)),
        (0x0000_0007, 0, Ok(0x0007_0007)),
        // The driver is a round ahead, as it is where it keeps the device in buffers.
        (0x0000_0007, avail, Ok(0x0007_0007)),
        (0x0000_8007, used, Ok(0x8007_8007)),
        (0x0000_8000, used, Err(CannotResume::Position)),
        (0x0000_0000, used, Ok(0)),
    ] {
        let mut test = Test::of(Format::Packed);
        test.memory.write_obj(flags.to_le(), first_flags).unwrap();
        test.ring.mark_running(test.ring.initial_base());
        test.ring.mark_stopped(base, &test.memory);
        assert_eq!(test.base(Evidence::None), expected, "{base:#x} {flags:#x}");
    }
}

/// Each start kicks. A backend that waits for edges leaves that kick where it is.
#[test]
fn a_backend_reads_kicks_when_one_of_them_was_seen_to_be_read() {
    let mut test = Test::new();
    for reads in [false, true, false] {
        let kick = test.ring.connect().unwrap();
        test.ring.mark_running(0);
        test.ring.signal();
        if reads {
            kick.read().unwrap();
        }
        test.ring.check_stall(&test.memory);
        test.ring.signal();
        test.ring.check_stall(&test.memory);
        assert_eq!(test.ring.reads_kicks(), reads);
    }
}
