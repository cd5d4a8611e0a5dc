/*
 * Wrong uses of the virtio-mmio registers (virtio 1.3, section 4.2.2). The
 * driver breaks its rules; what the device then does is printed.
 */
#include "misbehave.h"

#define WINDOW		0x1000
#define ALL_STATUS	(STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK)

static u64 at(u32 offset)
{
	return victim()->base + offset;
}

/* Control registers may only be accessed by aligned 32 bits (4.2.2.2). */
static void widths(void)
{
	u64 base = victim()->base;

	virtio_reset(victim());
	printf("  magic read8 %02x read16 %04x read64 %016lx\n", read8(base), read16(base),
	       read64(base));
	printf("  unaligned read32 %08x\n", read32(base + 2));
	write8(at(VIRTIO_STATUS), STATUS_ACKNOWLEDGE);
	printf("  status after write8 %x", victim_status());
	write16(at(VIRTIO_STATUS), STATUS_ACKNOWLEDGE);
	printf(" write16 %x", victim_status());
	write64(at(VIRTIO_STATUS), STATUS_ACKNOWLEDGE);
	printf(" write64 %x\n", victim_status());
	write32(at(VIRTIO_STATUS) + 2, 0xffffffff);
	write8(at(VIRTIO_QUEUE_NOTIFY), 0);
	write16(at(VIRTIO_QUEUE_NOTIFY), 0);
	write64(at(VIRTIO_QUEUE_NOTIFY), 0);
	write8(at(VIRTIO_INTERRUPT_ACK), 1);
}

static void readonly_registers(void)
{
	static const u16 registers[] = {
		VIRTIO_MAGIC, VIRTIO_VERSION, VIRTIO_DEVICE_ID, VIRTIO_VENDOR_ID,
		VIRTIO_DEVICE_FEATURES, VIRTIO_QUEUE_SIZE_MAX, VIRTIO_INTERRUPT_STATUS,
		VIRTIO_CONFIG_GENERATION,
	};

	virtio_reset(victim());
	for (u32 i = 0; i < ARRAY_SIZE(registers); i++) {
		u32 before = virtio_read(victim(), registers[i]);
		u32 after;

		virtio_write(victim(), registers[i], ~before);
		after = virtio_read(victim(), registers[i]);
		printf("  register %03x %s\n", registers[i],
		       before == after ? "keeps its value" : "CHANGED");
	}
}

/* Registers that are only written, holes between registers, the window's end. */
static void window_end(void)
{
	printf("  queue-notify reads %08x, hole %08x, last word %08x\n",
	       virtio_read(victim(), VIRTIO_QUEUE_NOTIFY), read32(at(0x00c + 4 * 0x10)),
	       read32(at(WINDOW - 4)));
	write32(at(0x0d0), 1);
	write32(at(WINDOW - 4), 1);
	write32(at(WINDOW - 2), 1);
	write64(at(WINDOW - 4), 1);
	printf("  across the end: read32 %08x read64 %016lx\n", read32(at(WINDOW - 2)),
	       read64(at(WINDOW - 4)));
}

static void write_status(u32 status)
{
	virtio_write(victim(), VIRTIO_STATUS, status);
	printf("  status %02x -> %02x\n", status, victim_status());
}

/* Status bits out of order, taken back, and unknown ones (3.1.1). */
static void handshake_order(void)
{
	static const u32 straight_to[] = { STATUS_DRIVER_OK, STATUS_FEATURES_OK, STATUS_DRIVER,
					   ALL_STATUS, STATUS_NEEDS_RESET, 0xffffff00, 0xff };

	for (u32 i = 0; i < ARRAY_SIZE(straight_to); i++) {
		virtio_reset(victim());
		write_status(straight_to[i]);
	}
	victim_start();
	write_status(STATUS_ACKNOWLEDGE | STATUS_DRIVER);
	write_status(STATUS_FAILED | ALL_STATUS);
}

