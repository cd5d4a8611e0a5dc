/* A virtio-blk driver (virtio 1.3, section 5.2) for one queue. */
#include "virtio_guest.h"

struct request {
	u32 type;
	u32 reserved;
	u64 sector;
	volatile u8 status;
};

#define HEADER_SIZE	16
#define CONFIG_CAPACITY	0

static NOINIT struct virtqueue queue;
static NOINIT u8 data[BLK_SLOTS][BLK_DATA];
static struct request requests[BLK_SLOTS];

/* Which request slot a chain's head belongs to. */
static u32 slot_of_head[QUEUE_MAX];

u8 *blk_data(u32 slot)
{
	return data[slot];
}

bool blk_submit(struct blk *blk, u32 slot, u32 type, u64 sector, u32 length)
{
	struct request *request = &requests[slot];
	struct buffer buffers[3];
	u32 count = 0;
	s32 head;

	request->type = type;
	request->sector = sector;
	request->status = BLK_NO_ANSWER;
	buffers[count++] = (struct buffer){ request, HEADER_SIZE, false };
	if (length)
		buffers[count++] = (struct buffer){ data[slot], length, type != BLK_WRITE };
	buffers[count++] = (struct buffer){ (void *)&request->status, 1, true };

	head = virtqueue_add(blk->queue, buffers, count);
	if (head < 0)
		return false;
	slot_of_head[head] = slot;
	return true;
}

u32 blk_complete(struct blk *blk, enum blk_status *status)
{
	u32 slot = slot_of_head[virtqueue_wait(blk->queue).id];

	*status = requests[slot].status;
	return slot;
}

void blk_start(struct blk *blk, struct virtio_device *device)
{
	blk->device = device;
	blk->queue = &queue;
	virtio_start(device, BLK_FEATURE_RO | BLK_FEATURE_FLUSH | virtqueue_features());
	blk->capacity = virtio_config64(device, CONFIG_CAPACITY);
	blk->read_only = device->features & BLK_FEATURE_RO;
	if (!virtqueue_setup(&queue, device, 0, cmdline_number("queue_size", QUEUE_MAX)))
		panic("blk: no queue 0");
	virtio_driver_ok(device);
}

void run_blk(struct virtio_device *device)
{
	struct blk blk;
	char mode[8];

	cmdline_string("mode", "test", mode, sizeof(mode));
	if (string_equal(mode, "storm")) {
		blk_storm(device);
		return;
	}
	blk_start(&blk, device);
	printf("blk: slot=%u capacity=%lu features=%lx queue_size=%u\n", device->slot,
	       blk.capacity, device->features, queue.size);

	if (string_equal(mode, "bench"))
		blk_bench(&blk);
	else
		blk_test(&blk);
}
