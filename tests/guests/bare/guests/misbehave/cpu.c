/* Ways to crash or to hang. */
#include "layout.h"
#include "misbehave.h"

/* In the identity map, in the MMIO hole, behind every device's window. */
#define NOWHERE		0xd0f00000ul
/* Canonical, but above the identity map. */
#define UNMAPPED	0x8000000000ul
#define SURVIVOR_MAGIC	0x6f7574626f617264ul
#define FAR_PAST_RAM	0xcffff000ul

static void jump(u64 address)
{
	((void (*)(void))address)();
}

/* Fetches instructions where no memory is. */
static void jump_mmio(void)
{
	jump(NOWHERE);
}

/* A page fault, which the runtime reports as a panic. */
static void jump_unmapped(void)
{
	jump(UNMAPPED);
}

/* A page fault that cannot be delivered, because the stack is not there either. */
static void no_stack(void)
{
	__asm__ volatile("movq %0, %%rsp; pushq $0" : : "r"(UNMAPPED));
}

/* An IDT in the MMIO hole. */
static void idt_nowhere(void)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) pointer = { 0xfff, NOWHERE };

	__asm__ volatile("lidt %0; ud2" : : "m"(pointer));
}

/* Page tables where no memory is. */
static void page_tables_nowhere(void)
{
	__asm__ volatile("movq %0, %%cr3" : : "r"(FAR_PAST_RAM) : "memory");
}

/* Never to be woken: the VMM must still be able to stop. */
static void halt_forever(void)
{
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void spin_forever(void)
{
	/* The watchdog must not end it. */
	for (;;)
		hold_interrupts();
}

/* An exception without a handler; PVM hosts cannot emulate it in ring 0. */
static void breakpoint(void)
{
	__asm__ volatile("int3");
	panic("int3 did nothing");
}

static void breakpoint_ring3(void)
{
	enter_ring3();
	breakpoint();
}

static void invalid_opcode(void)
{
	__asm__ volatile("ud2");
}

static void do_triple_fault(void)
{
	triple_fault();
}

/*
 * Reboots `n=N` times (for ever without), then comes back. The count survives
 * where loaders write nothing and where a reset does not clear RAM.
 */
static void do_reboot(void)
{
	static NOINIT struct {
		u64 magic, boots;
	} survivor;
	u64 wanted = cmdline_number("n", -1ul);

	if (survivor.magic != SURVIVOR_MAGIC)
		survivor.boots = 0;
	survivor.magic = SURVIVOR_MAGIC;
	survivor.boots++;
	printf("  boot %lu\n", survivor.boots);
	if (survivor.boots <= wanted)
		reboot();
}

static void do_panic(void)
{
	panic("as asked");
}

/* Another CPU triple-faults while the boot CPU waits. */
static void crash_ap(u32 index)
{
	(void)index;
	triple_fault();
}

static void ap_triple_fault(void)
{
	if (smp_cpu_count() < 2 || !smp_start(1, crash_ap))
		panic("needs a second CPU");
	spin_forever();
}

/* Port of QEMU's device of this name. */
#define PVPANIC		0x505

/* What a kernel's driver for pvpanic writes when the kernel panics. */
static void pvpanic(void)
{
	outb(PVPANIC, 1);
}

const struct misdeed cpu_misdeeds[] = {
	{ "triple-fault", do_triple_fault },
	{ "ap-triple-fault", ap_triple_fault },
	{ "reboot", do_reboot },
	{ "panic", do_panic },
	{ "pvpanic", pvpanic },
	{ "jump-mmio", jump_mmio },
	{ "jump-unmapped", jump_unmapped },
	{ "no-stack", no_stack },
	{ "idt-nowhere", idt_nowhere },
	{ "page-tables-nowhere", page_tables_nowhere },
	{ "int3", breakpoint },
	{ "int3-ring3", breakpoint_ring3 },
	{ "ud2", invalid_opcode },
	{ "halt-forever", halt_forever },
	{ "spin-forever", spin_forever },
	{ NULL, NULL },
};