/* Accepts what was not offered, and too little; asks for words that are none. */
static void features(void)
{
	static const u32 no_words[] = { 4, 0x80000000, 0xffffffff };
	u32 status = STATUS_ACKNOWLEDGE | STATUS_DRIVER;

	virtio_reset(victim());
	virtio_write(victim(), VIRTIO_STATUS, status);
	virtio_accept(victim(), -1ul);
	printf("  all features:");
	write_status(status | STATUS_FEATURES_OK);

	virtio_reset(victim());
	virtio_write(victim(), VIRTIO_STATUS, status);
	virtio_accept(victim(), 0);
	printf("  no features:");
	write_status(status | STATUS_FEATURES_OK);

	for (u32 i = 0; i < ARRAY_SIZE(no_words); i++) {
		virtio_write(victim(), VIRTIO_DEVICE_FEATURES_SEL, no_words[i]);
		printf("  features word %x: %08x\n", no_words[i],
		       virtio_read(victim(), VIRTIO_DEVICE_FEATURES));
		virtio_write(victim(), VIRTIO_DRIVER_FEATURES_SEL, no_words[i]);
		virtio_write(victim(), VIRTIO_DRIVER_FEATURES, 0xffffffff);
	}

	victim_start();
	virtio_accept(victim(), 0);
	printf("  features written after DRIVER_OK: status %02x\n", victim_status());
}

/* Sets up queue 0 of a fresh device as told, and says what became of it. */
static void try_queue(const char *what, u32 size, u64 desc, u64 driver, u64 device)
{
	u64 addresses[] = { desc, driver, device };

	memset(&victim_queue, 0, sizeof(victim_queue));
	victim_negotiate();
	virtio_write(victim(), VIRTIO_QUEUE_SEL, 0);
	virtio_write(victim(), VIRTIO_QUEUE_SIZE, size);
	for (u32 i = 0; i < ARRAY_SIZE(addresses); i++) {
		virtio_write(victim(), VIRTIO_QUEUE_DESC + 0x10 * i, addresses[i]);
		virtio_write(victim(), VIRTIO_QUEUE_DESC + 0x10 * i + 4, addresses[i] >> 32);
	}
	virtio_write(victim(), VIRTIO_QUEUE_READY, 1);
	printf("  %s: ready %u", what, virtio_read(victim(), VIRTIO_QUEUE_READY));
	virtio_write(victim(), VIRTIO_STATUS, ALL_STATUS);
	virtio_write(victim(), VIRTIO_QUEUE_NOTIFY, 0);
	printf(" status %02x\n", victim_status());
}

static void queue_sizes(void)
{
	static const u32 sizes[] = { 0, 3, 1, 512, 0x8000, 0x10000, 0xffffffff };

	for (u32 i = 0; i < ARRAY_SIZE(sizes); i++) {
		printf("  size %x", sizes[i]);
		try_queue("", sizes[i], (u64)victim_queue.split.desc, (u64)&victim_queue.split.avail,
			  (u64)&victim_queue.split.used);
	}
}

static void queue_addresses(void)
{
	u64 desc = (u64)victim_queue.split.desc, driver = (u64)&victim_queue.split.avail,
	    device = (u64)&victim_queue.split.used;

	try_queue("descriptors past RAM", 256, 1ul << 46, driver, device);
	try_queue("available ring in the MMIO hole", 256, desc, 0xd0000000, device);
	try_queue("used ring in the MMIO hole", 256, desc, driver, 0xfee00000);
	try_queue("descriptors at the end of the address space", 256, -16ul, driver, device);
	try_queue("used ring across 2^64", 256, desc, driver, -4ul);
	try_queue("unaligned", 256, desc + 1, driver + 1, device + 1);
	try_queue("all at zero", 256, 0, 0, 0);
	try_queue("all the same", 256, desc, desc, desc);
}

