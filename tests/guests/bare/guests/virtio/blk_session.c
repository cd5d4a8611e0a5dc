/*
 * Blocks that say which write made them: its generation stands in the first
 * word of each sector, and the rest follows from it. A write that the device
 * carries out after the reset that was to end it brings an older one back.
 */
#include "session.h"
#include "virtio_guest.h"

#define BLOCKS		16
#define SECTORS_A_BLOCK	(BLK_DATA / SECTOR_SIZE)
#define WORDS_A_SECTOR	(SECTOR_SIZE / 8)

/* The slots of requests, by what they are for. */
#define WORK		0
#define LEFT_WRITES	BLOCKS
#define LEFT_READS	(2 * BLOCKS)
#define LEFT_END	(3 * BLOCKS)
/* So many of those that are left in flight may finish before. */
#define FINISHED_MAX	(BLOCKS / 2)

static u64 word_of(u64 generation, u64 sector, u32 word)
{
	if (word == 0 || generation == 0)
		return generation;
	return ((generation << 32 | sector) * WORDS_A_SECTOR + word) * 0x9e3779b97f4a7c15ul;
}

static void fill(u32 slot, u32 block, u64 generation)
{
	u64 *words = (u64 *)blk_data(slot);

	for (u32 i = 0; i < BLK_DATA / 8; i++)
		words[i] = word_of(generation, block * SECTORS_A_BLOCK + i / WORDS_A_SECTOR,
				   i % WORDS_A_SECTOR);
}

/* The latest generation of a block's sectors, each of which is of one. */
static u64 generation_of(u32 slot, u32 block)
{
	const u64 *words = (const u64 *)blk_data(slot);
	u64 latest = 0;

	for (u32 i = 0; i < BLK_DATA / 8; i++) {
		u64 sector = block * SECTORS_A_BLOCK + i / WORDS_A_SECTOR;
		u64 generation = words[i - i % WORDS_A_SECTOR];

		if (words[i] != word_of(generation, sector, i % WORDS_A_SECTOR))
			panic("session: sector %lu word %u is %lx, not of generation %lu", sector,
			      i % WORDS_A_SECTOR, words[i], generation);
		if (generation > latest)
			latest = generation;
	}
	return latest;
}

static void submit(struct blk *blk, u32 first_slot, u32 type)
{
	for (u32 i = 0; i < BLOCKS; i++)
		if (!blk_submit(blk, first_slot + i, type, i * SECTORS_A_BLOCK, BLK_DATA))
			panic("session: queue full");
	virtqueue_kick(blk->queue);
}

static void complete(struct blk *blk, u32 count)
{
	enum blk_status status;

	while (count--) {
		u32 slot = blk_complete(blk, &status);

		if (status != BLK_OK)
			panic("session: request %u gives status %u", slot, status);
	}
}

static u64 latest_generation(struct blk *blk)
{
	u64 latest = 0;

	submit(blk, WORK, BLK_READ);
	complete(blk, BLOCKS);
	for (u32 i = 0; i < BLOCKS; i++) {
		u64 generation = generation_of(WORK + i, i);

		if (generation > latest)
			latest = generation;
	}
	return latest;
}

static void write_all(struct blk *blk, u64 generation)
{
	for (u32 i = 0; i < BLOCKS; i++)
		fill(WORK + i, i, generation);
	submit(blk, WORK, BLK_WRITE);
	complete(blk, BLOCKS);
}

static void expect_all(struct blk *blk, u64 generation)
{
	submit(blk, WORK, BLK_READ);
	complete(blk, BLOCKS);
	for (u32 i = 0; i < BLOCKS; i++) {
		fill(LEFT_WRITES, i, generation);
		if (memcmp(blk_data(WORK + i), blk_data(LEFT_WRITES), BLK_DATA) != 0)
			panic("session: block %u has generation %lu, not %lu", i,
			      *(u64 *)blk_data(WORK + i), generation);
	}
}

static void expect_scribble(void)
{
	for (u32 slot = LEFT_READS; slot < LEFT_END; slot++)
		for (u32 i = 0; i < BLK_DATA; i++)
			if (blk_data(slot)[i] != SCRIBBLE)
				panic("session: buffer %u was written after the reset", slot);
}

u32 blk_session(struct virtio_device *device)
{
	u32 finished = next_random() % (FINISHED_MAX + 1);
	struct blk blk;
	u64 generation;

	for (u32 slot = LEFT_READS; slot < LEFT_END; slot++)
		memset(blk_data(slot), SCRIBBLE, BLK_DATA);
	blk_start(&blk, device);
	if (blk.capacity < BLOCKS * SECTORS_A_BLOCK)
		panic("session: capacity %lu", blk.capacity);
	/* What was left in flight has the one behind the latest that was finished. */
	generation = latest_generation(&blk) + 2;
	write_all(&blk, generation);
	expect_all(&blk, generation);
	expect_scribble();

	for (u32 i = 0; i < BLOCKS; i++)
		fill(LEFT_WRITES + i, i, generation + 1);
	submit(&blk, LEFT_WRITES, BLK_WRITE);
	submit(&blk, LEFT_READS, BLK_READ);
	complete(&blk, finished);
	return virtqueue_in_flight(blk.queue);
}
