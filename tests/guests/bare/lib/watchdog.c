#include "watchdog.h"

#include "apic.h"
#include "cmdline.h"
#include "power.h"
#include "traps.h"

#define WATCHDOG_VECTOR	41

/* The APIC timer of KVM and QEMU runs at 1 GHz; lapic_timer_start() divides by 16. */
#define TICKS_A_SECOND	(1000000000 / 16)

static u32 seconds_left;

static void on_tick(struct trap_frame *frame)
{
	if (--seconds_left == 0)
		panic("watchdog: no end in sight at %lx:%lx", frame->cs, frame->rip);
}

void watchdog_start(void)
{
	seconds_left = cmdline_number("timeout", 60);
	if (seconds_left == 0)
		return;
	traps_handle(WATCHDOG_VECTOR, on_tick);
	lapic_timer_start(WATCHDOG_VECTOR, TICKS_A_SECOND);
}
