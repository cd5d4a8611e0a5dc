//! ACPI tables of a hardware-reduced machine (ACPI 6.5).
//!
//! Stock distribution kernels learn of virtio-mmio devices, the serial port,
//! processors and power control only from here.

use acpi_tables::Aml;
use acpi_tables::aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use devices::virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use super::error::Error;
use crate::layout;

const OEM_ID: [u8; 6] = *b"OUTBRD";
const OEM_TABLE_ID: [u8; 8] = *b"OUTBOARD";
const OEM_REVISION: u32 = 1;
/// DSDT with 64-bit integers.
const DSDT_REVISION: u8 = 2;
const TABLE_HEADER_LEN: u32 = 36;
/// SLP_TYP of the soft-off state, named in \_S5 and expected by the sleep
/// control register.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// IAPC_BOOT_ARCH: no VGA, no MSI (ACPI 6.5, table 5.11).
const NO_VGA: u16 = 1 << 2;
const NO_MSI: u16 = 1 << 3;

/// Where a virtio-mmio device sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioSlot {
    pub addr: u64,
    pub gsi: u32,
}

/// Writes RSDP and tables to guest RAM.
pub fn write(memory: &GuestMemory, cpus: u8, devices: &[VirtioSlot]) -> Result<(), Error> {
    let mut area = Area {
        memory,
        next: layout::ACPI_TABLES.0,
    };
    let dsdt = area.place(&dsdt(devices))?;
    let fadt = area.place(&bytes(&fadt(dsdt)))?;
    let madt = area.place(&bytes(&madt(cpus)))?;
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = area.place(&bytes(&xsdt))?;
    memory.write_slice(&bytes(&Rsdp::new(OEM_ID, xsdt)), layout::RSDP)?;
    Ok(())
}

/// Tables one behind the other, up to the reset vector.
struct Area<'a> {
    memory: &'a GuestMemory,
    next: u64,
}

