//! What lies where in the guest's address spaces, for the debugger's monitor and QMP.

use devices::bus::Bus;
use devices::virtio::GuestMemory;
use gdb::inspect::Window;
use gdb::target::PhysAddr;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::layout;
use crate::vcpu::dispatch::Buses;

/// RAM, devices, and what KVM has there.
pub fn memory(memory: &GuestMemory, buses: &Buses) -> Vec<Window> {
    let ram = memory.iter().map(|region| Window {
        is_ram: true,
        ..window(region.start_addr().0, region.len(), "RAM")
    });
    let chips = [
        window(layout::IOAPIC.into(), 0x1000, "I/O APIC"),
        window(layout::LOCAL_APIC.into(), 0x1000, "local APICs"),
        window(layout::KVM_IDENTITY_MAP, 0x1000, "KVM's identity map"),
        window(layout::KVM_TSS, 0x3000, "KVM's task state segment"),
    ];
    ram.chain(on_bus(&buses.mmio)).chain(chips).collect()
}

pub fn ports(buses: &Buses) -> Vec<Window> {
    on_bus(&buses.pio).collect()
}

/// Where RAM is in this process.
pub fn host_address(memory: &GuestMemory, addr: PhysAddr) -> Option<u64> {
    let host = memory.get_host_address(GuestAddress(addr.0)).ok()?;
    Some(host as u64)
}

fn on_bus(bus: &Bus) -> impl Iterator<Item = Window> {
    bus.ranges()
        .map(|(start, len, what)| window(start, len, what))
}

/// One that is no RAM.
fn window(start: u64, len: u64, what: &str) -> Window {
    Window {
        start: PhysAddr(start),
        len,
        what: what.to_owned(),
        is_ram: false,
    }
}
