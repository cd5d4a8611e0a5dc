/*
 * Writes, reads and flushes on `queues=N` (4) queues with `depth=D` (16) in
 * flight on each, until a byte comes on the console; then reads all back.
 *
 * A place in a queue has blocks of its own and one request at a time, so that
 * what a block must hold is always known. It is written again and again: a
 * request that is carried out twice, and late, puts an older content back.
 */
#include "virtio_guest.h"

#define QUEUES_MAX	8
#define DEPTH_MAX	16
#define BLOCKS		8	/* of each place */
#define SECTORS_A_BLOCK	(BLK_DATA / SECTOR_SIZE)
#define WORDS_A_BLOCK	(BLK_DATA / 8)
#define HEADER_SIZE	16

#define CONFIG_CAPACITY	0
#define CONFIG_QUEUES	34

/* Looking at the console costs an exit. */
#define REQUESTS_A_LOOK	64

struct place {
	struct {
		u32 type;
		u32 reserved;
		u64 sector;
		volatile u8 status;
	} request;
	u8 *data;
	u64 first_block;
	u32 block;			/* that the request is about, of its own ones */
	u32 generation[BLOCKS];		/* of the last write of each; 0: none */
};

struct lane {
	struct virtqueue *queue;
	struct place places[DEPTH_MAX];
	struct place *owner[QUEUE_MAX];	/* of the chain with this head; or none */
	u64 submitted, completed;
};

static NOINIT struct virtqueue rings[QUEUES_MAX];
static struct virtqueue *queues[QUEUES_MAX];
static NOINIT u8 data[QUEUES_MAX][DEPTH_MAX][BLK_DATA];
static struct lane lanes[QUEUES_MAX];
static u32 lane_count, depth;
static u64 writes, reads, flushes;

static u64 pattern(u64 block, u32 generation, u32 word)
{
	return ((block << 32 | generation) * WORDS_A_BLOCK + word) * 0x9e3779b97f4a7c15ul;
}

static void fill(struct place *place)
{
	u64 *words = (u64 *)place->data;

	for (u32 i = 0; i < WORDS_A_BLOCK; i++)
		words[i] = pattern(place->first_block + place->block,
				   place->generation[place->block], i);
}

static void compare(const struct place *place)
{
	const u64 *words = (const u64 *)place->data;
	u64 block = place->first_block + place->block;
	u32 generation = place->generation[place->block];

	for (u32 i = 0; i < WORDS_A_BLOCK; i++)
		if (words[i] != pattern(block, generation, i))
			panic("storm: block %lu word %u is %lx, not %lx of generation %u", block,
			      i, words[i], pattern(block, generation, i), generation);
}

static void submit(struct lane *lane, struct place *place, u32 type)
{
	struct buffer buffers[3];
	u32 count = 0;
	s32 head;

	place->request.type = type;
	place->request.sector =
		type == BLK_FLUSH ? 0 : (place->first_block + place->block) * SECTORS_A_BLOCK;
	place->request.status = BLK_NO_ANSWER;
	buffers[count++] = (struct buffer){ &place->request, HEADER_SIZE, false };
	if (type != BLK_FLUSH)
		buffers[count++] = (struct buffer){ place->data, BLK_DATA, type == BLK_READ };
	buffers[count++] = (struct buffer){ (void *)&place->request.status, 1, true };

	head = virtqueue_add(lane->queue, buffers, count);
	if (head < 0)
		panic("storm: queue %u full", lane->queue->number);
	if (lane->owner[head])
		panic("storm: queue %u: chain %u is in use", lane->queue->number, head);
	lane->owner[head] = place;
	lane->submitted++;
}

static void submit_any(struct lane *lane, struct place *place)
{
	u32 random = next_random();

	place->block = random / 64 % BLOCKS;
	if (random % 32 == 0) {
		flushes++;
		submit(lane, place, BLK_FLUSH);
	} else if (random % 2 || !place->generation[place->block]) {
		writes++;
		place->generation[place->block]++;
		fill(place);
		submit(lane, place, BLK_WRITE);
	} else {
		reads++;
		memset(place->data, 0xee, BLK_DATA);
		submit(lane, place, BLK_READ);
	}
}

/* Takes a finished request and checks it; none when there is none. */
static struct place *complete(struct lane *lane)
{
	struct used_chain chain;
	struct place *place;
	u32 number = lane->queue->number, length = 1;

