/*
 * The debuggee in 32-bit code, on its own: the runtime of the others is 64-bit.
 * gdb tests print these names and values: change both together.
 *
 * Runs scenario() over and over until gdb sets `stop_requested`; then powers off.
 */
#include "io.h"

#define NOINLINE __attribute__((noinline, noclone))

#define SERIAL_DATA	0x3f8
#define SLEEP_CONTROL	0x600
#define SLEEP_NOW	(5 << 2 | 1 << 5)	/* S5; ACPI 6.5, 4.8.3.7 */

struct widget {
	char name[12];
	u32 id;
	u64 serial;
	const struct widget *next;
};

struct widget widget = {
	.name = "small",
	.id = 32,
	.serial = 0xfeedfacecafebeef,
	.next = &widget,
};

volatile u32 loop_counter;
volatile u32 watched;
volatile u32 stop_requested;

static void put_string(const char *s)
{
	while (*s)
		outb(SERIAL_DATA, *s++);
}

static void put_number(u32 value)
{
	if (value > 9)
		put_number(value / 10);
	outb(SERIAL_DATA, '0' + value % 10);
}

/* 64 bits in two registers. */
NOINLINE u64 factorial(u32 n)
{
	if (n <= 1)
		return 1;
	return n * factorial(n - 1);
}

NOINLINE int inner(int value)
{
	int doubled = value * 2;

	watched = doubled;
	return doubled + 1;
}

NOINLINE int middle(int value)
{
	int result = inner(value + 1);

	return result + 10;
}

NOINLINE int outer(int value)
{
	int result = middle(value + 1);

	return result + 100;
}

/* Always 14! + 117. */
NOINLINE u64 scenario(void)
{
	u64 result = factorial(14);

	result += outer(1);
	return result;
}

/* Called by start.S. What it returns from is a crash, as is an exception. */
void runtime_start(void)
{
	interrupts_on();
	put_string("i386: ready\n");
	while (!stop_requested) {
		if (scenario() != 87178291317) {
			put_string("panic: scenario went wrong\n");
			return;
		}
		loop_counter++;
	}
	put_string("i386: done stop_requested=");
	put_number(stop_requested);
	put_string("\n");
	outb(SLEEP_CONTROL, SLEEP_NOW);
}
