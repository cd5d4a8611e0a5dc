//! A reset vector where a PC's firmware has one.
//!
//! Linux resets a hardware-reduced ACPI machine through EFI; without EFI it
//! falls back to a jump to f000:fff0 in real mode (arch/x86/kernel/reboot.c,
//! BOOT_BIOS). The code there asks the i8042 for a reset.

use devices::virtio::GuestMemory;
use vm_memory::{Bytes, GuestMemoryError};

use crate::layout;

/// mov $RESET, %al; out %al, $COMMAND; 1: hlt; jmp 1b
const CODE: [u8; 7] = [
    0xb0,
    layout::I8042_RESET,
    0xe6,
    layout::I8042_COMMAND as u8,
    0xf4,
    0xeb,
    0xfd,
];

pub fn write(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    memory.write_slice(&CODE, layout::RESET_VECTOR)
}
