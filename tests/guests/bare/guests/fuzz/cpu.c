/*
 * Model-specific registers and CPUID. Of the registers that the guest needs itself, and of
 * those by which a host writes to the guest's memory, it reads all and writes none.
 */
#include "fuzz.h"

#define ACCESS_LENGTH	2	/* bytes of rdmsr and of wrmsr */

extern u8 fuzz_rdmsr[], fuzz_wrmsr[];

static u64 faults;

/* The access continues behind its instruction, with r8 set. */
static void on_fault(struct trap_frame *frame)
{
	if (frame->rip != (u64)fuzz_rdmsr && frame->rip != (u64)fuzz_wrmsr)
		panic("fuzz: fault at %lx, error %lx", frame->rip, frame->error);
	frame->rip += ACCESS_LENGTH;
	__atomic_add_fetch(&faults, 1, __ATOMIC_RELAXED);
}

void fuzz_cpu_prepare(void)
{
	traps_handle(VECTOR_GENERAL_PROTECTION, on_fault);
}

u64 fuzz_cpu_faults(void)
{
	return faults;
}

static __attribute__((noinline, noclone)) void read_msr(u32 number)
{
	u32 low = 0, high = 0;

	__asm__ volatile(".globl fuzz_rdmsr\nfuzz_rdmsr: rdmsr"
			 : "+a"(low), "+d"(high) : "c"(number));
}

static __attribute__((noinline, noclone)) void write_msr(u32 number, u64 value)
{
	__asm__ volatile(".globl fuzz_wrmsr\nfuzz_wrmsr: wrmsr"
			 : : "c"(number), "a"((u32)value), "d"(value >> 32));
}

static void cpuid(u32 leaf, u32 subleaf)
{
	u32 b, d;

	__asm__ volatile("cpuid" : "+a"(leaf), "=b"(b), "+c"(subleaf), "=d"(d));
}

static bool is_between(u32 number, u32 first, u32 last)
{
	return number >= first && number <= last;
}

static bool is_needed(u32 number)
{
	return number == 0x10 ||			/* the TSC */
	       number == 0x1b ||			/* where the APIC is */
	       number == 0x3b ||			/* the TSC's offset */
	       number == 0x6e0 ||			/* the TSC's deadline */
	       is_between(number, 0x11, 0x12) ||	/* KVM's clock, in its first place */
	       is_between(number, 0x200, 0x2ff) ||	/* what memory is cached */
	       is_between(number, 0x800, 0x8ff) ||	/* the APIC */
	       is_between(number, 0x40000000, 0x4fffffff) ||	/* hypervisors' */
	       is_between(number, 0xc0000080, 0xc0000103);	/* EFER, FS, GS */
}

static u32 draw_number(struct source *source)
{
	static const u32 starts[] = { 0, 0x170, 0x400, 0xd90, 0x4b564d00, 0x40000000,
				      0xc0000080, 0xc0010000, 0xc0011020 };

	if (draw_chance(source, 25))
		return draw(source);
	return starts[draw_below(source, ARRAY_SIZE(starts))] + draw_below(source, 0x80);
}

void fuzz_cpu(struct source *source)
{
	u32 number = draw_number(source);

	if (draw_chance(source, 20))
		cpuid(draw_chance(source, 50) ? draw_below(source, 0x30) : draw_value(source),
		      draw_value(source));
	else if (draw_chance(source, 50) && !is_needed(number))
		write_msr(number, draw_value(source));
	else
		read_msr(number);
}
