/*
 * Code whose page is mapped late, and in the kernel's half of the address space. gdb
 * tests print these names and addresses: change both together.
 *
 * Until gdb sets `map_requested` nothing is mapped at LATE. Then late_code is, for ring
 * 0 only, and its functions are called there one behind the other, again and again,
 * until gdb sets `stop_requested`.
 */
#include "runtime.h"

#define LATE		0xffffffff80000000ul
#define FUNCTIONS	16
#define FUNCTION_SIZE	16

#define ENTRIES		512
#define PRESENT		1
#define WRITE		2

/* Each returns its argument and 1. */
__asm__("	.section .text.late, \"ax\"\n"
	"	.balign	4096\n"
	"	.globl	late_code\n"
	"late_code:\n"
	"	.rept	16\n"
	"	leaq	1(%rdi), %rax\n"
	"	ret\n"
	"	.balign	16\n"
	"	.endr\n"
	"	.balign	4096\n"
	"	.text\n");

extern const u8 late_code[];
extern u64 page_pml4[ENTRIES];

static u64 tables[3][ENTRIES] __attribute__((aligned(4096)));

volatile u64 loop_counter;
volatile u32 map_requested, stop_requested;

/* In the table of `level`, of which 0 is the last. */
static u32 index_of(u64 address, u32 level)
{
	return address >> (12 + 9 * level) & (ENTRIES - 1);
}

/* All tables on the way are there, but the last is empty. */
static void prepare(void)
{
	u64 *table = page_pml4;

	for (u32 level = 3; level > 0; level--) {
		table[index_of(LATE, level)] = (u64)tables[level - 1] | PRESENT | WRITE;
		table = tables[level - 1];
	}
}

static void map_late(void)
{
	*(volatile u64 *)&tables[0][index_of(LATE, 0)] = (u64)late_code | PRESENT;
}

static u64 call_all(void)
{
	u64 value = 0;

	for (u32 i = 0; i < FUNCTIONS; i++)
		value = ((u64 (*)(u64))(LATE + i * FUNCTION_SIZE))(value);
	return value;
}

int main(void)
{
	prepare();
	printf("late: ready\n");
	while (!map_requested && !stop_requested)
		pause();
	map_late();
	while (!stop_requested) {
		if (call_all() != FUNCTIONS)
			panic("late: wrong at pass %lu", loop_counter);
		loop_counter++;
	}
	printf("late: done passes=%lu stop_requested=%u\n", loop_counter, stop_requested);
	return 0;
}
