//! The guest-physical address map and the interrupt map of an x86-64 machine.
//!
//! ```text
//! 0x0000_0000  RAM: boot data (below), kernel from 1 MiB
//! 0xd000_0000  MMIO hole: virtio-mmio windows, one page a device
//! 0xfec0_0000  I/O APIC        0xfee0_0000  local APICs
//! 0xfffb_c000  KVM's identity map page and TSS (4 pages)
//! 0x1_0000_0000  RAM continues when there is more than fits below the hole
//! ```

use vm_memory::GuestAddress;

/// Global descriptor table for the boot vCPU.
pub const GDT: GuestAddress = GuestAddress(0x500);
/// PVH start info, followed by its module list and memory map.
pub const PVH_START_INFO: GuestAddress = GuestAddress(0x6000);
pub const PVH_MODULES: GuestAddress = GuestAddress(0x6100);
pub const PVH_MEMORY_MAP: GuestAddress = GuestAddress(0x6200);
/// The zero page of the Linux boot protocol (`struct boot_params`).
pub const ZERO_PAGE: GuestAddress = GuestAddress(0x7000);
/// Initial stack pointer; nothing of ours lives in the page below it.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Identity page tables for the 64-bit boot protocol: one PML4, one PDPT, four
/// page directories of 2 MiB pages, mapping the first 4 GiB.
pub const PAGE_TABLES: GuestAddress = GuestAddress(0x9000);
pub const CMDLINE: GuestAddress = GuestAddress(0x20000);
/// Largest command line that Linux takes on x86 (COMMAND_LINE_SIZE), with its NUL.
pub const CMDLINE_MAX: usize = 2048;
/// End of conventional memory; a PC keeps its EBDA from here.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// ACPI: the RSDP must lie here for a guest that searches for it (ACPI 6.5, 5.2.5.1).
pub const RSDP: GuestAddress = GuestAddress(0xe_0000);
pub const ACPI_TABLES: GuestAddress = GuestAddress(0xe_0040);
/// Real-mode reset vector, f000:fff0; the tables end below it.
pub const RESET_VECTOR: GuestAddress = GuestAddress(0xf_fff0);
/// First byte behind the legacy area.
pub const HIGH_RAM: GuestAddress = GuestAddress(0x10_0000);

/// Start of the hole below 4 GiB in which devices live.
pub const MMIO_HOLE: u64 = 0xd000_0000;
/// First byte behind the hole.
pub const MMIO_HOLE_END: u64 = 0x1_0000_0000;
/// Register window of virtio-mmio device `n` is at `VIRTIO_MMIO + n * VIRTIO_MMIO_STRIDE`.
pub const VIRTIO_MMIO: u64 = MMIO_HOLE;
pub const VIRTIO_MMIO_STRIDE: u64 = 0x1000;
pub const IOAPIC: u32 = 0xfec0_0000;
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// One page for KVM's real-mode identity map, on processors that need it.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages for KVM's task state segment, on processors that need it.
pub const KVM_TSS: u64 = 0xfffb_d000;

/// Interrupts of virtio-mmio devices by device number: the I/O APIC's upper
/// pins, which no legacy device has, then the free ones of the lower half.
pub const VIRTIO_GSIS: [u32; 13] = [16, 17, 18, 19, 20, 21, 22, 23, 5, 6, 7, 10, 11];

/// COM1: port, length and interrupt.
pub const COM1: u64 = 0x3f8;
pub const COM1_LEN: u64 = 8;
pub const COM1_GSI: u32 = 4;
pub const RTC: u64 = 0x70;
pub const RTC_LEN: u64 = 2;
/// Data port 0x60 and command port 0x64.
pub const I8042: u64 = 0x60;
pub const I8042_LEN: u64 = 5;
/// Command port of the i8042 and the command that pulses the reset line.
pub const I8042_COMMAND: u16 = 0x64;
pub const I8042_RESET: u8 = 0xfe;
/// QEMU's port for it.
pub const PVPANIC: u64 = 0x505;
pub const PVPANIC_LEN: u64 = 1;
/// ACPI sleep control register and, at the next port, sleep status register
/// (ACPI 6.5, 4.8.3.7).
pub const SLEEP_CONTROL: u64 = 0x600;
pub const SLEEP_CONTROL_LEN: u64 = 2;
