/* Accesses to addresses that nobody owns, in every width and by string instructions. */
#include "misbehave.h"

/* `port=N`, `address=N`: unclaimed on Outboard. */
#define UNCLAIMED_PORT		0x1234
#define UNCLAIMED_ADDRESS	0xd0f00000

#define SERIAL_DATA	0x3f8

static u8 buffer[8192];

static u16 port(void)
{
	return cmdline_number("port", UNCLAIMED_PORT);
}

static u64 address(void)
{
	return cmdline_number("address", UNCLAIMED_ADDRESS);
}

static void ports(void)
{
	outb(port(), 0x12);
	outw(port(), 0x1234);
	outl(port(), 0x12345678);
	printf("  inb %02x inw %04x inl %08x\n", inb(port()), inw(port()), inl(port()));
	outl(0xffff, 1);	/* beyond the last port, where the processor wraps */
	printf("  inl at port ffff: %08x\n", inl(0xffff));
}

static void in_string(u16 from, u64 count)
{
	void *to = buffer;

	__asm__ volatile("rep insb" : "+D"(to), "+c"(count) : "d"(from) : "memory");
}

static void out_string(u16 to, const void *from, u64 count)
{
	__asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(to) : "memory");
}

static void port_strings(void)
{
	static const char text[] = "  rep outsb in order: 0123456789abcdef\n";
	void *to = buffer;
	const void *from = buffer;
	u64 count = 100;
	u32 ones = 0;

	out_string(SERIAL_DATA, text, strlen(text));
	out_string(port(), buffer, sizeof(buffer));
	in_string(port(), sizeof(buffer));
	for (u32 i = 0; i < sizeof(buffer); i++)
		ones += buffer[i] == 0xff;
	printf("  rep insb: %u of %u bytes are ff\n", ones, (u32)sizeof(buffer));

	__asm__ volatile("rep insl" : "+D"(to), "+c"(count) : "d"(port()) : "memory");
	count = 100;
	__asm__ volatile("rep outsl" : "+S"(from), "+c"(count) : "d"(port()) : "memory");
	count = 100;
	__asm__ volatile("rep outsw" : "+S"(from), "+c"(count) : "d"(port()) : "memory");
}

static void mmio(void)
{
	write8(address(), 0x12);
	write16(address(), 0x1234);
	write32(address(), 0x12345678);
	write64(address(), 0x123456789abcdef0);
	printf("  read8 %02x read16 %04x read32 %08x read64 %016lx\n", read8(address()),
	       read16(address()), read32(address()), read64(address()));
}

/* Unaligned and across pages; a 64-bit access is split by the host. */
static void mmio_unaligned(void)
{
	u64 end = address() + 4096;

	write32(address() + 1, 1);
	write32(end - 1, 1);
	write64(end - 3, 1);
	printf("  unaligned %08x across a page %08x %016lx\n", read32(address() + 1),
	       read32(end - 1), read64(end - 3));
}

static void mmio_strings(void)
{
	u32 ones = 0;

	memcpy(buffer, (const void *)address(), 256);
	memcpy((void *)address(), buffer, 256);
	memset((void *)address(), 0, 256);
	for (u32 i = 0; i < 256; i++)
		ones += buffer[i] == 0xff;
	printf("  rep movsb: %u of 256 bytes are ff\n", ones);
}

/* A read-modify-write on MMIO. */
static void mmio_locked(void)
{
	u32 value = 5;

	__asm__ volatile("lock xaddl %0, (%1)" : "+a"(value) : "r"(address()) : "memory", "cc");
	printf("  xadd saw %08x\n", value);
}

/* `n=N` (2000) exits that a VMM may want to log. */
static void flood(void)
{
	u64 count = cmdline_number("n", 2000);

	for (u64 i = 0; i < count; i++) {
		outb(port(), i);
		write32(address(), i);
	}
	printf("  %lu writes to ports and as many to MMIO\n", count);
}

/* All of it: DMA, NMI, PCI and so on may answer; none may hang. */
static void all_ports(void)
{
	u32 silent = 0;

	for (u32 p = 0; p < 0x1000; p++)
		silent += inb(p) == 0xff;
	printf("  %u of 4096 ports read ff\n", silent);
}

const struct misdeed bus_misdeeds[] = {
	{ "ports", ports },
	{ "port-strings", port_strings },
	{ "all-ports", all_ports },
	{ "mmio", mmio },
	{ "mmio-unaligned", mmio_unaligned },
	{ "mmio-strings", mmio_strings },
	{ "mmio-locked", mmio_locked },
	{ "flood", flood },
	{ NULL, NULL },
};
