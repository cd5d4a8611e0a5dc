/* Ports: of the devices that there are, and any. */
#include "fuzz.h"

#define COM1		0x3f8
#define COM1_FCR	(COM1 + 2)
#define FCR_ENABLE_CLEAR	0x07
#define LCR_8N1		0x03

/* From which on 32 bits fit into the ports that ring 3 may touch. */
#define LAST_PORT	0xfffc

/* What ends the machine, and so the test: power-off, reset by the i8042. */
#define SLEEP_CONTROL	0x600
#define I8042_COMMAND	0x64

static bool ends_machine(u16 port, u32 width)
{
	return (port <= SLEEP_CONTROL && SLEEP_CONTROL < port + width) ||
	       (port <= I8042_COMMAND && I8042_COMMAND < port + width);
}

static u16 draw_port(struct source *source)
{
	/* DMA, PIC, PIT, i8042, RTC, system control, pvpanic, UARTs, PCI. */
	static const u16 known[] = { 0x00, 0x20, 0x40, 0x60, 0x70, 0x80, 0x90, 0xa0, 0x4d0,
				     0x505, 0x510, 0x600, 0x2f8, 0xcf8, 0xcfc };

	switch (draw_below(source, 4)) {
	case 0:
		return draw_below(source, LAST_PORT + 1);
	case 1:
		return COM1 + draw_below(source, 8);
	default:
		return known[draw_below(source, ARRAY_SIZE(known))] + draw_below(source, 8);
	}
}

static void write_port(u16 port, u32 width, u32 value)
{
	if (width == 1)
		outb(port, value);
	else if (width == 2)
		outw(port, value);
	else
		outl(port, value);
}

static void read_port(u16 port, u32 width)
{
	if (width == 1)
		inb(port);
	else if (width == 2)
		inw(port);
	else
		inl(port);
}

void fuzz_port(struct source *source)
{
	u32 width = 1u << draw_below(source, 3);
	u16 port = draw_port(source);

	if (draw_chance(source, 50) && !ends_machine(port, width))
		write_port(port, width, draw_value(source));
	else
		read_port(port, width);
}

void fuzz_port_restore(void)
{
	/* DLAB first, for the others are behind it. */
	outb(COM1 + 3, LCR_8N1);
	outb(COM1 + 1, 0);
	outb(COM1 + 4, 0);
	outb(COM1_FCR, FCR_ENABLE_CLEAR);
	/* What was sent while it was looped back. */
	while (console_take())
		;
	printf("\n");
}
