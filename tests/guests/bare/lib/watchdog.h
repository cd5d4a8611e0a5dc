/* Ends a guest that waits for something that never comes. */
#pragma once

#include "types.h"

/*
 * Panics in about `timeout=SECONDS` (60; 0 never), counted by the LAPIC timer
 * while interrupts are on. Do not use together with lapic_timer_start().
 */
void watchdog_start(void);
