/*
 * Looks at its clocks without a pause: the TSC, and the interrupts of a PIT that is
 * set to 100 Hz. When a byte comes on the console it tells what it has seen.
 *
 *   reports=N  how often it tells (2)
 *   gsi=N      the PIT's GSI (0; 2 on QEMU)
 *   ring=3     looks in ring 3
 */
#include "runtime.h"

#define PIT_VECTOR	40
#define PIT_CHANNEL0	0x40
#define PIT_COMMAND	0x43
#define PIT_RATE	0x34	/* channel 0, low then high byte, mode 2 */
#define PIT_PERIOD	11932	/* of 1193182 Hz */

/* TSC cycles between two looks at the console, each of which is an exit. */
#define CONSOLE_PERIOD	10000000

static volatile u64 ticks;

static void pit_tick(struct trap_frame *frame)
{
	(void)frame;
	ticks++;
}

static void start_pit(u32 gsi)
{
	traps_handle(PIT_VECTOR, pit_tick);
	ioapic_route(gsi, PIT_VECTOR, lapic_id());
	outb(PIT_COMMAND, PIT_RATE);
	outb(PIT_CHANNEL0, PIT_PERIOD & 0xff);
	outb(PIT_CHANNEL0, PIT_PERIOD >> 8);
}

/* Until a byte comes; `last` is the last look. */
static void look(u64 *last)
{
	u64 longest = 0, backwards = 0, console = *last;

	for (;;) {
		u64 now = rdtsc();

		if (now < *last)
			backwards++;
		else if (now - *last > longest)
			longest = now - *last;
		*last = now;
		if (now - console < CONSOLE_PERIOD)
			continue;
		console = now;
		if (console_take())
			break;
	}
	printf("clock: tsc=%lu longest=%lu backwards=%lu ticks=%lu\n", *last, longest,
	       backwards, ticks);
}

int main(void)
{
	u64 ring = cmdline_number("ring", 0);
	u64 last;

	start_pit(cmdline_number("gsi", 0));
	interrupts_on();
	if (ring == 3)
		enter_ring3();
	last = rdtsc();
	printf("clock: ready ring=%lu\n", ring);
	for (u64 reports = cmdline_number("reports", 2); reports; reports--)
		look(&last);
	if (ring == 3)
		leave_ring3();
	interrupts_off();
	printf("clock: done\n");
	return 0;
}
