/*
 * The debuggee. gdb tests print these names and values: change both together.
 *
 * Runs scenario() over and over until gdb sets `stop_requested`, or for
 * `passes=N` passes; then powers off. `ring=3` runs it in ring 3.
 */
#include "runtime.h"

#define NOINLINE __attribute__((noinline, noclone))

enum colour { RED, GREEN = 5, BLUE };

struct point {
	int x, y;
};

struct widget {
	char name[16];
	u32 id;
	enum colour colour;
	struct point corner;
	u64 serial;
	const struct widget *next;
};

const struct widget second_widget = {
	.name = "second",
	.id = 2,
	.colour = BLUE,
	.corner = { -3, 4 },
	.serial = 0x1122334455667788,
};

struct widget first_widget = {
	.name = "first",
	.id = 1,
	.colour = GREEN,
	.corner = { 10, -20 },
	.serial = 0xfeedfacecafebeef,
	.next = &second_widget,
};

int primes[8] = { 2, 3, 5, 7, 11, 13, 17, 19 };
char greeting[] = "hello gdb";

volatile u64 loop_counter;
volatile u64 watched;
volatile u32 stop_requested;

NOINLINE u64 factorial(u64 n)
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

NOINLINE int sum_primes(void)
{
	int sum = 0;

	for (u32 i = 0; i < ARRAY_SIZE(primes); i++)
		sum += primes[i];
	return sum;
}

/*
 * Known values in every general register but rsp. A breakpoint on
 * `registers_loaded` sees them; from there `stepi` adds 1 to rax, three times.
 */
NOINLINE void load_registers(void)
{
	__asm__ volatile(
		"	pushq	%%rbp\n"
		"	movabsq	$0xa0a1a2a3a4a5a6a7, %%rax\n"
		"	movabsq	$0xb0b1b2b3b4b5b6b7, %%rbx\n"
		"	movabsq	$0xc0c1c2c3c4c5c6c7, %%rcx\n"
		"	movabsq	$0xd0d1d2d3d4d5d6d7, %%rdx\n"
		"	movl	$0x5150, %%esi\n"
		"	movl	$0xd1d0, %%edi\n"
		"	movl	$0xb9b0, %%ebp\n"
		"	movl	$8, %%r8d\n"
		"	movl	$9, %%r9d\n"
		"	movl	$10, %%r10d\n"
		"	movl	$11, %%r11d\n"
		"	movl	$12, %%r12d\n"
		"	movl	$13, %%r13d\n"
		"	movl	$14, %%r14d\n"
		"	movl	$15, %%r15d\n"
		"	.globl	registers_loaded\n"
		"registers_loaded:\n"
		"	addq	$1, %%rax\n"
		"	addq	$1, %%rax\n"
		"	addq	$1, %%rax\n"
		"	popq	%%rbp\n"
		: : : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10",
		      "r11", "r12", "r13", "r14", "r15", "memory", "cc");
}

/* Always 120 + 117 + 77. */
NOINLINE u64 scenario(void)
{
	u64 result = factorial(5);

	result += outer(1);
	result += sum_primes();
	load_registers();
	return result;
}

NOINLINE void loop_forever(u64 passes)
{
	while (!stop_requested && (passes == 0 || loop_counter < passes)) {
		if (scenario() != 314)
			panic("debug: scenario went wrong at pass %lu", loop_counter);
		loop_counter++;
	}
}

int main(void)
{
	u64 ring = cmdline_number("ring", 0);

	printf("debug: ready ring=%lu\n", ring);
	if (ring == 3)
		enter_ring3();
	loop_forever(cmdline_number("passes", 0));
	printf("debug: done passes=%lu stop_requested=%u\n", loop_counter, stop_requested);
	return 0;
}
