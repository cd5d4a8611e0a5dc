#include "smp.h"

#include "acpi.h"
#include "apic.h"
#include "cmdline.h"
#include "io.h"
#include "layout.h"
#include "string.h"
#include "traps.h"

#define STACK_SIZE	16384

/* At 1 to 5 GHz that is 0.4 to 2 seconds. */
#define START_TIMEOUT_TSC	2000000000ul

extern u8 ap_trampoline[], ap_trampoline_end[];

/* start.S takes the stack from here: one CPU starts at a time. */
u64 ap_stack_top;

static u32 ap_index;
static void (*ap_function)(u32 index);
static bool ap_running;

static u32 apic_ids[MAX_CPUS];
static u32 cpu_count;
static NOINIT u8 stacks[MAX_CPUS][STACK_SIZE];

void smp_init(u64 rsdp)
{
	u32 found = acpi_read(rsdp, apic_ids, MAX_CPUS);

	cpu_count = cmdline_number("cpus", found ? found : 1);
	if (cpu_count > MAX_CPUS)
		cpu_count = MAX_CPUS;
	for (u32 i = found; i < cpu_count; i++)
		apic_ids[i] = i;
}

u32 smp_cpu_count(void)
{
	return cpu_count;
}

u32 smp_apic_id(u32 index)
{
	return apic_ids[index];
}

/* Called by start.S on the new CPU. */
void runtime_start_ap(void)
{
	u32 index = ap_index;
	void (*function)(u32 index) = ap_function;

	traps_load(index);
	lapic_enable();
	interrupts_on();
	__atomic_store_n(&ap_running, true, __ATOMIC_RELEASE);
	function(index);
	for (;;)
		__asm__ volatile("cli; hlt");
}

bool smp_start(u32 index, void (*function)(u32 index))
{
	u64 start;

	memcpy((void *)AP_TRAMPOLINE, ap_trampoline, ap_trampoline_end - ap_trampoline);
	ap_stack_top = (u64)stacks[index + 1];
	ap_index = index;
	ap_function = function;
	__atomic_store_n(&ap_running, false, __ATOMIC_RELEASE);

	lapic_send_init(apic_ids[index]);
	lapic_send_startup(apic_ids[index], AP_TRAMPOLINE >> 12);
	lapic_send_startup(apic_ids[index], AP_TRAMPOLINE >> 12);

	start = rdtsc();
	while (!__atomic_load_n(&ap_running, __ATOMIC_ACQUIRE)) {
		if (rdtsc() - start > START_TIMEOUT_TSC)
			return false;
		pause();
	}
	return true;
}
