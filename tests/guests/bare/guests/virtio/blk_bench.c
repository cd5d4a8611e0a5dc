/*
 * Reads of 4 KiB at random places, `depth=D` (1) in flight, `n=N` (1000) in
 * all. The hot loop runs wherever main() put it: ring 3 by default.
 */
#include "virtio_guest.h"

#define SECTORS_A_READ	(BLK_DATA / SECTOR_SIZE)

static void submit_read(struct blk *blk, u32 slot)
{
	u64 blocks = blk->capacity / SECTORS_A_READ;

	if (!blk_submit(blk, slot, BLK_READ, next_random() % blocks * SECTORS_A_READ, BLK_DATA))
		panic("bench: queue full");
}

/* Returns the cycles from the first request to the last answer. */
static u64 run(struct blk *blk, u64 reads, u32 depth)
{
	u64 submitted = 0, completed = 0;
	u64 start = rdtsc();

	for (; submitted < depth && submitted < reads; submitted++)
		submit_read(blk, submitted);
	virtqueue_kick(blk->queue);

	while (completed < reads) {
		enum blk_status status;
		u32 slot = blk_complete(blk, &status);

		if (status != BLK_OK)
			panic("bench: status %u", status);
		completed++;
		if (submitted < reads) {
			submit_read(blk, slot);
			submitted++;
		}
		/* One kick for all that had finished: kicks are what costs. */
		if (!virtqueue_pending(blk->queue))
			virtqueue_kick(blk->queue);
	}
	return rdtsc() - start;
}

void blk_bench(struct blk *blk)
{
	u64 reads = cmdline_number("n", 1000);
	u64 depth = cmdline_number("depth", 1);
	u64 cycles;

	if (depth == 0 || depth > BLK_SLOTS || blk->capacity < SECTORS_A_READ)
		panic("bench: depth %lu, capacity %lu", depth, blk->capacity);
	printf("bench: start reads=%lu depth=%lu ring=%u\n", reads, depth, current_ring());
	cycles = run(blk, reads, depth);
	printf("bench: ok reads=%lu depth=%lu cycles=%lu per_read=%lu kicks=%lu interrupts=%u\n",
	       reads, depth, cycles, cycles / reads, blk->queue->kicks, blk->device->interrupts);
}
