//! COM1: a 16550 on the bus, by `vm-superio`.

use std::io::{self, Write};

use vm_superio::serial::{self, SerialEvents};
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::{AccessError, BusDevice};

/// A serial port whose output goes to `W`.
pub struct SerialPort {
    uart: Serial<Interrupt, RoomForInput, Box<dyn Write + Send>>,
}

/// Raises the port's interrupt.
struct Interrupt(EventFd);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Tells the event loop that the guest has read all input it was given.
struct RoomForInput(EventFd);

impl SerialEvents for RoomForInput {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        // Only a counter at its maximum refuses, and then it is readable.
        let _ = self.0.write(1);
    }
}

impl SerialPort {
    /// `interrupt` is wired to the port's interrupt line; `room` becomes readable
    /// when the guest has taken all input. Output that `out` refuses is lost, as
    /// on a line that nobody listens to.
    pub fn new(interrupt: EventFd, room: EventFd, out: Box<dyn Write + Send>) -> Self {
        let uart = Serial::with_events(Interrupt(interrupt), RoomForInput(room), out);
        Self { uart }
    }

    /// Gives the guest input; returns how many bytes the FIFO took.
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        match self.uart.enqueue_raw_bytes(bytes) {
            Ok(taken) => taken,
            Err(serial::Error::FullFifo) => 0,
            Err(error) => {
                tracing::warn!("serial port: cannot raise its interrupt: {error:?}");
                0
            }
        }
    }

    /// Power-on state; the two ends stay connected.
    pub fn reset(&mut self) {
        // Line control, modem control, interrupt enable: what a driver sets up
        // and a fresh kernel's early console relies on (16550 data sheet, reset
        // values).
        const IER: u8 = 1;
        const LCR: u8 = 3;
        const MCR: u8 = 4;
        for (offset, value) in [(LCR, 3), (IER, 0), (MCR, 8)] {
            let _ = self.uart.write(offset, value);
        }
    }
}

impl BusDevice for SerialPort {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError::Width);
        };
        *byte = self.uart.read(offset as u8);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError::Width);
        };
        if let Err(error) = self.uart.write(offset as u8, *byte) {
            tracing::trace!("serial port: lost {byte:#x}: {error:?}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn port() -> (SerialPort, Sink, EventFd, EventFd) {
        let (interrupt, room) = (
            EventFd::new(EFD_NONBLOCK).unwrap(),
            EventFd::new(EFD_NONBLOCK).unwrap(),
        );
        let sink = Sink::default();
        let port = SerialPort::new(
            interrupt.try_clone().unwrap(),
            room.try_clone().unwrap(),
            Box::new(sink.clone()),
        );
        (port, sink, interrupt, room)
    }

    #[test]
    fn output_reaches_the_other_end() {
        let (mut port, sink, ..) = port();
        for byte in b"hi" {
            port.write(0, &[*byte]).unwrap();
        }
        assert_eq!(*sink.0.lock().unwrap(), b"hi");
        assert_eq!(port.write(0, &[1, 2]), Err(AccessError::Width));
    }

    #[test]
    fn input_interrupts_and_asks_for_more_once_read() {
        const IER: u64 = 1;
        let (mut port, _, interrupt, room) = port();
        port.write(IER, &[1]).unwrap();
        assert_eq!(port.input(&[b'x'; 100]), 64);
        assert_eq!(port.input(b"y"), 0);
        assert!(interrupt.read().unwrap() > 0);
        assert!(room.read().is_err(), "the FIFO is full");
        let mut byte = [0];
        for _ in 0..64 {
            port.read(0, &mut byte).unwrap();
            assert_eq!(byte, [b'x']);
        }
        assert!(room.read().unwrap() > 0);
        assert_eq!(port.input(b"y"), 1);
    }
}
