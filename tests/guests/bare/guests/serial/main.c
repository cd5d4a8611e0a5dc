/*
 * Drives COM1 as hard as it can be.
 *
 *   output=polled     sends a FIFO when the line status says that there is room
 *   output=interrupt  sends a FIFO at every interrupt of the transmitter
 *   output=blind      never asks
 *   lines=N           numbered lines of 64 bytes (1000), or `forever`
 *   input=N           takes N bytes by interrupt first, and prints their sum
 */
#include "runtime.h"

#define SERIAL_VECTOR	41
#define COM1_GSI	4

#define COM1		0x3f8
#define DATA		(COM1 + 0)
#define IER		(COM1 + 1)
#define IIR		(COM1 + 2)
#define MCR		(COM1 + 4)
#define LSR		(COM1 + 5)
#define IER_RECEIVE	0x01
#define IER_TRANSMIT	0x02
#define IIR_MASK	0x0f
#define IIR_TRANSMIT	0x02
#define IIR_RECEIVE	0x04
#define MCR_OUT2	0x08	/* gates the interrupt on PCs */
#define LSR_DATA_READY	0x01
#define LSR_THR_EMPTY	0x20

#define FIFO_SIZE	16
#define LINE_SIZE	64

static char line[LINE_SIZE];
static u32 sent_of_line = LINE_SIZE;
static u64 lines_left;
static bool forever;
static u64 number;

static volatile u32 interrupts;
static volatile u64 received, sum;

/* "serial: 00000000 ", dots, and the end of the line. */
static void next_line(void)
{
	memset(line, '.', LINE_SIZE);
	memcpy(line, "serial: ", 8);
	for (u32 i = 0; i < 8; i++)
		line[8 + i] = "0123456789abcdef"[number >> (28 - 4 * i) & 0xf];
	line[16] = ' ';
	line[LINE_SIZE - 1] = '\n';
	number++;
	sent_of_line = 0;
}

/* One exit to the VMM, however many bytes. */
static void send(u32 count)
{
	const char *from = line + sent_of_line;
	u64 left = count;

	__asm__ volatile("rep outsb" : "+S"(from), "+c"(left) : "d"(DATA) : "memory");
	sent_of_line += count;
}

/* Sends a FIFO's worth; false when there is nothing left. A line is four of them. */
static bool send_some(void)
{
	if (sent_of_line == LINE_SIZE) {
		if (!forever && lines_left-- == 0)
			return false;
		next_line();
	}
	send(FIFO_SIZE);
	return true;
}

static void polled(void)
{
	do
		while (!(inb(LSR) & LSR_THR_EMPTY))
			;
	while (send_some());
}

static void blind(void)
{
	while (send_some())
		;
}

static void on_interrupt(struct trap_frame *frame)
{
	(void)frame;
	switch (inb(IIR) & IIR_MASK) {
	case IIR_TRANSMIT:
		if (!(inb(LSR) & LSR_THR_EMPTY))
			panic("serial: an interrupt of a transmitter that is busy");
		if (!send_some())
			outb(IER, 0);
		break;
	case IIR_RECEIVE:
		while (inb(LSR) & LSR_DATA_READY) {
			sum = sum * 31 + inb(DATA);
			received++;
		}
		break;
	}
	interrupts++;
}

static void enable(u8 interrupt)
{
	traps_handle(SERIAL_VECTOR, on_interrupt);
	ioapic_route(COM1_GSI, SERIAL_VECTOR, lapic_id());
	outb(MCR, MCR_OUT2);
	outb(IER, interrupt);
}

static void by_interrupt(void)
{
	enable(IER_TRANSMIT);
	interrupts_on();
	for (;;) {
		u32 seen = interrupts;

		if (sent_of_line == LINE_SIZE && !forever && (s64)lines_left < 0)
			break;
		wait_while_equal(&interrupts, seen);
	}
	interrupts_off();
}

static void receive(u64 count)
{
	enable(IER_RECEIVE);
	printf("serial: listens\n");
	interrupts_on();
	for (;;) {
		u32 seen = interrupts;

		if (received >= count)
			break;
		wait_while_equal(&interrupts, seen);
	}
	interrupts_off();
	outb(IER, 0);
	printf("serial: received=%lu sum=%lx\n", received, sum);
}

int main(void)
{
	char output[16];
	u64 input = cmdline_number("input", 0);

	if (input)
		receive(input);
	lines_left = cmdline_number("lines", 1000);
	forever = cmdline_flag("forever");
	cmdline_string("output", "polled", output, sizeof(output));
	if (string_equal(output, "interrupt"))
		by_interrupt();
	else if (string_equal(output, "blind"))
		blind();
	else
		polled();
	printf("serial: ok lines=%lu\n", number);
	return 0;
}
