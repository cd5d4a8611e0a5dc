//! QEMU's pvpanic device (docs/specs/pvpanic): a port by which a kernel says that it panics.

use crate::bus::{AccessError, BusDevice};
use crate::power::Signal;

/// Events, as bits of what is written; read, those that are known here.
mod event {
    /// The kernel panicked, and will do nothing about it. One that has a crash kernel loaded
    /// says something else.
    pub const PANICKED: u8 = 1 << 0;
}

/// One port of a byte.
pub struct PvPanic {
    panicked: Signal,
}

impl PvPanic {
    pub fn new(panicked: Signal) -> Self {
        Self { panicked }
    }
}

impl BusDevice for PvPanic {
    fn read(&mut self, _offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError::Width);
        };
        *byte = event::PANICKED;
        Ok(())
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let [events] = data else {
            return Err(AccessError::Width);
        };
        if events & event::PANICKED != 0 {
            (self.panicked)();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn only_a_panic_is_one() {
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        let mut device = PvPanic::new(Box::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        let mut events = [0];
        device.read(0, &mut events).unwrap();
        assert_eq!(events, [1]);
        for event in [0, 2, 4] {
            device.write(0, &[event]).unwrap();
        }
        assert_eq!(device.write(0, &[1, 0]), Err(AccessError::Width));
        assert_eq!(count.load(Ordering::SeqCst), 0);
        device.write(0, &[1]).unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}
