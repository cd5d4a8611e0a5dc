//! An exit, by way of the bus to a device that does nothing.

use std::sync::{Arc, Mutex};

use devices::bus::{AccessError, BusDevice};
use vmm::vcpu::dispatch::{Buses, dispatch};
use vmm::vcpu::exit::Exit;

struct Nothing;

impl BusDevice for Nothing {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) -> Result<(), AccessError> {
        Ok(())
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Result<(), AccessError> {
        Ok(())
    }
}

/// Devices on the bus, as many as a machine may have.
const DEVICES: u64 = 13;
const FIRST: u64 = 0xd000_0000;
const STRIDE: u64 = 0x1000;

pub fn prepare() -> Box<dyn FnMut()> {
    let mut buses = Buses::default();
    for number in 0..DEVICES {
        let base = FIRST + number * STRIDE;
        let device = Arc::new(Mutex::new(Nothing));
        let inserted = buses.mmio.insert("nothing", base, STRIDE, device);
        inserted.expect("no two are at one place");
    }
    Box::new(move || {
        let addr = FIRST + 7 * STRIDE + 0x50;
        dispatch(
            Exit::MmioWrite {
                addr,
                data: &[0; 4],
            },
            &buses,
        );
    })
}
