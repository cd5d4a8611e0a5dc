#include "console.h"

#include "io.h"
#include "spinlock.h"

#define SERIAL_DATA	0x3f8
#define SERIAL_LSR	0x3fd
#define SERIAL_FCR	0x3fa
#define FCR_ENABLE	0x01
#define FIFO_SIZE	16
#define LSR_DATA_READY	0x01
#define LSR_THR_EMPTY	0x20
#define MAX_SPINS	100000

static struct spinlock lock;

/* Characters that still fit into the UART's FIFO. */
static u32 room;

void console_init(void)
{
	outb(SERIAL_FCR, FCR_ENABLE);
}

/* Asks for room once a FIFO: every port access is an exit to the VMM. */
static void put_char(char c)
{
	/* Bounded: a missing UART must not stop the guest. */
	for (u32 spins = 0; room == 0 && spins < MAX_SPINS; spins++)
		if (inb(SERIAL_LSR) & LSR_THR_EMPTY)
			room = FIFO_SIZE;
	outb(SERIAL_DATA, c);
	if (room)
		room--;
}

static void put_string(const char *s)
{
	while (*s)
		put_char(*s++);
}

static void put_number(u64 value, u32 base, u32 width)
{
	char digits[20];
	u32 count = 0;

	do {
		digits[count++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	for (; width > count; width--)
		put_char('0');
	while (count)
		put_char(digits[--count]);
}

static void put_signed(s64 value, u32 width)
{
	if (value < 0) {
		put_char('-');
		value = -value;
	}
	put_number(value, 10, width);
}

/* The directive after '%'; returns its last character. */
static const char *put_directive(const char *f, __builtin_va_list *arguments)
{
	u32 width = 0;
	bool wide = false;

	for (; *f >= '0' && *f <= '9'; f++)
		width = width * 10 + (*f - '0');
	for (; *f == 'l'; f++)
		wide = true;

	switch (*f) {
	case 'c':
		put_char(__builtin_va_arg(*arguments, int));
		break;
	case 's':
		put_string(__builtin_va_arg(*arguments, const char *));
		break;
	case 'd':
		put_signed(wide ? __builtin_va_arg(*arguments, s64) :
				  __builtin_va_arg(*arguments, s32), width);
		break;
	case 'u':
	case 'x':
		put_number(wide ? __builtin_va_arg(*arguments, u64) :
				  __builtin_va_arg(*arguments, u32),
			   *f == 'u' ? 10 : 16, width);
		break;
	default:
		put_char(*f);
	}
	return f;
}

void vprintf(const char *format, __builtin_va_list arguments)
{
	__builtin_va_list copy;

	__builtin_va_copy(copy, arguments);
	spin_lock(&lock);
	for (const char *f = format; *f; f++) {
		if (*f == '%')
			f = put_directive(f + 1, &copy);
		else
			put_char(*f);
	}
	spin_unlock(&lock);
	__builtin_va_end(copy);
}

bool console_take(void)
{
	if (!(inb(SERIAL_LSR) & LSR_DATA_READY))
		return false;
	inb(SERIAL_DATA);
	return true;
}

void console_break_lock(void)
{
	spin_unlock(&lock);
}

void printf(const char *format, ...)
{
	__builtin_va_list arguments;

	__builtin_va_start(arguments, format);
	vprintf(format, arguments);
	__builtin_va_end(arguments);
}
