//! Locks that are waited for, but not for long.

use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

/// Between looks. The standard library's lock cannot be waited for with a deadline.
const RETRY: Duration = Duration::from_millis(5);

/// Takes the lock, unless somebody else has it for all of this time.
pub fn lock_within<T: ?Sized>(shared: &Mutex<T>, patience: Duration) -> Option<MutexGuard<'_, T>> {
    let end = Instant::now() + patience;
    loop {
        match shared.try_lock() {
            Ok(guard) => return Some(guard),
            // The value that a panic left half-way is still the only one.
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() >= end => return None,
            Err(TryLockError::WouldBlock) => thread::sleep(RETRY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_stays_taken_is_given_up_and_one_that_is_let_go_is_had() {
        let shared = Mutex::new(());
        let taken = shared.lock().unwrap();
        assert!(lock_within(&shared, Duration::ZERO).is_none());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| lock_within(&shared, Duration::from_secs(60)).is_some());
            drop(taken);
            assert!(waiting.join().unwrap());
        });
    }
}
