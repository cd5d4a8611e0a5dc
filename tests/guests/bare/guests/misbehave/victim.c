/* The virtio device that is misused, and how it is put right again. */
#include "misbehave.h"

#define PATIENCE_TSC	300000000ul	/* 60 to 300 ms */
#define SECTOR_SIZE	512

NOINIT struct virtqueue victim_queue;

static NOINIT u8 sector[SECTOR_SIZE];
static struct {
	u32 type, reserved;
	u64 sector;
} read_request;
static volatile u8 read_status;

static void find(struct virtio_device *device)
{
	u64 wanted = cmdline_number("slot", virtio_slots());

	for (u32 slot = 0; slot < virtio_slots(); slot++)
		if ((wanted == slot || wanted >= virtio_slots()) && virtio_probe(device, slot))
			return;
	panic("misbehave: no virtio device");
}

struct virtio_device *victim(void)
{
	static struct virtio_device device;

	if (device.base == 0) {
		find(&device);
		device.polling = true;
		printf("  slot=%u device=%u\n", device.slot, device.device_id);
	}
	return &device;
}

u32 victim_status(void)
{
	return virtio_read(victim(), VIRTIO_STATUS);
}

void victim_negotiate(void)
{
	virtio_start(victim(), 0);
}

void victim_start(void)
{
	victim_negotiate();
	if (!virtqueue_setup(&victim_queue, victim(), 0, QUEUE_MAX))
		panic("misbehave: no queue 0");
	virtio_write(victim(), VIRTIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER |
					      STATUS_FEATURES_OK | STATUS_DRIVER_OK);
}

const char *victim_reaction(void)
{
	u64 start = rdtsc();

	while (rdtsc() - start < PATIENCE_TSC) {
		if (victim_queue.split.used.index != victim_queue.split.last_used)
			return "used";
		if (victim_status() & STATUS_NEEDS_RESET)
			return "needs-reset";
		pause();
	}
	return "ignored";
}

static bool read_sector(void)
{
	const struct buffer buffers[] = {
		{ &read_request, sizeof(read_request), false },
		{ sector, sizeof(sector), true },
		{ (void *)&read_status, 1, true },
	};
	struct used_chain chain;

	read_status = 0xff;
	virtqueue_add(&victim_queue, buffers, ARRAY_SIZE(buffers));
	virtqueue_kick(&victim_queue);
	victim_reaction();
	return virtqueue_take(&victim_queue, &chain) && read_status == 0;
}

bool victim_recover(void)
{
	bool works;

	victim_start();
	works = victim()->device_id == DEVICE_BLK ? read_sector() :
						    !(victim_status() & STATUS_NEEDS_RESET);
	printf("  %s: status %02x\n", works ? "works again" : "BROKEN", victim_status());
	virtio_reset(victim());
	return works;
}
