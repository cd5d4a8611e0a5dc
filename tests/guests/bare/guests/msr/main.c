/*
 * Writes a model-specific register and reads it back, until gdb sets
 * `stop_requested`. gdb tests print these names: change both together.
 */
#include "runtime.h"

#define NOINLINE __attribute__((noinline, noclone))
#define KERNEL_GS_BASE	0xc0000102

volatile u32 stop_requested;
volatile u64 pass;

NOINLINE void write_register(u64 value)
{
	__asm__ volatile("wrmsr" : : "c"(KERNEL_GS_BASE), "a"((u32)value), "d"(value >> 32));
}

NOINLINE u64 read_register(void)
{
	u32 low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(KERNEL_GS_BASE));
	return (u64)high << 32 | low;
}

int main(void)
{
	printf("msr: ready\n");
	while (!stop_requested) {
		write_register(0x1000 + pass);
		if (read_register() != 0x1000 + pass)
			panic("msr: read back something else at pass %lu", pass);
		pass++;
	}
	printf("msr: done passes=%lu stop_requested=%u\n", pass, stop_requested);
	return 0;
}
