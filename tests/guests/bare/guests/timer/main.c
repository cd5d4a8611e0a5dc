/*
 * Counts in a loop while interrupts arrive, and notices when the loop has been
 * derailed: by a lost step, a handler run twice, a clobbered register.
 *
 *   source=lapic|pit|ipi  where the interrupts come from (lapic)
 *   ticks=N               ends after N interrupts (20); `forever` until stop_requested
 *   period=N              LAPIC timer or PIT ticks between two (1000000 / 11932)
 *   gsi=N                 the PIT's GSI (0; 2 on QEMU)
 *   halt                  sleeps between interrupts instead of counting
 *   ring=3                counts in ring 3
 */
#include "runtime.h"

#define TIMER_VECTOR	40

#define PIT_CHANNEL0	0x40
#define PIT_COMMAND	0x43
#define PIT_RATE	0x34	/* channel 0, low then high byte, mode 2 */

volatile u32 ticks;
volatile u32 stop_requested;

/* iterations and doubled move in step; derailed counts when they do not. */
volatile u64 iterations, doubled;
volatile u64 derailed;

/* Interrupted code that is neither of the two rings' code of this image. */
volatile u64 strange_frames;

extern u8 image_end[];

__attribute__((noinline)) void timer_tick(struct trap_frame *frame)
{
	bool inside = frame->rip >= 0x100000 && frame->rip < (u64)image_end;

	ticks++;
	if (!inside)
		strange_frames++;
}

static void start_pit(u32 gsi, u32 period)
{
	ioapic_route(gsi, TIMER_VECTOR, lapic_id());
	outb(PIT_COMMAND, PIT_RATE);
	outb(PIT_CHANNEL0, period);
	outb(PIT_CHANNEL0, period >> 8);
}

__attribute__((noinline)) void count_once(void)
{
	iterations++;
	doubled += 2;
	if (doubled != 2 * iterations)
		derailed++;
}

static void count(u32 wanted, bool forever, bool halt, bool ipi)
{
	while (forever ? !stop_requested : ticks < wanted) {
		u32 seen = ticks;

		if (ipi)
			lapic_send_ipi(lapic_id(), TIMER_VECTOR);
		if (halt)
			wait_while_equal(&ticks, seen);
		count_once();
	}
}

int main(void)
{
	char source[8];
	bool ipi;
	u64 ring = cmdline_number("ring", 0);

	cmdline_string("source", "lapic", source, sizeof(source));
	ipi = string_equal(source, "ipi");
	traps_handle(TIMER_VECTOR, timer_tick);
	printf("timer: ready source=%s ring=%lu\n", source, ring);

	if (string_equal(source, "lapic"))
		lapic_timer_start(TIMER_VECTOR, cmdline_number("period", 1000000));
	else if (string_equal(source, "pit"))
		start_pit(cmdline_number("gsi", 0), cmdline_number("period", 11932));
	else if (!ipi)
		panic("timer: unknown source %s", source);

	if (ring == 3)
		enter_ring3();
	count(cmdline_number("ticks", 20), cmdline_flag("forever"), cmdline_flag("halt"), ipi);
	if (ring == 3)
		leave_ring3();
	interrupts_off();

	printf("timer: %s ticks=%u iterations=%lu derailed=%lu strange=%lu\n",
	       derailed || strange_frames ? "FAIL" : "ok", ticks, iterations, derailed,
	       strange_frames);
	return derailed || strange_frames ? 1 : 0;
}
