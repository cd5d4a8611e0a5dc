/*
 * What a processor says of itself, as a line of hexadecimal numbers.
 *
 *   processor cpuid CPU LEAF [SUBLEAF]   EAX EBX ECX EDX
 *   processor msr CPU INDEX              the value; needs the msr module
 *   processor tsc                        the time-stamp counter
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <err.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <x86intrin.h>

static uint32_t number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 0);

	if (*end || value > UINT32_MAX)
		errx(2, "%s is not a number", text);
	return value;
}

static void cpuid(uint32_t cpu, uint32_t leaf, uint32_t subleaf)
{
	uint32_t eax, ebx, ecx, edx;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "CPU %u", cpu);
	__cpuid_count(leaf, subleaf, eax, ebx, ecx, edx);
	printf("%08x %08x %08x %08x\n", eax, ebx, ecx, edx);
}

static void msr(uint32_t cpu, uint32_t index)
{
	char path[32];
	uint64_t value;
	int fd;

	snprintf(path, sizeof(path), "/dev/cpu/%u/msr", cpu);
	fd = open(path, O_RDONLY);
	if (fd < 0 || pread(fd, &value, sizeof(value), index) != sizeof(value))
		err(1, "MSR %#x by %s", index, path);
	printf("%lx\n", value);
}

int main(int argc, char **argv)
{
	if ((argc == 4 || argc == 5) && !strcmp(argv[1], "cpuid"))
		cpuid(number(argv[2]), number(argv[3]), argc == 5 ? number(argv[4]) : 0);
	else if (argc == 4 && !strcmp(argv[1], "msr"))
		msr(number(argv[2]), number(argv[3]));
	else if (argc == 2 && !strcmp(argv[1], "tsc"))
		printf("%llx\n", __rdtsc());
	else
		errx(2, "usage: processor cpuid CPU LEAF [SUBLEAF] | msr CPU INDEX | tsc");
	return 0;
}
