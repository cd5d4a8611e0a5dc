/*
 * Writes to a table in every way that a processor has, and takes page faults.
 * gdb tests print these names and values: change both together.
 *
 * Each pass writes the same entries, until gdb sets `stop_requested`. Where
 * there are more CPUs, all count in the table's page meanwhile, and no count may
 * be lost.
 *
 *   ring=3   the boot CPU writes in ring 3
 */
#include "layout.h"
#include "runtime.h"

#define NOINLINE __attribute__((noinline, noclone))

#define LARGE_PAGE	0x200000
#define PRESENT		1

struct pages {
	u64 counted;
	u64 table[64];
	u8 fill[4096 - 8 - 64 * 8 - 4];
	/* Crosses the border of the two pages. */
	u8 border[64];
};

struct pages pages __attribute__((aligned(4096)));
const u64 source[2] = { 0x1111, 0x2222 };

volatile u32 stop_requested, finished;
volatile u64 pass, faults;
static u64 counts[MAX_CPUS];

/* 2 MiB of RAM that nothing else uses. */
#define far_page	((volatile u64 *)(8 * LARGE_PAGE))

extern u64 page_directories[];

static void map_far(bool present)
{
	volatile u64 *entry = &page_directories[(u64)far_page / LARGE_PAGE];

	*entry = present ? *entry | PRESENT : *entry & ~(u64)PRESENT;
	__asm__ volatile("invlpg %0" : : "m"(*far_page) : "memory");
}

NOINLINE void page_fault(struct trap_frame *frame)
{
	(void)frame;
	faults++;
	map_far(true);
}

/* The second line faults, and its handler comes back to it. */
NOINLINE u64 touch(void)
{
	u64 found;

	map_far(false);
	*far_page = 5;
	found = *far_page;
	return found;
}

NOINLINE void store(void)
{
	pages.table[3] = pass;
}

NOINLINE void store_string(void)
{
	u64 count = sizeof(source);
	const void *from = source;
	void *to = &pages.table[8];

	__asm__ volatile("rep movsb" : "+c"(count), "+S"(from), "+D"(to) : : "memory");
	__asm__ volatile("" : : "r"(count));
}

NOINLINE void store_locked(void)
{
	__atomic_add_fetch(&pages.table[10], 1, __ATOMIC_RELAXED);
}

NOINLINE void store_across(void)
{
	*(volatile u64 *)pages.border = pass;
}

/* Beside the table, in its page. */
NOINLINE void count(u32 index)
{
	__atomic_add_fetch(&pages.counted, 1, __ATOMIC_RELAXED);
	counts[index]++;
}

static void count_on(u32 index)
{
	while (!stop_requested)
		count(index);
	__atomic_add_fetch(&finished, 1, __ATOMIC_RELEASE);
}

NOINLINE void write_all(void)
{
	pass++;
	store();
	store_string();
	store_locked();
	store_across();
	count(0);
	pages.table[8] = 0;
}

int main(void)
{
	u32 cpus = smp_cpu_count();
	u64 ring = cmdline_number("ring", 0);
	u64 sum = 0;

	traps_handle(VECTOR_PAGE_FAULT, page_fault);
	for (u32 i = 1; i < cpus; i++)
		if (!smp_start(i, count_on))
			panic("watch: cpu %u did not start", i);
	printf("watch: ready cpus=%u ring=%lu\n", cpus, ring);
	if (ring == 3)
		enter_ring3();
	while (!stop_requested) {
		write_all();
		if (ring == 0 && touch() != 5)
			panic("watch: the page that faulted holds something else");
	}
	if (ring == 3)
		leave_ring3();
	while (__atomic_load_n(&finished, __ATOMIC_ACQUIRE) + 1 < cpus)
		pause();
	for (u32 i = 0; i < cpus; i++)
		sum += counts[i];
	printf("watch: %s counted=%lu sum=%lu last=%lu\n",
	       sum == pages.counted && pages.table[10] == pass ? "ok" : "FAIL", pages.counted,
	       sum, pages.table[3]);
	return sum == pages.counted && pages.table[10] == pass ? 0 : 1;
}
