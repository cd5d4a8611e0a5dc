/* The other CPUs. Index 0 is the boot CPU. */
#pragma once

#include "types.h"

/* Finds the CPUs: `cpus=N` on the command line, else the MADT, else one. */
void smp_init(u64 rsdp);

u32 smp_cpu_count(void);

/* The LAPIC id of CPU `index`. */
u32 smp_apic_id(u32 index);

/*
 * Starts CPU `index` with INIT-SIPI-SIPI; it runs `function(index)` in ring 0
 * with interrupts off and halts when that returns. False when the CPU has not
 * come up in about a second.
 */
bool smp_start(u32 index, void (*function)(u32 index));
