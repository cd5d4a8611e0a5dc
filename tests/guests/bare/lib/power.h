/* The ways a guest ends. */
#pragma once

#include "types.h"

/* Where ACPI says the sleep control register is; port 0x600 until then. */
void power_set_sleep_port(u16 port);
void power_set_sleep_address(u64 address);

/* ACPI S5: the VMM exits with status 0. */
__attribute__((noreturn)) void power_off(void);

/* Keyboard controller reset. */
__attribute__((noreturn)) void reboot(void);

/* No IDT and an exception: the VMM reports a crash, status 3. */
__attribute__((noreturn)) void triple_fault(void);

/* Prints "panic: ..." and crashes, so that no test takes it for a success. */
__attribute__((noreturn, format(printf, 1, 2))) void panic(const char *format, ...);
