use loom::sync::Arc;
use loom::sync::atomic::AtomicU16;
use loom::thread;

use super::*;

/// Every processor that the memory model of the language allows.
struct Model;

impl Fence for Model {
    fn full() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

fn look_again_at(word: &AtomicU16) -> u16 {
    look_again_by::<Model, u16>(|| word.load(Ordering::Acquire))
}

/// One side publishes an index and wakes the other if that has wished for it; the other wishes to
/// be woken at the first change and sleeps if there is none.
///
/// The index is the driver's available one and the wish the device's for kicks, or the index is
/// the used one and the wish the driver's for interrupts, or, in a packed ring, the flags of a
/// descriptor and those of an event suppression structure.
#[test]
fn nobody_sleeps_over_what_the_other_side_has_published() {
    loom::model(|| {
        let index = Arc::new(AtomicU16::new(0));
        // As it was at some earlier time: not wished for.
        let wish = Arc::new(AtomicU16::new(u16::MAX));
        let publisher = {
            let (index, wish) = (Arc::clone(&index), Arc::clone(&wish));
            thread::spawn(move || {
                index.store(1, Ordering::Release);
                look_again_at(&wish) == 0
            })
        };
        wish.store(0, Ordering::Relaxed);
        let sleeps = look_again_at(&index) == 0;
        let is_woken = publisher.join().unwrap();
        assert!(!sleeps || is_woken, "asleep for ever");
    });
}

/// An index that is seen by that look covers what was written before it.
#[test]
fn what_the_index_tells_of_can_be_read() {
    loom::model(|| {
        let index = Arc::new(AtomicU16::new(0));
        let element = Arc::new(AtomicU16::new(0));
        let driver = {
            let (index, element) = (Arc::clone(&index), Arc::clone(&element));
            thread::spawn(move || {
                element.store(7, Ordering::Relaxed);
                index.store(1, Ordering::Release);
            })
        };
        if look_again_at(&index) == 1 {
            assert_eq!(element.load(Ordering::Relaxed), 7);
        }
        driver.join().unwrap();
    });
}