/* Queues that do not exist. */
static void queue_numbers(void)
{
	static const u32 numbers[] = { 1000, 0xffff, 0x10000, 0xffffffff };

	victim_negotiate();
	for (u32 i = 0; i < ARRAY_SIZE(numbers); i++) {
		virtio_write(victim(), VIRTIO_QUEUE_SEL, numbers[i]);
		virtio_write(victim(), VIRTIO_QUEUE_SIZE, 16);
		virtio_write(victim(), VIRTIO_QUEUE_READY, 1);
		printf("  queue %x: max %u ready %u\n", numbers[i],
		       virtio_read(victim(), VIRTIO_QUEUE_SIZE_MAX),
		       virtio_read(victim(), VIRTIO_QUEUE_READY));
	}
}

/* Changes a queue while it is in use. */
static void queue_changes(void)
{
	victim_start();
	virtio_write(victim(), VIRTIO_QUEUE_SIZE, 4);
	virtio_write(victim(), VIRTIO_QUEUE_DESC, 0);
	virtio_write(victim(), VIRTIO_QUEUE_READY, 1);
	virtio_write(victim(), VIRTIO_QUEUE_READY, 2);
	printf("  rewritten while ready: ready %u", virtio_read(victim(), VIRTIO_QUEUE_READY));
	virtio_write(victim(), VIRTIO_QUEUE_READY, 0);
	printf(", stopped: ready %u\n", virtio_read(victim(), VIRTIO_QUEUE_READY));
	virtio_write(victim(), VIRTIO_QUEUE_NOTIFY, 0);
}

static void kicks(void)
{
	static const u32 numbers[] = { 0, 1, 7, 1000, 0xffff, 0x10000, 0xffffffff };

	for (u32 round = 0; round < 3; round++) {
		if (round == 0)
			virtio_reset(victim());
		else if (round == 1)
			victim_negotiate();
		else
			victim_start();
		for (u32 i = 0; i < ARRAY_SIZE(numbers); i++)
			virtio_write(victim(), VIRTIO_QUEUE_NOTIFY, numbers[i]);
		printf("  kicked at status %02x\n", victim_status());
	}
}

static void acknowledgements(void)
{
	static const u32 values[] = { 0, 1, 2, 3, 4, 0xffffffff };

	victim_start();
	for (u32 i = 0; i < ARRAY_SIZE(values); i++)
		virtio_write(victim(), VIRTIO_INTERRUPT_ACK, values[i]);
	printf("  status %02x\n", victim_status());
}

/* Configuration fields in all widths, past their end, written to. */
static void config(void)
{
	victim_start();
	for (u32 offset = 0; offset < 64; offset++)
		write8(at(VIRTIO_CONFIG + offset), 0xa5);
	write16(at(VIRTIO_CONFIG + 1), 0xffff);
	write32(at(VIRTIO_CONFIG), 0xffffffff);
	write64(at(VIRTIO_CONFIG), -1ul);
	write32(at(WINDOW - 4), 0xffffffff);
	printf("  first field %016lx, past the end %08x\n", virtio_config64(victim(), 0),
	       read32(at(VIRTIO_CONFIG + 0x800)));
}

/* Hundreds of handshakes begun and dropped. */
static void reset_storm(void)
{
	u64 rounds = cmdline_number("n", 100);

	for (u64 i = 0; i < rounds; i++) {
		if (i % 2)
			victim_start();
		else
			victim_negotiate();
		virtio_write(victim(), VIRTIO_STATUS, 0);
	}
	printf("  %lu handshakes\n", rounds);
}

const struct misdeed register_misdeeds[] = {
	{ "widths", widths },
	{ "readonly-registers", readonly_registers },
	{ "window-end", window_end },
	{ "handshake-order", handshake_order },
	{ "features", features },
	{ "queue-sizes", queue_sizes },
	{ "queue-addresses", queue_addresses },
	{ "queue-numbers", queue_numbers },
	{ "queue-changes", queue_changes },
	{ "kicks", kicks },
	{ "acknowledgements", acknowledgements },
	{ "config", config },
	{ "reset-storm", reset_storm },
	{ NULL, NULL },
};
