/* The few string functions the guests (and gcc itself) need. */
#pragma once

#include "types.h"

void *memcpy(void *destination, const void *source, usize size);
void *memset(void *destination, int value, usize size);
int memcmp(const void *a, const void *b, usize size);
usize strlen(const char *s);
bool string_equal(const char *a, const char *b);
