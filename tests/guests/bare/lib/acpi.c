#include "acpi.h"

#include "power.h"
#include "string.h"

/* Offsets from ACPI 6.5: 5.2.5.3 (RSDP), 5.2.9 (FADT), 5.2.12 (MADT). */
#define RSDP_XSDT	24
#define TABLE_LENGTH	4
#define TABLE_HEADER	36
#define FADT_FLAGS	112
#define FADT_HW_REDUCED	(1 << 20)
#define FADT_SLEEP_REG	244
#define MADT_ENTRIES	44
#define MADT_LAPIC	0
#define LAPIC_ENABLED	1

#define SPACE_MEMORY	0
#define SPACE_IO	1

static u32 get32(const u8 *p)
{
	u32 value;

	memcpy(&value, p, sizeof(value));
	return value;
}

static u64 get64(const u8 *p)
{
	return get32(p) | (u64)get32(p + 4) << 32;
}

/* A generic address structure: ACPI 6.5, 5.2.3.2. */
static void read_fadt(const u8 *fadt)
{
	const u8 *sleep = fadt + FADT_SLEEP_REG;
	u64 address = get64(sleep + 4);

	if (get32(fadt + TABLE_LENGTH) < FADT_SLEEP_REG + 12 || address == 0 ||
	    !(get32(fadt + FADT_FLAGS) & FADT_HW_REDUCED))
		return;
	if (sleep[0] == SPACE_IO)
		power_set_sleep_port(address);
	else if (sleep[0] == SPACE_MEMORY)
		power_set_sleep_address(address);
}

static u32 read_madt(const u8 *madt, u32 *apic_ids, u32 max)
{
	const u8 *end = madt + get32(madt + TABLE_LENGTH);
	u32 count = 0;

	for (const u8 *entry = madt + MADT_ENTRIES; entry + 2 <= end && entry[1]; entry += entry[1])
		if (entry[0] == MADT_LAPIC && (get32(entry + 4) & LAPIC_ENABLED) && count < max)
			apic_ids[count++] = entry[3];
	return count;
}

u32 acpi_read(u64 rsdp, u32 *apic_ids, u32 max)
{
	const u8 *xsdt;
	u32 tables, count = 0;

	if (rsdp == 0)
		return 0;
	xsdt = (const u8 *)get64((const u8 *)rsdp + RSDP_XSDT);
	if (xsdt == NULL)
		return 0;
	tables = (get32(xsdt + TABLE_LENGTH) - TABLE_HEADER) / 8;
	for (u32 i = 0; i < tables; i++) {
		const u8 *table = (const u8 *)get64(xsdt + TABLE_HEADER + 8 * i);

		if (memcmp(table, "FACP", 4) == 0)
			read_fadt(table);
		if (memcmp(table, "APIC", 4) == 0)
			count = read_madt(table, apic_ids, max);
	}
	return count;
}
