/*
 * Starts every CPU; all of them then run count_together() at the same time.
 *
 *   rounds=N   increments a CPU (10000); `forever` until stop_requested is set
 *   ring=3     counts in ring 3
 */
#include "layout.h"
#include "runtime.h"

/* Own cache line each, for gdb and for speed. */
struct cpu_state {
	volatile u64 counter;
	volatile u32 apic_id;
} __attribute__((aligned(64)));

struct cpu_state cpus[MAX_CPUS];
volatile u64 shared_counter;
volatile u32 stop_requested;

static volatile u32 arrived, finished;
static u32 expected;
static u64 rounds, ring;
static bool forever;

__attribute__((noinline)) void count_together(u32 index)
{
	for (u64 i = 0; forever ? !stop_requested : i < rounds; i++) {
		cpus[index].counter++;
		__atomic_add_fetch(&shared_counter, 1, __ATOMIC_RELAXED);
	}
}

static void wait_for(const volatile u32 *value)
{
	while (__atomic_load_n(value, __ATOMIC_ACQUIRE) < expected)
		pause();
}

/* What every CPU does, the boot CPU too. */
static void run(u32 index)
{
	cpus[index].apic_id = lapic_id();
	if (ring == 3)
		enter_ring3();
	__atomic_add_fetch(&arrived, 1, __ATOMIC_RELEASE);
	wait_for(&arrived);
	count_together(index);
	__atomic_add_fetch(&finished, 1, __ATOMIC_RELEASE);
	if (ring == 3)
		leave_ring3();
}

int main(void)
{
	u64 sum = 0;

	expected = smp_cpu_count();
	rounds = cmdline_number("rounds", 10000);
	ring = cmdline_number("ring", 0);
	forever = cmdline_flag("forever");

	printf("smp: starting cpus=%u\n", expected);
	for (u32 i = 1; i < expected; i++)
		if (!smp_start(i, run))
			panic("smp: cpu %u (lapic %u) did not start", i, smp_apic_id(i));
	run(0);
	wait_for(&finished);

	for (u32 i = 0; i < expected; i++) {
		printf("smp: cpu=%u lapic=%u counter=%lu\n", i, cpus[i].apic_id, cpus[i].counter);
		sum += cpus[i].counter;
	}
	printf("smp: %s cpus=%u shared=%lu sum=%lu\n", sum == shared_counter ? "ok" : "FAIL",
	       expected, shared_counter, sum);
	return sum == shared_counter ? 0 : 1;
}
