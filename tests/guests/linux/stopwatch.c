/*
 * Looks at the clocks, on each CPU in turn, until a line comes on standard input: at
 * CLOCK_MONOTONIC, which is the kernel's clock source, and at the TSC. Then it reports, in
 * milliseconds, the longest time between two looks by either clock, how far the two have
 * come apart, and how often either went backwards.
 */
#define _GNU_SOURCE
#include <err.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

struct moment {
	double ns;
	uint64_t tsc;
};

static struct moment look(void)
{
	struct timespec time;
	struct moment moment;

	clock_gettime(CLOCK_MONOTONIC, &time);
	moment.tsc = __rdtsc();
	moment.ns = time.tv_sec * 1e9 + time.tv_nsec;
	return moment;
}

/* TSC cycles in a nanosecond, found out in half a second. */
static double rate(void)
{
	struct moment first = look(), last;

	do
		last = look();
	while (last.ns - first.ns < 5e8);
	return (last.tsc - first.tsc) / (last.ns - first.ns);
}

static void run_on(unsigned int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "CPU %u", cpu);
}

static void report(const char *what, double ns)
{
	printf("outboard-guest: %s=%.0f\n", what, ns / 1e6);
}

int main(void)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	unsigned int cpus = sysconf(_SC_NPROCESSORS_ONLN), cpu = 0, backwards = 0;
	double per_ns = rate(), longest = 0, tsc_longest = 0;
	struct moment first = look(), last = first;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("outboard-guest: clock=started\n");
	do {
		struct moment now;
		double step, tsc_step;

		run_on(cpu++ % cpus);
		now = look();
		step = now.ns - last.ns;
		tsc_step = ((double)now.tsc - (double)last.tsc) / per_ns;
		if (step < 0 || tsc_step < 0)
			backwards++;
		if (step > longest)
			longest = step;
		if (tsc_step > tsc_longest)
			tsc_longest = tsc_step;
		last = now;
	} while (!poll(&input, 1, 50));

	report("longest", longest);
	report("tsc-longest", tsc_longest);
	report("apart", (last.tsc - first.tsc) / per_ns - (last.ns - first.ns));
	printf("outboard-guest: backwards=%u\n", backwards);
	return 0;
}
