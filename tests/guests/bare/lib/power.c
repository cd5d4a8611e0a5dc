#include "power.h"

#include "console.h"
#include "io.h"
#include "traps.h"

#define SLEEP_ENABLE	(1 << 5)	/* ACPI 6.5, 4.8.3.7 */
#define SLEEP_TYPE_S5	(5 << 2)

#define I8042_COMMAND	0x64
#define I8042_RESET	0xfe

static u16 sleep_port = 0x600;
static u64 sleep_address;

void power_set_sleep_port(u16 port)
{
	sleep_port = port;
}

void power_set_sleep_address(u64 address)
{
	sleep_address = address;
}

static __attribute__((noreturn)) void stop(void)
{
	for (;;)
		__asm__ volatile("pause");
}

void power_off(void)
{
	if (sleep_address)
		write8(sleep_address, SLEEP_TYPE_S5 | SLEEP_ENABLE);
	else
		outb(sleep_port, SLEEP_TYPE_S5 | SLEEP_ENABLE);
	stop();
}

void reboot(void)
{
	outb(I8042_COMMAND, I8042_RESET);
	stop();
}

void triple_fault(void)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) no_idt = { 0, 0 };

	if (current_ring() != 0)
		leave_ring3();
	__asm__ volatile("lidt %0; ud2" : : "m"(no_idt));
	stop();
}

void panic(const char *format, ...)
{
	__builtin_va_list arguments;

	console_break_lock();
	printf("panic: ");
	__builtin_va_start(arguments, format);
	vprintf(format, arguments);
	__builtin_va_end(arguments);
	printf("\n");
	triple_fault();
}
