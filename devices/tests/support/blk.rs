//! Block requests (virtio 1.3, section 5.2.6) by hand.

use std::ops::Range;

use devices::virtio::spec::Register;
use vm_memory::{Bytes, GuestAddress};

use super::{Buffer, Machine, Ring};

pub const SECTOR: usize = 512;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;

/// Where requests are put: beyond 4 GiB, in the second region of guest RAM.
const HEADER: u64 = (1 << 32) + 0x10000;
const STATUS: u64 = HEADER + 0x1000;
const DATA: u64 = HEADER + 0x2000;

fn submit(machine: &mut Machine, ring: &mut Ring, kind: u32, sector: u64, data: Option<Buffer>) {
    let buffers = prepare(machine, kind, sector, data);
    machine.request(ring, &buffers);
    let status: u8 = machine.memory.read_obj(GuestAddress(STATUS)).unwrap();
    assert_eq!(status, 0, "VIRTIO_BLK_S_OK");
}

/// Puts a request in memory.
fn prepare(machine: &Machine, kind: u32, sector: u64, data: Option<Buffer>) -> Vec<Buffer> {
    let memory = machine.memory.clone();
    memory
        .write_obj(kind.to_le(), GuestAddress(HEADER))
        .unwrap();
    memory.write_obj(0u32, GuestAddress(HEADER + 4)).unwrap();
    memory
        .write_obj(sector.to_le(), GuestAddress(HEADER + 8))
        .unwrap();
    memory.write_obj(0xffu8, GuestAddress(STATUS)).unwrap();
    let buffer = |address, len, writable| Buffer {
        address,
        len,
        writable,
    };
    let mut buffers = vec![buffer(HEADER, 16, false)];
    buffers.extend(data);
    buffers.push(buffer(STATUS, 1, true));
    buffers
}

pub fn read(machine: &mut Machine, ring: &mut Ring, sector: u64, len: usize) -> Vec<u8> {
    let data = Buffer {
        address: DATA,
        len: len as u32,
        writable: true,
    };
    submit(machine, ring, IN, sector, Some(data));
    let mut bytes = vec![0; len];
    machine
        .memory
        .read_slice(&mut bytes, GuestAddress(DATA))
        .unwrap();
    bytes
}

/// The pages of a request that the device writes: its status, and data of `len` bytes.
pub fn written(len: usize) -> Range<u64> {
    STATUS..(DATA + len as u64).next_multiple_of(0x1000)
}

pub fn write(machine: &mut Machine, ring: &mut Ring, sector: u64, bytes: &[u8]) {
    let data = put_data(machine, bytes);
    submit(machine, ring, OUT, sector, Some(data));
}

fn put_data(machine: &Machine, bytes: &[u8]) -> Buffer {
    let memory = &machine.memory;
    memory.write_slice(bytes, GuestAddress(DATA)).unwrap();
    Buffer {
        address: DATA,
        len: bytes.len() as u32,
        writable: false,
    }
}

pub fn flush(machine: &mut Machine, ring: &mut Ring) {
    submit(machine, ring, FLUSH, 0, None);
}

/// Puts a request in memory, for a ring of another kind.
pub fn flush_request(machine: &Machine) -> Vec<Buffer> {
    prepare(machine, FLUSH, 0, None)
}

/// Makes a request without waiting for its completion.
pub fn begin_flush(machine: &mut Machine, ring: &mut Ring) {
    begin(machine, ring, FLUSH, 0, None);
}

pub fn begin_write(machine: &mut Machine, ring: &mut Ring, sector: u64, bytes: &[u8]) {
    let data = put_data(machine, bytes);
    begin(machine, ring, OUT, sector, Some(data));
}

fn begin(machine: &mut Machine, ring: &mut Ring, kind: u32, sector: u64, data: Option<Buffer>) {
    let buffers = prepare(machine, kind, sector, data);
    ring.add(&machine.memory, &buffers);
    machine.write(Register::QueueNotify, ring.index);
}
