/*
 * Rings that break the rules (virtio 1.3, section 2.7). Each starts from a
 * working device, writes the rings by hand, kicks, and says how the device
 * reacted: "used", "needs-reset" or "ignored".
 */
#include "misbehave.h"

#define FAR_AWAY	(1ul << 46)
#define BLK_HEADER	16

static u8 memory[4096];

static void set(u16 index, u64 address, u32 length, u16 flags, u16 next)
{
	victim_queue.split.desc[index] = (struct virtq_desc){ address, length, flags, next };
}

/* Publishes `head` and moves the available index by `step`. */
static void submit(const char *what, u16 head, u16 step)
{
	struct virtq_avail *avail = &victim_queue.split.avail;

	avail->ring[avail->index % victim_queue.size] = head;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	avail->index += step;
	virtio_write(victim(), VIRTIO_QUEUE_NOTIFY, 0);
	printf("  %s: %s\n", what, victim_reaction());
}

/* A chain that never ends, of one descriptor and of two. */
static void looping_chain(void)
{
	victim_start();
	set(0, (u64)memory, BLK_HEADER, DESC_NEXT, 0);
	submit("points to itself", 0, 1);

	victim_start();
	set(0, (u64)memory, BLK_HEADER, DESC_NEXT, 1);
	set(1, (u64)memory, 512, DESC_NEXT | DESC_WRITE, 0);
	submit("points back", 0, 1);
}

static void bad_heads(void)
{
	victim_start();
	submit("head past the queue", victim_queue.size, 1);
	victim_start();
	submit("head ffff", 0xffff, 1);
	victim_start();
	set(0, (u64)memory, BLK_HEADER, DESC_NEXT, 0xffff);
	submit("next ffff", 0, 1);
}

static void bad_index(void)
{
	victim_start();
	set(0, (u64)memory, BLK_HEADER, 0, 0);
	submit("index ahead by more than the queue", 0, victim_queue.size + 1);
	victim_start();
	submit("index backwards", 0, -1);
}

static void try_chain(const char *what, struct virtq_desc header, struct virtq_desc data,
		      struct virtq_desc status)
{
	victim_start();
	victim_queue.split.desc[0] = header;
	victim_queue.split.desc[1] = data;
	victim_queue.split.desc[2] = status;
	submit(what, 0, 1);
}

static void bad_descriptors(void)
{
	struct virtq_desc header = { (u64)memory, BLK_HEADER, DESC_NEXT, 1 };
	struct virtq_desc data = { (u64)memory + 1024, 512, DESC_NEXT | DESC_WRITE, 2 };
	struct virtq_desc status = { (u64)memory + 16, 1, DESC_WRITE, 0 };
	struct virtq_desc bad;

	memset(memory, 0, BLK_HEADER);
	bad = header, bad.address = FAR_AWAY;
	try_chain("header past RAM", bad, data, status);
	bad = header, bad.length = 3;
	try_chain("header of 3 bytes", bad, data, status);
	bad = header, bad.flags |= DESC_WRITE;
	try_chain("header for the device to write", bad, data, status);
	bad = data, bad.address = FAR_AWAY;
	try_chain("data past RAM", header, bad, status);
	bad = data, bad.address = 0xd0000000;
	try_chain("data in the MMIO hole", header, bad, status);
	bad = data, bad.address = -256ul;
	try_chain("data across 2^64", header, bad, status);
	bad = data, bad.length = 0xffffffff;
	try_chain("data of 4 GiB", header, bad, status);
	bad = data, bad.length = 0;
	try_chain("data of 0 bytes", header, bad, status);
	bad = data, bad.length = 511;
	try_chain("data of 511 bytes", header, bad, status);
	bad = data, bad.flags = DESC_NEXT;
	try_chain("read into read-only data", header, bad, status);
	bad = data, bad.flags = DESC_WRITE;
	try_chain("no status descriptor", header, bad, status);
	bad = status, bad.flags = 0;
	try_chain("read-only status", header, data, bad);
	bad = status, bad.length = 0;
	try_chain("status of 0 bytes", header, data, bad);
	bad = status, bad.address = FAR_AWAY;
	try_chain("status past RAM", header, data, bad);
	bad = header, bad.flags = 0;
	try_chain("header alone", bad, data, status);
}

/* Indirect descriptors, which were not negotiated, and malformed ones. */
static void bad_indirect(void)
{
	struct virtq_desc *table = victim_queue.split.indirect[0];

	victim_start();
	table[0] = (struct virtq_desc){ (u64)table, 16, DESC_INDIRECT, 0 };
	set(0, (u64)table, 16, DESC_INDIRECT, 0);
	submit("indirect within indirect", 0, 1);

	victim_start();
	set(0, (u64)table, 15, DESC_INDIRECT, 0);
	submit("table of 15 bytes", 0, 1);

	victim_start();
	set(0, FAR_AWAY, 4096, DESC_INDIRECT, 0);
	submit("table past RAM", 0, 1);

	victim_start();
	set(0, (u64)table, 16, DESC_INDIRECT | DESC_NEXT, 0);
	submit("indirect with a next", 0, 1);
}

/* Resets while requests are under way; they must not write afterwards. */
static void reset_midway(void)
{
	u64 rounds = cmdline_number("n", 20);

	for (u64 round = 0; round < rounds; round++) {
		victim_start();
		memset(memory, 0, BLK_HEADER);
		for (u16 i = 0; i < 30; i += 3) {
			set(i, (u64)memory, BLK_HEADER, DESC_NEXT, i + 1);
			set(i + 1, (u64)memory + 1024, 512, DESC_NEXT | DESC_WRITE, i + 2);
			set(i + 2, (u64)memory + 16, 1, DESC_WRITE, 0);
			victim_queue.split.avail.ring[i / 3] = i;
		}
		__atomic_thread_fence(__ATOMIC_RELEASE);
		victim_queue.split.avail.index = 10;
		virtio_write(victim(), VIRTIO_QUEUE_NOTIFY, 0);
		virtio_reset(victim());
	}
	printf("  %lu resets under way\n", rounds);
}

const struct misdeed ring_misdeeds[] = {
	{ "looping-chain", looping_chain },
	{ "bad-heads", bad_heads },
	{ "bad-index", bad_index },
	{ "bad-descriptors", bad_descriptors },
	{ "bad-indirect", bad_indirect },
	{ "reset-midway", reset_midway },
	{ NULL, NULL },
};
