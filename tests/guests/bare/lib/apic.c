#include "apic.h"

#include "io.h"

#define PIC_MASTER_MASK	0x21
#define PIC_SLAVE_MASK	0xa1

#define LAPIC_BASE	0xfee00000
#define LAPIC_ID	0x20
#define LAPIC_EOI	0xb0
#define LAPIC_SPURIOUS	0xf0
#define LAPIC_ICR_LOW	0x300
#define LAPIC_ICR_HIGH	0x310
#define LAPIC_LVT_TIMER	0x320
#define LAPIC_LVT_LINT0	0x350
#define LAPIC_INITIAL	0x380
#define LAPIC_DIVIDE	0x3e0

#define SPURIOUS_ENABLE	(1 << 8)
#define SPURIOUS_VECTOR	0xff

#define ICR_INIT	(5 << 8)
#define ICR_STARTUP	(6 << 8)
#define ICR_PENDING	(1 << 12)
#define ICR_ASSERT	(1 << 14)

#define LVT_MASKED	(1 << 16)
#define LVT_PERIODIC	(1 << 17)
#define DIVIDE_BY_16	3

#define IOAPIC_BASE	0xfec00000
#define IOAPIC_SELECT	0x00
#define IOAPIC_WINDOW	0x10
#define IOAPIC_ENTRY	0x10	/* two 32-bit registers an entry */
#define ENTRY_MASKED	(1 << 16)

void pic_disable(void)
{
	outb(PIC_MASTER_MASK, 0xff);
	outb(PIC_SLAVE_MASK, 0xff);
}

void lapic_enable(void)
{
	write32(LAPIC_BASE + LAPIC_SPURIOUS, SPURIOUS_ENABLE | SPURIOUS_VECTOR);
}

void lapic_mask_pic(void)
{
	write32(LAPIC_BASE + LAPIC_LVT_LINT0, LVT_MASKED);
}

u32 lapic_id(void)
{
	return read32(LAPIC_BASE + LAPIC_ID) >> 24;
}

void lapic_eoi(void)
{
	write32(LAPIC_BASE + LAPIC_EOI, 0);
}

static void send(u32 apic_id, u32 command)
{
	write32(LAPIC_BASE + LAPIC_ICR_HIGH, apic_id << 24);
	write32(LAPIC_BASE + LAPIC_ICR_LOW, command);
	while (read32(LAPIC_BASE + LAPIC_ICR_LOW) & ICR_PENDING)
		pause();
}

void lapic_send_init(u32 apic_id)
{
	send(apic_id, ICR_INIT | ICR_ASSERT);
}

void lapic_send_startup(u32 apic_id, u8 page)
{
	send(apic_id, ICR_STARTUP | ICR_ASSERT | page);
}

void lapic_send_ipi(u32 apic_id, u8 vector)
{
	send(apic_id, ICR_ASSERT | vector);
}

void lapic_timer_start(u8 vector, u32 ticks)
{
	write32(LAPIC_BASE + LAPIC_DIVIDE, DIVIDE_BY_16);
	write32(LAPIC_BASE + LAPIC_LVT_TIMER, ticks ? LVT_PERIODIC | vector : LVT_MASKED);
	write32(LAPIC_BASE + LAPIC_INITIAL, ticks);
}

static void ioapic_write(u8 reg, u32 value)
{
	write32(IOAPIC_BASE + IOAPIC_SELECT, reg);
	write32(IOAPIC_BASE + IOAPIC_WINDOW, value);
}

void ioapic_route(u32 gsi, u8 vector, u32 apic_id)
{
	ioapic_write(IOAPIC_ENTRY + 2 * gsi + 1, apic_id << 24);
	ioapic_write(IOAPIC_ENTRY + 2 * gsi, vector);
}

void ioapic_mask(u32 gsi)
{
	ioapic_write(IOAPIC_ENTRY + 2 * gsi, ENTRY_MASKED);
}
