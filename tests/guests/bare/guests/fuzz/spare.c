/* A disk that is used as it should be. */
#include "fuzz.h"

#include "virtqueue.h"

#define SECTOR_SIZE	512
#define SECTORS		64

static struct virtio_device disk;
static NOINIT struct virtqueue queue;
static NOINIT u64 data[SECTOR_SIZE / sizeof(u64)];
static struct {
	u32 type, reserved;
	u64 sector;
} request;
static volatile u8 status;

void spare_start(u32 slot)
{
	if (!virtio_probe(&disk, slot) || disk.device_id != DEVICE_BLK)
		panic("fuzz: no disk in slot %u", slot);
	disk.polling = true;
	virtio_start(&disk, 0);
	if (!virtqueue_setup(&queue, &disk, 0, QUEUE_MAX))
		panic("fuzz: the spare has no queue");
	virtio_write(&disk, VIRTIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER |
					   STATUS_FEATURES_OK | STATUS_DRIVER_OK);
}

void spare_read(struct source *source)
{
	const struct buffer buffers[] = {
		{ &request, sizeof(request), false },
		{ data, sizeof(data), true },
		{ (void *)&status, 1, true },
	};

	request.sector = draw_below(source, SECTORS);
	status = 0xff;
	memset(data, 0, sizeof(data));
	virtqueue_add(&queue, buffers, ARRAY_SIZE(buffers));
	virtqueue_kick(&queue);
	virtqueue_wait(&queue);
	if (status != 0)
		panic("fuzz: the spare's status is %u", status);
	for (u32 i = 0; i < ARRAY_SIZE(data); i++)
		if (data[i] != (request.sector * ARRAY_SIZE(data) + i) * 0x9e3779b97f4a7c15)
			panic("fuzz: the spare's sector %lu is not its own", request.sector);
}
