//! Dispatch of made-up exits.

use std::sync::{Arc, Mutex};

use devices::bus::BusDevice;

use super::*;

/// Counts reads and keeps writes.
#[derive(Default)]
struct Probe {
    reads: u8,
    writes: Vec<(u64, Vec<u8>)>,
}

impl BusDevice for Probe {
    fn read(&mut self, _offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        self.reads += 1;
        data.fill(self.reads);
        Ok(())
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        self.writes.push((offset, data.to_vec()));
        Ok(())
    }
}

fn buses() -> (Buses, Arc<Mutex<Probe>>) {
    let probe = Arc::new(Mutex::new(Probe::default()));
    let mut buses = Buses::default();
    buses.pio.insert("probe", 0x10, 4, probe.clone()).unwrap();
    buses
        .mmio
        .insert("probe", 0x1000, 0x100, probe.clone())
        .unwrap();
    (buses, probe)
}

#[test]
fn string_input_reads_the_port_once_an_element() {
    let (buses, _) = buses();
    let mut data = [0; 6];
    let entry = dispatch(
        Exit::PioIn {
            port: 0x10,
            width: 2,
            data: &mut data,
        },
        &buses,
    );
    assert_eq!(entry, Entry::Enter);
    assert_eq!(data, [1, 1, 2, 2, 3, 3]);
}

#[test]
fn string_output_writes_the_port_once_an_element() {
    let (buses, probe) = buses();
    dispatch(
        Exit::PioOut {
            port: 0x11,
            width: 1,
            data: &[7, 8],
        },
        &buses,
    );
    assert_eq!(probe.lock().unwrap().writes, [(1, vec![7]), (1, vec![8])]);
}

#[test]
fn mmio_reaches_the_device_by_offset() {
    let (buses, probe) = buses();
    dispatch(
        Exit::MmioWrite {
            addr: 0x1050,
            data: &[1, 2, 3, 4],
        },
        &buses,
    );
    assert_eq!(probe.lock().unwrap().writes, [(0x50, vec![1, 2, 3, 4])]);
}

#[test]
fn what_nobody_claims_reads_all_ones() {
    let (buses, _) = buses();
    let mut data = [0; 4];
    dispatch(
        Exit::MmioRead {
            addr: 0x9000,
            data: &mut data,
        },
        &buses,
    );
    assert_eq!(data, [0xff; 4]);
    let mut data = [0; 2];
    dispatch(
        Exit::PioIn {
            port: 0x80,
            width: 2,
            data: &mut data,
        },
        &buses,
    );
    assert_eq!(data, [0xff; 2]);
    assert_eq!(
        dispatch(
            Exit::PioOut {
                port: 0x80,
                width: 1,
                data: &[1]
            },
            &buses
        ),
        Entry::Enter
    );
}

#[test]
fn a_width_of_zero_does_not_panic() {
    let (buses, _) = buses();
    dispatch(
        Exit::PioIn {
            port: 0x10,
            width: 0,
            data: &mut [0],
        },
        &buses,
    );
}

#[test]
fn every_fatal_exit_is_named() {
    let (buses, _) = buses();
    let text = |exit| match dispatch(exit, &buses) {
        Entry::Crash(crash) => crash.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(text(Exit::Shutdown), "triple fault");
    let fail = text(Exit::FailEntry {
        reason: 0x8000_0021,
        cpu: 3,
    });
    assert_eq!(
        fail,
        "the processor refused to enter the guest (reason 0x80000021 on CPU 3)"
    );
    let internal = InternalError {
        suberror: 1,
        instruction: vec![0xcc],
    };
    let internal = text(Exit::InternalError(internal));
    assert_eq!(
        internal,
        "KVM internal error, sub-reason 1 (KVM cannot emulate the instruction)"
    );
    assert_eq!(
        text(Exit::SystemEvent { kind: 2 }),
        "system event 2 (reset)"
    );
    let unexpected = text(Exit::Unexpected { reason: 34 });
    assert_eq!(unexpected, "unexpected exit, reason 34 (XEN)");
    assert!(text(Exit::Unexpected { reason: 99 }).contains("99"));
}

#[test]
fn a_register_is_accessed_by_the_vcpu_itself() {
    let (buses, _) = buses();
    let access = MsrAccess {
        index: 0x10,
        written: Some(7),
    };
    assert_eq!(dispatch(Exit::Msr(access), &buses), Entry::Msr(access));
}

#[test]
fn a_kick_and_a_wakeup_for_nothing_go_on() {
    let (buses, _) = buses();
    assert_eq!(dispatch(Exit::Interrupted, &buses), Entry::CheckRequests);
    assert_eq!(dispatch(Exit::Again, &buses), Entry::Enter);
    assert_eq!(dispatch(Exit::IrqWindowOpen, &buses), Entry::Enter);
}