	if (!virtqueue_take(lane->queue, &chain))
		return NULL;
	place = lane->owner[chain.id];
	if (!place)
		panic("storm: queue %u: chain %u came back twice", number, chain.id);
	lane->owner[chain.id] = NULL;
	lane->completed++;
	if (place->request.status != BLK_OK)
		panic("storm: queue %u: type %u at sector %lu gives status %u", number,
		      place->request.type, place->request.sector, place->request.status);
	if (place->request.type == BLK_READ) {
		length += BLK_DATA;
		compare(place);
	}
	if (chain.length != length)
		panic("storm: queue %u: type %u wrote %u bytes", number, place->request.type,
		      chain.length);
	return place;
}

static void set_up(struct virtio_device *device)
{
	u64 capacity;
	u32 offered;

	virtio_start(device, BLK_FEATURE_FLUSH | BLK_FEATURE_MQ | virtqueue_features());
	capacity = virtio_config64(device, CONFIG_CAPACITY);
	/* Without the feature there is one, and the field means nothing (5.2.4). */
	offered = 1;
	if (device->features & BLK_FEATURE_MQ)
		offered = virtio_config8(device, CONFIG_QUEUES) |
			  virtio_config8(device, CONFIG_QUEUES + 1) << 8;
	lane_count = cmdline_number("queues", 4);
	depth = cmdline_number("depth", DEPTH_MAX);
	if (offered < lane_count)
		panic("storm: the device has %u queues, not %u", offered, lane_count);
	if (!lane_count || lane_count > QUEUES_MAX || !depth || depth > DEPTH_MAX ||
	    capacity < (u64)lane_count * depth * BLOCKS * SECTORS_A_BLOCK)
		panic("storm: queues %u, depth %u, capacity %lu", lane_count, depth, capacity);
	for (u32 i = 0; i < lane_count; i++) {
		struct lane *lane = &lanes[i];

		lane->queue = queues[i] = &rings[i];
		if (!virtqueue_setup(lane->queue, device, i, QUEUE_MAX))
			panic("storm: no queue %u", i);
		for (u32 j = 0; j < depth; j++) {
			lane->places[j].data = data[i][j];
			lane->places[j].first_block = (i * depth + j) * BLOCKS;
		}
	}
	virtio_driver_ok(device);
}

/* Until told to stop, keeps every place busy; returns with none. */
static void storm(void)
{
	bool stop = false;
	u64 looked = 0, completed = 0, busy = lane_count * depth;

	for (u32 i = 0; i < lane_count; i++) {
		for (u32 j = 0; j < depth; j++)
			submit_any(&lanes[i], &lanes[i].places[j]);
		virtqueue_kick(lanes[i].queue);
	}
	while (busy) {
		struct place *place;

		virtqueue_wait_any(queues, lane_count);
		for (u32 i = 0; i < lane_count; i++) {
			/* A fast device never lets a queue run empty: each has its turn. */
			for (u32 n = 0; n < depth; n++) {
				place = complete(&lanes[i]);
				if (!place)
					break;
				completed++;
				if (stop)
					busy--;
				else
					submit_any(&lanes[i], place);
			}
			virtqueue_kick(lanes[i].queue);
		}
		if (!stop && completed - looked >= REQUESTS_A_LOOK) {
			looked = completed;
			stop = console_take();
		}
	}
}

/* Reads every block that was ever written, one at a time. */
static void read_back(struct lane *lane)
{
	for (u32 j = 0; j < depth * BLOCKS; j++) {
		struct place *place = &lane->places[j / BLOCKS];

		place->block = j % BLOCKS;
		if (!place->generation[place->block])
			continue;
		reads++;
		submit(lane, place, BLK_READ);
		virtqueue_kick(lane->queue);
		virtqueue_wait_any(&lane->queue, 1);
		if (complete(lane) != place)
			panic("storm: queue %u: another's answer", lane->queue->number);
	}
}

/* Every chain that was made available was used once. */
static void audit(const struct lane *lane)
{
	const struct virtqueue *queue = lane->queue;

	if (lane->submitted != lane->completed || !virtqueue_audit(queue, 0))
		panic("storm: queue %u: submitted %lu completed %lu free %u of %u", queue->number,
		      lane->submitted, lane->completed, queue->free_count, queue->size);
	printf("storm: queue=%u requests=%lu kicks=%lu\n", queue->number, lane->completed,
	       queue->kicks);
}

void blk_storm(struct virtio_device *device)
{
	set_up(device);
	printf("storm: start queues=%u depth=%u features=%lx\n", lane_count, depth,
	       device->features);
	storm();
	for (u32 i = 0; i < lane_count; i++)
		read_back(&lanes[i]);
	for (u32 i = 0; i < lane_count; i++)
		audit(&lanes[i]);
	printf("storm: ok writes=%lu reads=%lu flushes=%lu interrupts=%u\n", writes, reads,
	       flushes, device->interrupts);
}
