/*
 * Write, flush, read back and compare; and the requests that must fail.
 *
 *   sectors=N first=N   the range (64 from 0), cut at the capacity
 *   seed=N              changes the pattern (1)
 *   readonly            writes nothing, only reads and sums up
 */
#include "virtio_guest.h"

#define SECTORS_A_CHUNK	(BLK_DATA / SECTOR_SIZE)
#define WORDS_A_SECTOR	(SECTOR_SIZE / 8)
#define UNKNOWN_TYPE	0x7f
#define ID_LENGTH	20

struct range {
	u64 first, end;
	u64 seed;
};

/* One request, from start to end. */
static enum blk_status transfer(struct blk *blk, u32 type, u64 sector, u32 length)
{
	enum blk_status status;

	if (!blk_submit(blk, 0, type, sector, length))
		panic("blk: queue full");
	virtqueue_kick(blk->queue);
	blk_complete(blk, &status);
	return status;
}

static void expect(struct blk *blk, const char *what, u32 type, u64 sector, u32 length,
		   enum blk_status wanted)
{
	enum blk_status status = transfer(blk, type, sector, length);

	if (status != wanted)
		panic("blk: %s gives status %u, not %u", what, status, wanted);
}

/* Word `word` of sector `sector`: documented in README.md, hosts can check images. */
static u64 pattern(u64 sector, u32 word, u64 seed)
{
	return (sector * WORDS_A_SECTOR + word + seed) * 0x9e3779b97f4a7c15ul;
}

static u32 chunk_size(const struct range *range, u64 sector)
{
	u64 left = range->end - sector;

	return left < SECTORS_A_CHUNK ? left : SECTORS_A_CHUNK;
}

static void write_pattern(struct blk *blk, const struct range *range)
{
	u64 *words = (u64 *)blk_data(0);

	for (u64 sector = range->first; sector < range->end; sector += SECTORS_A_CHUNK) {
		u32 sectors = chunk_size(range, sector);

		for (u32 i = 0; i < sectors * WORDS_A_SECTOR; i++)
			words[i] = pattern(sector, i, range->seed);
		expect(blk, "write", BLK_WRITE, sector, sectors * SECTOR_SIZE, BLK_OK);
	}
}

/* Returns the checksum of the range; compares with the pattern if `compare`. */
static u64 read_back(struct blk *blk, const struct range *range, bool compare)
{
	const u64 *words = (const u64 *)blk_data(0);
	u64 checksum = FNV_START;

	for (u64 sector = range->first; sector < range->end; sector += SECTORS_A_CHUNK) {
		u32 sectors = chunk_size(range, sector);

		memset(blk_data(0), 0xee, BLK_DATA);
		expect(blk, "read", BLK_READ, sector, sectors * SECTOR_SIZE, BLK_OK);
		for (u32 i = 0; compare && i < sectors * WORDS_A_SECTOR; i++)
			if (words[i] != pattern(sector, i, range->seed))
				panic("blk: sector %lu word %u is %lx", sector, i, words[i]);
		checksum = fnv(checksum, words, sectors * SECTOR_SIZE);
	}
	return checksum;
}

static void print_id(struct blk *blk)
{
	char id[ID_LENGTH + 1];

	memset(blk_data(0), 0, ID_LENGTH);
	expect(blk, "get-id", BLK_GET_ID, 0, ID_LENGTH, BLK_OK);
	memcpy(id, blk_data(0), ID_LENGTH);
	id[ID_LENGTH] = 0;
	printf("blk: id=%s\n", id);
}

static void check_refusals(struct blk *blk)
{
	expect(blk, "read past the end", BLK_READ, blk->capacity, SECTOR_SIZE, BLK_IOERR);
	expect(blk, "read across the end", BLK_READ, blk->capacity - 1, 2 * SECTOR_SIZE, BLK_IOERR);
	expect(blk, "read at sector 2^64-1", BLK_READ, -1ul, 2 * SECTOR_SIZE, BLK_IOERR);
	if (!blk->read_only)
		expect(blk, "write past the end", BLK_WRITE, blk->capacity, SECTOR_SIZE, BLK_IOERR);
	else
		expect(blk, "write to a read-only device", BLK_WRITE, 0, SECTOR_SIZE, BLK_IOERR);
	expect(blk, "unknown type", UNKNOWN_TYPE, 0, SECTOR_SIZE, BLK_UNSUPPORTED);
	printf("blk: refusals ok\n");
}

void blk_test(struct blk *blk)
{
	struct range range = { .first = cmdline_number("first", 0),
			       .seed = cmdline_number("seed", 1) };
	bool write = !blk->read_only && !cmdline_flag("readonly");
	u64 checksum;

	range.end = range.first + cmdline_number("sectors", 64);
	if (range.end > blk->capacity)
		range.end = blk->capacity;

	print_id(blk);
	if (write) {
		write_pattern(blk, &range);
		if (blk->device->features & BLK_FEATURE_FLUSH) {
			expect(blk, "flush", BLK_FLUSH, 0, 0, BLK_OK);
			printf("blk: flushed\n");
		}
	}
	checksum = read_back(blk, &range, write);
	check_refusals(blk);
	printf("blk: ok sectors=%lu written=%u checksum=%016lx kicks=%lu interrupts=%u\n",
	       range.end - range.first, write, checksum, blk->queue->kicks,
	       blk->device->interrupts);
}
