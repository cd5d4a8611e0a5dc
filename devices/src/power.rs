//! Ports by which a guest switches the machine off or resets it.

use vm_superio::{I8042Device, Trigger};

use crate::bus::{AccessError, BusDevice};

/// The callback of a power device, on a vCPU thread. Must not wait.
pub type Signal = Box<dyn Fn() + Send>;

/// The keyboard controller, of which guests use the reset line (port 0x64,
/// command 0xfe).
pub struct I8042 {
    device: I8042Device<Reset>,
}

struct Reset(Signal);

impl Trigger for Reset {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        self.0();
        Ok(())
    }
}

impl I8042 {
    pub fn new(reset: Signal) -> Self {
        Self {
            device: I8042Device::new(Reset(reset)),
        }
    }
}

impl BusDevice for I8042 {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError::Width);
        };
        *byte = self.device.read(offset as u8);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError::Width);
        };
        match self.device.write(offset as u8, *byte) {
            Ok(()) => Ok(()),
        }
    }
}

/// The ACPI sleep control register at offset 0 and sleep status register at
/// offset 1 of a hardware-reduced machine (ACPI 6.5, 4.8.3.7).
pub struct SleepControl {
    /// SLP_TYP that means soft off.
    soft_off: u8,
    power_off: Signal,
}

impl SleepControl {
    const SLEEP_ENABLE: u8 = 1 << 5;
    const TYPE_SHIFT: u8 = 2;
    const TYPE_MASK: u8 = 0x7;

    pub fn new(soft_off: u8, power_off: Signal) -> Self {
        Self {
            soft_off,
            power_off,
        }
    }
}

impl BusDevice for SleepControl {
    fn read(&mut self, _offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        // Never woken from a sleep: WAK_STS stays clear.
        data.fill(0);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let [value] = data else {
            return Err(AccessError::Width);
        };
        let kind = (value >> Self::TYPE_SHIFT) & Self::TYPE_MASK;
        if offset == 0 && value & Self::SLEEP_ENABLE != 0 && kind == self.soft_off {
            (self.power_off)();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn counter() -> (Arc<AtomicU32>, Signal) {
        let count = Arc::new(AtomicU32::new(0));
        let clone = count.clone();
        (
            count,
            Box::new(move || {
                clone.fetch_add(1, Ordering::SeqCst);
            }),
        )
    }

    #[test]
    fn only_the_reset_command_resets() {
        let (resets, signal) = counter();
        let mut i8042 = I8042::new(signal);
        i8042.write(4, &[0xd1]).unwrap();
        i8042.write(0, &[0xfe]).unwrap();
        assert_eq!(resets.load(Ordering::SeqCst), 0);
        i8042.write(4, &[0xfe]).unwrap();
        assert_eq!(resets.load(Ordering::SeqCst), 1);
        assert_eq!(i8042.write(4, &[0xfe, 0]), Err(AccessError::Width));
    }

    #[test]
    fn only_the_soft_off_type_with_enable_powers_off() {
        let (offs, signal) = counter();
        let mut sleep = SleepControl::new(5, signal);
        for value in [0x20, 0x14, 0x38] {
            sleep.write(0, &[value]).unwrap();
        }
        sleep.write(1, &[0x34]).unwrap();
        assert_eq!(offs.load(Ordering::SeqCst), 0);
        sleep.write(0, &[0x34]).unwrap();
        assert_eq!(offs.load(Ordering::SeqCst), 1);
    }
}
