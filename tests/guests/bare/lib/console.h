/* Text on the 16550 at 0x3f8. */
#pragma once

#include "types.h"

/* Turns the FIFO on; called by the runtime. */
void console_init(void);

/*
 * %c %s %d %u %x %%, `l` for 64 bits, a zero-padded width as in %08x.
 * One call is one piece of output even when several CPUs print.
 */
void printf(const char *format, ...) __attribute__((format(printf, 1, 2)));

void vprintf(const char *format, __builtin_va_list arguments);

/* Takes a byte of input and drops it; false when there is none. Costs an exit. */
bool console_take(void);

/* For panic(): the CPU that holds the lock may be the one that failed. */
void console_break_lock(void);