impl Area<'_> {
    fn place(&mut self, table: &[u8]) -> Result<u64, Error> {
        let (addr, size) = (self.next, table.len() as u64);
        let room = layout::RESET_VECTOR.0 - addr;
        if size > room {
            return Err(Error::AcpiTooLarge { size, room });
        }
        self.memory.write_slice(table, GuestAddress(addr))?;
        self.next = (addr + size).next_multiple_of(16);
        Ok(addr)
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn fadt(dsdt: u64) -> impl Aml {
    let port = |address| {
        GAS::new(
            AddressSpace::SystemIo,
            8,
            0,
            AccessSize::ByteAccess,
            address,
        )
    };
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = (NO_VGA | NO_MSI).into();
    fadt.reset_reg = port(layout::I8042_COMMAND.into());
    fadt.reset_value = layout::I8042_RESET;
    fadt.sleep_control_reg = port(layout::SLEEP_CONTROL);
    fadt.sleep_status_reg = port(layout::SLEEP_CONTROL + 1);
    fadt.finalize()
}

fn madt(cpus: u8) -> MADT {
    let mut madt = MADT::new(
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
        LocalInterruptController::Address(layout::LOCAL_APIC),
    );
    for index in 0..cpus {
        madt.add_structure(ProcessorLocalApic::new(
            index,
            index,
            EnabledStatus::Enabled,
        ));
    }
    madt.add_structure(IoApic::new(0, layout::IOAPIC, 0));
    madt
}

fn dsdt(devices: &[VirtioSlot]) -> Vec<u8> {
    let mut body = Vec::new();
    for (number, device) in devices.iter().enumerate() {
        virtio_device(&mut body, number, *device);
    }
    serial_device(&mut body);
    rtc_device(&mut body);
    pvpanic_device(&mut body);
    soft_off().to_aml_bytes(&mut body);
    let mut table = Sdt::new(
        *b"DSDT",
        TABLE_HEADER_LEN,
        DSDT_REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    table.append_slice(&body);
    table.as_slice().to_vec()
}

/// A virtio-mmio device: HID LNRO0005, its register window and its interrupt.
fn virtio_device(sink: &mut Vec<u8>, number: usize, slot: VirtioSlot) {
    let path = format!("_SB_.VR{number:02X}");
    let (base, len) = (slot.addr as u32, layout::VIRTIO_MMIO_STRIDE as u32);
    let window = aml::Memory32Fixed::new(true, base, len);
    let interrupt = edge_interrupt(slot.gsi);
    let hid = aml::Name::new("_HID".into(), &"LNRO0005");
    let uid = aml::Name::new("_UID".into(), &(number as u32));
    let resources = aml::ResourceTemplate::new(vec![&window, &interrupt]);
    let crs = aml::Name::new("_CRS".into(), &resources);
    aml::Device::new(path.as_str().into(), vec![&hid, &uid, &crs]).to_aml_bytes(sink);
}

fn edge_interrupt(gsi: u32) -> aml::Interrupt {
    let (consumer, edge, active_low, shared) = (true, true, false, false);
    aml::Interrupt::new(consumer, edge, active_low, shared, gsi)
}

fn serial_device(sink: &mut Vec<u8>) {
    let ports = aml::IO::new(
        layout::COM1 as u16,
        layout::COM1 as u16,
        1,
        layout::COM1_LEN as u8,
    );
    let interrupt = edge_interrupt(layout::COM1_GSI);
    let hid = aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0501"));
    let uid = aml::Name::new("_UID".into(), &aml::ZERO);
    let resources = aml::ResourceTemplate::new(vec![&ports, &interrupt]);
    let crs = aml::Name::new("_CRS".into(), &resources);
    aml::Device::new("_SB_.COM1".into(), vec![&hid, &uid, &crs]).to_aml_bytes(sink);
}

fn rtc_device(sink: &mut Vec<u8>) {
    let ports = aml::IO::new(
        layout::RTC as u16,
        layout::RTC as u16,
        1,
        layout::RTC_LEN as u8,
    );
    let hid = aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0B00"));
    let resources = aml::ResourceTemplate::new(vec![&ports]);
    let crs = aml::Name::new("_CRS".into(), &resources);
    aml::Device::new("_SB_.RTC_".into(), vec![&hid, &crs]).to_aml_bytes(sink);
}

/// QEMU's name of it, by which drivers go.
fn pvpanic_device(sink: &mut Vec<u8>) {
    let (port, len) = (layout::PVPANIC as u16, layout::PVPANIC_LEN as u8);
    let ports = aml::IO::new(port, port, 1, len);
    let hid = aml::Name::new("_HID".into(), &"QEMU0001");
    let resources = aml::ResourceTemplate::new(vec![&ports]);
    let crs = aml::Name::new("_CRS".into(), &resources);
    aml::Device::new("_SB_.PEVT".into(), vec![&hid, &crs]).to_aml_bytes(sink);
}

fn soft_off() -> impl Aml {
    let package = aml::Package::new(vec![&SLEEP_TYPE_OFF, &aml::ZERO, &aml::ZERO, &aml::ZERO]);
    aml::Name::new("_S5_".into(), &package)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    fn table(memory: &GuestMemory, addr: u64) -> Vec<u8> {
        let len: u32 = memory.read_obj(GuestAddress(addr + 4)).unwrap();
        let mut table = vec![0; len as usize];
        memory.read_slice(&mut table, GuestAddress(addr)).unwrap();
        table
    }

    fn u64_at(bytes: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
    }

    #[test]
    fn every_table_is_reachable_and_sums_to_zero() {
        let memory = memory::allocate(memory::MIN_SIZE).unwrap();
        let slots: Vec<_> = layout::VIRTIO_GSIS
            .iter()
            .enumerate()
            .map(|(n, &gsi)| VirtioSlot {
                addr: layout::VIRTIO_MMIO + n as u64 * 0x1000,
                gsi,
            })
            .collect();
        write(&memory, 64, &slots).unwrap();
        let mut rsdp = [0; 36];
        memory.read_slice(&mut rsdp, layout::RSDP).unwrap();
        let xsdt = table(&memory, u64_at(&rsdp, 24));
        let (fadt, madt) = (
            table(&memory, u64_at(&xsdt, 36)),
            table(&memory, u64_at(&xsdt, 44)),
        );
        let dsdt = table(&memory, u64_at(&fadt, 140));
        for (signature, table) in [
            (b"XSDT", &xsdt),
            (b"FACP", &fadt),
            (b"APIC", &madt),
            (b"DSDT", &dsdt),
        ] {
            assert_eq!(&table[..4], signature);
            assert_eq!(
                table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)),
                0
            );
        }
        let apics = madt[44..]
            .chunks(8)
            .take_while(|entry| entry[0] == 0)
            .count();
        assert_eq!(apics, 64);
        assert_eq!(
            dsdt.windows(8)
                .filter(|window| window == b"LNRO0005")
                .count(),
            slots.len()
        );
    }
}
