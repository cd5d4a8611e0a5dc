/*
 * What every guest is linked with. The runtime prepares the boot CPU (GDT,
 * IDT, TSS, LAPIC), reads the command line and ACPI, and calls main() with
 * interrupts on, of which there are none before main() asks for some; when
 * main() returns 0 the machine powers off, otherwise the guest crashes.
 */
#pragma once

#include "acpi.h"
#include "apic.h"
#include "cmdline.h"
#include "console.h"
#include "io.h"
#include "power.h"
#include "smp.h"
#include "string.h"
#include "traps.h"
#include "types.h"

int main(void);
