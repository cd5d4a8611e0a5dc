/* The little of ACPI that the guests need: CPUs (MADT) and power off (FADT). */
#pragma once

#include "types.h"

/*
 * Reads the tables under `rsdp` and fills `apic_ids` with up to `max` enabled
 * CPUs; returns their number, 0 without a MADT. Sets power_off()'s register.
 */
u32 acpi_read(u64 rsdp, u32 *apic_ids, u32 max);
