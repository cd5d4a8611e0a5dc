/* The kernel command line: words, and `name=value` parameters. */
#pragma once

#include "types.h"

/* Copies the loader's text; called once by the runtime. */
void cmdline_set(const char *text);

/* All of it, as given. */
const char *cmdline(void);

/* The value of `name=value`; decimal or 0x hex. `fallback` when absent. */
u64 cmdline_number(const char *name, u64 fallback);

/* Copies the value of `name=value` (or `fallback`) into `value`, truncating. */
void cmdline_string(const char *name, const char *fallback, char *value, usize size);

/* Whether the bare word `name` is there. */
bool cmdline_flag(const char *name);
