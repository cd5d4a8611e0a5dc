use std::os::unix::fs::FileExt;

use virtio_bindings::virtio_ring::VRING_DESC_F_WRITE;
use virtio_queue::desc::split::Descriptor;
use vm_memory::Bytes;

use super::*;
use crate::chain::Chain;
use crate::testing::memfd;

const LOW: GuestAddress = GuestAddress(0x2000);
const HIGH: GuestAddress = GuestAddress(0x20000);

/// Two regions of four pages, of which the first begins at page 2 and the second at page 32.
fn memory() -> GuestRam {
    GuestRam::from_ranges(&[(LOW, 0x4000), (HIGH, 0x4000)]).unwrap()
}

fn place(size: u64, offset: u64) -> VhostUserLog {
    VhostUserLog::new(size, offset)
}

/// A log that begins 4096 bytes into its file, and the file.
fn log(size: u64) -> (Arc<Log>, File) {
    let file = memfd(4096 + size);
    let log = Log::map(&place(size, 4096), file.try_clone().unwrap()).unwrap();
    (Arc::new(log), file)
}

/// The pages that a log's file says were written.
fn pages(file: &File) -> Vec<u64> {
    let mut bytes = vec![0; (file.metadata().unwrap().len() - 4096) as usize];
    file.read_exact_at(&mut bytes, 4096).unwrap();
    let pages = 0..8 * bytes.len() as u64;
    let is_set = |page: &u64| bytes[(page / 8) as usize] >> (page % 8) & 1 != 0;
    pages.filter(is_set).collect()
}

#[test]
fn every_page_that_is_written_is_logged_and_no_other() {
    let memory = memory();
    let (log, file) = log(5);
    memory.write_obj(1u8, LOW).unwrap();
    attach(&memory, Some(&log), &[]).unwrap();
    assert!(pages(&file).is_empty());
    // The last byte of a page, two bytes across a boundary, nothing, and the last byte of all.
    memory.write_obj(1u8, GuestAddress(0x2fff)).unwrap();
    memory.write_slice(&[1; 2], GuestAddress(0x4fff)).unwrap();
    memory.write_slice(&[], GuestAddress(0x3000)).unwrap();
    memory
        .store(1u16, GuestAddress(0x23ffe), Ordering::Release)
        .unwrap();
    let _: u64 = memory.read_obj(GuestAddress(0x21000)).unwrap();
    assert_eq!(pages(&file), [2, 4, 5, 35]);
    assert!(memory.find_region(HIGH).unwrap().bitmap().dirty_at(0x3000));
    assert!(!memory.find_region(HIGH).unwrap().bitmap().dirty_at(0x2fff));
}

#[test]
fn writes_past_vm_memory_are_logged_when_reported() {
    let memory = memory();
    let (log, file) = log(5);
    attach(&memory, Some(&log), &[]).unwrap();
    let mut chain = Chain::default();
    let flags = VRING_DESC_F_WRITE as u16;
    chain
        .refill(
            std::iter::once(Descriptor::new(0x20ff0, 0x2010, flags, 0)),
            1,
        )
        .unwrap();
    chain.writable.written_by_kernel(&memory, 0xf, 2).unwrap();
    assert_eq!(pages(&file), [32, 33]);
}

#[test]
fn writes_into_buffers_are_logged() {
    let memory = memory();
    let (log, file) = log(5);
    attach(&memory, Some(&log), &[]).unwrap();
    let mut chain = Chain::default();
    let flags = VRING_DESC_F_WRITE as u16;
    let descriptor = Descriptor::new(0x20ff0, 0x2010, flags, 0);
    chain.refill(std::iter::once(descriptor), 1).unwrap();
    chain.writable.write(&memory, 0xf, &[1, 2]).unwrap();
    assert_eq!(pages(&file), [32, 33]);
}

#[test]
fn a_log_takes_the_place_of_another_and_ends() {
    let memory = memory();
    let ((first, first_file), (second, second_file)) = (log(5), log(5));
    attach(&memory, Some(&first), &[]).unwrap();
    attach(&memory, Some(&second), &[]).unwrap();
    memory.write_obj(1u8, LOW).unwrap();
    attach(&memory, None, &[]).unwrap();
    memory.write_obj(1u8, HIGH).unwrap();
    assert_eq!((pages(&first_file), pages(&second_file)), (vec![], vec![2]));
}

#[test]
fn a_log_that_does_not_cover_all_memory_is_refused_and_the_one_before_stays() {
    let memory = memory();
    let ((small, small_file), (large, large_file)) = (log(4), log(5));
    attach(&memory, Some(&large), &[]).unwrap();
    let refused = attach(&memory, Some(&small), &[]).unwrap_err();
    let text = "a log of 4 bytes ends before the address 0x23fff, which takes 5";
    assert_eq!(refused.to_string(), text);
    memory.write_obj(1u8, LOW).unwrap();
    assert_eq!((pages(&small_file), pages(&large_file)), (vec![], vec![2]));
}

/// Pages 33 and 34 of memory, of which the ring has the last byte of the first and two of the
/// second, are logged as pages 38 and 39.
#[test]
fn a_used_ring_is_logged_where_the_frontend_says_and_nothing_else_is() {
    let memory = memory();
    let (log, file) = log(5);
    let ring = GuestAddress(0x21fff);
    let place = RingLog {
        ring,
        len: 3,
        log: 0x26fff,
    };
    attach(&memory, Some(&log), &[place]).unwrap();
    memory.write_slice(&[1; 2], GuestAddress(0x21ffd)).unwrap();
    memory.write_obj(1u8, GuestAddress(0x22002)).unwrap();
    memory.write_obj(1u8, LOW).unwrap();
    assert_eq!(pages(&file), [2, 33, 34]);
    memory.write_obj(1u8, ring).unwrap();
    assert_eq!(pages(&file), [2, 33, 34, 38]);
    memory.write_slice(&[1; 9], GuestAddress(0x21ffe)).unwrap();
    assert_eq!(pages(&file), [2, 33, 34, 38, 39]);
}

#[test]
fn a_file_that_is_too_short_is_refused() {
    for (size, offset) in [(0, 0), (4097, 0), (1, 4096), (u64::MAX, 4096)] {
        let refused = Log::map(&place(size, offset), memfd(4096)).unwrap_err();
        assert!(
            matches!(refused, LogError::Size { len: 4096, .. }),
            "{refused}"
        );
    }
    // Mappings begin at a page.
    let refused = Log::map(&place(1, 1), memfd(4096)).unwrap_err();
    assert!(matches!(refused, LogError::Map(_)), "{refused}");
}

#[test]
fn memory_of_another_kind_has_no_log() {
    assert!(is_loggable::<PageLog>());
    assert!(!is_loggable::<()>());
}
