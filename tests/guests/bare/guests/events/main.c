/*
 * Causes debug exceptions and others of its own, in every way that there is, and counts
 * what it gets. A debugger beside it must not change a number. gdb tests print these
 * names: change both together.
 *
 *   cases=NAME,…   only these
 *   ring=3         the cases run in ring 3
 *   passes=N       how often each (1)
 *
 * A line a case at the end:
 *
 *   events: CASE exceptions=N places=SUM dr6=BITS leaks=N
 *
 * `places` adds up the saved RIPs, relative to the case's code, `dr6` is all that DR6
 * ever said. `leaks` counts saved flags with a trap flag that the case did not set.
 */
#include "cases.h"

#include "layout.h"

#define NOINLINE __attribute__((noinline, noclone))

#define PRESENT		1
#define LARGE_PAGE	0x200000

#define DR6_INITIAL	0xffff0ff0
#define DR7_INITIAL	0x400
/* Local enable of DR0, execution; of DR1, writes of 4 bytes (SDM vol. 3, 19.2.4). */
#define DR7_BREAKPOINT	(DR7_INITIAL | 1)
#define DR7_WATCHPOINT	(DR7_INITIAL | 4 | 0xdu << 20)
#define RESUME_FLAG	0x10000

/* With the bit for SYSCALL (SDM vol. 3, 2.2.1). */
#define MSR_EFER	0xc0000080
#define EFER_SCE	1
#define MSR_STAR	0xc0000081
#define MSR_LSTAR	0xc0000082
#define MSR_FMASK	0xc0000084

struct test {
	const char *name;
	code *code;
	/* The case has the trap flag set itself. */
	bool traps;
	/* In which rings it makes sense, bit n for ring n. */
	u32 rings;
	u64 dr7;
	u64 exceptions, places, dr6, leaks;
};

static struct test tests[] = {
	{ "flags", case_flags, .rings = 9 },
	{ "trap_flag", case_trap_flag, .rings = 9, .traps = true },
	{ "trap_mov_ss", case_trap_mov_ss, .rings = 9, .traps = true },
	{ "int3", case_int3, .rings = 9 },
	{ "int1", case_int1, .rings = 9 },
	{ "breakpoint", case_breakpoint, .rings = 9, .dr7 = DR7_BREAKPOINT },
	{ "watchpoint", case_watchpoint, .rings = 9, .dr7 = DR7_WATCHPOINT },
	{ "software", case_software, .rings = 9 },
	{ "fault", case_fault, .rings = 9 },
	{ "invalid", case_invalid, .rings = 9 },
	{ "devices", case_devices, .rings = 9 },
	{ "syscall", case_syscall, .rings = 8 },
};

/* The case that runs. */
static struct test *current;

extern u64 page_directories[];

static void map_far(bool present)
{
	volatile u64 *entry = &page_directories[(u64)far_page / LARGE_PAGE];

	*entry = present ? *entry | PRESENT : *entry & ~(u64)PRESENT;
	__asm__ volatile("invlpg %0" : : "m"(*far_page) : "memory");
}

static void note(const struct trap_frame *frame)
{
	current->exceptions++;
	current->places += frame->rip - (u64)current->code;
	if (!current->traps && frame->rflags & TRAP_FLAG)
		current->leaks++;
}

static void on_debug(struct trap_frame *frame)
{
	u64 dr6;

	__asm__ volatile("mov %%dr6, %0" : "=r"(dr6));
	__asm__ volatile("mov %0, %%dr6" : : "r"((u64)DR6_INITIAL));
	note(frame);
	current->dr6 |= dr6;
	/* Of its own breakpoint it must say that it goes past it. */
	if (dr6 & 1)
		frame->rflags |= RESUME_FLAG;
}

static void on_fault(struct trap_frame *frame)
{
	note(frame);
	map_far(true);
}

static void on_invalid(struct trap_frame *frame)
{
	note(frame);
	frame->rip += LENGTH_UD2;
}

static void on_other(struct trap_frame *frame)
{
	note(frame);
}

static void write_msr(u32 index, u64 value)
{
	__asm__ volatile("wrmsr" : : "c"(index), "a"((u32)value), "d"(value >> 32));
}

/* gdb stops here, in front of a case and behind it. */
NOINLINE void begin(const char *name)
{
	__asm__ volatile("" : : "r"(name));
}

NOINLINE void end(const char *name)
{
	__asm__ volatile("" : : "r"(name));
}

static void run(struct test *test, u64 ring)
{
	u64 flags;

	current = test;
	map_far(false);
	__asm__ volatile("mov %0, %%dr6" : : "r"((u64)DR6_INITIAL));
	if (test->dr7)
		__asm__ volatile("mov %0, %%dr7" : : "r"(test->dr7));
	if (ring == 3)
		enter_ring3();
	begin(test->name);
	flags = test->code();
	end(test->name);
	if (ring == 3)
		leave_ring3();
	if (test->dr7)
		__asm__ volatile("mov %0, %%dr7" : : "r"((u64)DR7_INITIAL));
	if (flags & TRAP_FLAG)
		test->leaks++;
}

/* Whether `name` is among what `cases=` lists. */
static bool is_wanted(const char *name)
{
	char list[128], *word = list;

	cmdline_string("cases", "", list, sizeof(list));
	if (!list[0])
		return true;
	for (char *at = list;; at++) {
		char ending = *at;

		if (ending && ending != ',')
			continue;
		*at = 0;
		if (string_equal(word, name))
			return true;
		if (!ending)
			return false;
		word = at + 1;
	}
}

static void prepare(void)
{
	traps_handle(VECTOR_DEBUG, on_debug);
	traps_handle(VECTOR_BREAKPOINT, on_other);
	traps_handle(VECTOR_INVALID_OPCODE, on_invalid);
	traps_handle(VECTOR_PAGE_FAULT, on_fault);
	traps_handle(VECTOR_SOFTWARE, on_other);
	traps_allow_ring3(VECTOR_BREAKPOINT);
	traps_allow_ring3(VECTOR_SOFTWARE);
	__asm__ volatile("mov %0, %%dr0" : : "r"((u64)breakpoint_here));
	__asm__ volatile("mov %0, %%dr1" : : "r"((u64)&watched));
}

static u64 read_msr(u32 index)
{
	u32 low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
	return (u64)high << 32 | low;
}

static void prepare_syscall(void)
{
	write_msr(MSR_EFER, read_msr(MSR_EFER) | EFER_SCE);
	write_msr(MSR_STAR, (u64)KERNEL_CS << 32);
	write_msr(MSR_LSTAR, (u64)syscall_entry);
	write_msr(MSR_FMASK, TRAP_FLAG);
}

int main(void)
{
	u64 ring = cmdline_number("ring", 0);
	u64 passes = cmdline_number("passes", 1);

	prepare();
	printf("events: ready ring=%lu\n", ring);
	for (usize n = 0; n < ARRAY_SIZE(tests); n++) {
		struct test *test = &tests[n];

		if (!(test->rings >> ring & 1) || !is_wanted(test->name))
			continue;
		if (test->code == case_syscall)
			prepare_syscall();
		for (u64 pass = 0; pass < passes; pass++)
			run(test, ring);
		printf("events: %s exceptions=%lu places=%lu dr6=%lx leaks=%lu\n", test->name,
		       test->exceptions, test->places, test->dr6, test->leaks);
	}
	printf("events: done\n");
	return 0;
}
