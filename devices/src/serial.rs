//! COM1: a 16550 on the bus, by `vm-superio`.

use std::io::{self, Write};

use vm_superio::serial::{self, SerialEvents};
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::{AccessError, BusDevice};

// Registers by offset, and their bits that are used here (16550 data sheet).
const DATA: u64 = 0;
const IER: u64 = 1;
const LCR: u64 = 3;
const MCR: u64 = 4;
const LSR: u64 = 5;
/// Interrupt when the transmitter has room.
const IER_THRE: u8 = 1 << 1;
/// The interrupts that the port has.
const IER_MASK: u8 = 0x0f;
/// Offsets 0 and 1 are the divisor.
const LCR_DLAB: u8 = 1 << 7;
/// The holding register, and all of the transmitter, are empty.
const LSR_THRE_TEMT: u8 = 1 << 5 | 1 << 6;

/// The sink of a port's output. Writing takes all and never waits.
pub trait Line: Write + Send {
    /// Whether the guest should wait before it sends more, for instance a whole FIFO of
    /// 16 bytes. Output that it sends nevertheless may be lost.
    fn is_busy(&self) -> bool;
}

/// A serial port whose output goes to a [`Line`].
///
/// While the line is busy the transmitter is too, like that of a real port that has yet
/// to shift out its data: the guest reads it as busy, and gets no interrupt that says
/// otherwise.
pub struct SerialPort {
    uart: Serial<Interrupt, RoomForInput, Box<dyn Line>>,
    /// Interrupts that the guest has enabled.
    enabled: u8,
    /// The guest has been shown a busy transmitter. That of the UART is never busy,
    /// so the transmitter interrupt is disabled there.
    is_held: bool,
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
    /// when the guest has taken all input.
    pub fn new(interrupt: EventFd, room: EventFd, line: Box<dyn Line>) -> Self {
        let uart = Serial::with_events(Interrupt(interrupt), RoomForInput(room), line);
        Self {
            uart,
            enabled: 0,
            is_held: false,
        }
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

    /// Whether [`SerialPort::input`] would take something, loopback mode aside:
    /// nothing signals the end of that mode.
    pub fn has_room(&self) -> bool {
        self.uart.fifo_capacity() > 0
    }

    /// The line may have become less busy: the guest is told, if it waits for that.
    pub fn line_changed(&mut self) {
        if self.is_held && !self.is_busy() {
            self.is_held = false;
            self.enable(self.enabled);
        }
    }

    /// Power-on state; the two ends stay connected.
    pub fn reset(&mut self) {
        // Line control, modem control, interrupt enable: what a driver sets up
        // and a fresh kernel's early console relies on (16550 data sheet, reset
        // values).
        for (offset, value) in [(LCR, 3), (IER, 0), (MCR, 8)] {
            self.write_register(offset, value);
        }
    }

    fn is_busy(&self) -> bool {
        self.uart.writer().is_busy()
    }

    fn hold(&mut self) {
        if !self.is_held {
            self.is_held = true;
            self.enable(self.enabled & !IER_THRE);
        }
    }

    fn shows_divisor(&mut self) -> bool {
        self.uart.read(LCR as u8) & LCR_DLAB != 0
    }

    /// Has the UART raise these interrupts. Those whose condition holds already are raised
    /// at once.
    fn enable(&mut self, interrupts: u8) {
        let control = self.uart.read(LCR as u8);
        self.write_uart(LCR, control & !LCR_DLAB);
        self.write_uart(IER, interrupts);
        self.write_uart(LCR, control);
    }

    fn read_register(&mut self, offset: u64) -> u8 {
        let value = self.uart.read(offset as u8);
        match offset {
            IER if !self.shows_divisor() => self.enabled,
            LSR if self.is_busy() => {
                self.hold();
                value & !LSR_THRE_TEMT
            }
            _ => value,
        }
    }

    fn write_register(&mut self, offset: u64, value: u8) {
        match offset {
            DATA if self.is_busy() && !self.shows_divisor() => self.hold(),
            IER if !self.shows_divisor() => {
                self.enabled = value & IER_MASK;
                self.is_held = self.is_busy();
                let held = if self.is_held { IER_THRE } else { 0 };
                return self.write_uart(IER, self.enabled & !held);
            }
            _ => {}
        }
        self.write_uart(offset, value);
    }

    fn write_uart(&mut self, offset: u64, value: u8) {
        if let Err(error) = self.uart.write(offset as u8, value) {
            tracing::trace!("serial port: {value:#x} at {offset}: {error:?}");
        }
    }
}

impl BusDevice for SerialPort {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError::Width);
        };
        *byte = self.read_register(offset);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        let [byte] = data else {
            return Err(AccessError::Width);
        };
        self.write_register(offset, *byte);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    /// Remembers what it took; busy when it is told to be.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>, Arc<AtomicBool>);

    impl Line for Sink {
        fn is_busy(&self) -> bool {
            self.1.load(Ordering::Relaxed)
        }
    }

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

    fn read(port: &mut SerialPort, offset: u64) -> u8 {
        let mut byte = [0];
        port.read(offset, &mut byte).unwrap();
        byte[0]
    }

    const IIR: u64 = 2;
    const IIR_NONE: u8 = 1;
    const IIR_THRE: u8 = 2;

    #[test]
    fn a_busy_line_is_a_busy_transmitter() {
        let (mut port, sink, interrupt, _) = port();
        let ready = |port: &mut SerialPort| read(port, LSR) & LSR_THRE_TEMT;
        port.write(IER, &[IER_THRE]).unwrap();
        assert!(interrupt.read().is_ok(), "it is empty");
        assert_eq!(read(&mut port, IIR) & 0xf, IIR_THRE);
        sink.1.store(true, Ordering::Relaxed);
        assert_eq!(ready(&mut port), 0);
        port.write(DATA, b"x").unwrap();
        assert_eq!(*sink.0.lock().unwrap(), b"x", "what is sent all the same");
        port.line_changed();
        assert!(interrupt.read().is_err(), "still busy");
        assert_eq!(read(&mut port, IIR) & 0xf, IIR_NONE);
        assert_eq!(read(&mut port, IER), IER_THRE, "as the guest has set it");
        sink.1.store(false, Ordering::Relaxed);
        port.line_changed();
        assert!(interrupt.read().is_ok(), "it has room");
        assert_eq!(read(&mut port, IIR) & 0xf, IIR_THRE);
        assert_eq!(ready(&mut port), LSR_THRE_TEMT);
        port.line_changed();
        assert!(interrupt.read().is_err(), "it is told once");
    }

    #[test]
    fn whoever_enables_the_interrupt_of_a_busy_transmitter_hears_of_its_end() {
        let (mut port, sink, interrupt, _) = port();
        sink.1.store(true, Ordering::Relaxed);
        port.write(IER, &[IER_THRE]).unwrap();
        assert!(interrupt.read().is_err());
        // The divisor is where the interrupts are: it is not to change.
        port.write(LCR, &[LCR_DLAB | 3]).unwrap();
        port.write(DATA, &[12]).unwrap();
        sink.1.store(false, Ordering::Relaxed);
        port.line_changed();
        assert!(interrupt.read().is_ok());
        assert_eq!([read(&mut port, 0), read(&mut port, 1)], [12, 0]);
        assert_eq!(read(&mut port, LCR), LCR_DLAB | 3);
        assert!(sink.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_reset_forgets_that_the_guest_waited() {
        let (mut port, sink, interrupt, _) = port();
        port.write(IER, &[IER_THRE]).unwrap();
        interrupt.read().unwrap();
        sink.1.store(true, Ordering::Relaxed);
        assert_eq!(read(&mut port, LSR) & LSR_THRE_TEMT, 0);
        port.reset();
        sink.1.store(false, Ordering::Relaxed);
        port.line_changed();
        assert!(interrupt.read().is_err());
    }
}
