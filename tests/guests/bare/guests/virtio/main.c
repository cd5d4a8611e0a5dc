/*
 * Drives every virtio-blk, -net and -rng device it finds, in ring 3 unless
 * `ring=0`, by interrupts unless `poll`. See ../../README.md for the rest.
 */
#include "virtio_guest.h"
#include "watchdog.h"

u64 fnv(u64 hash, const void *data, usize size)
{
	const u8 *bytes = data;

	for (usize i = 0; i < size; i++)
		hash = (hash ^ bytes[i]) * 0x100000001b3ul;
	return hash;
}

static u32 run_devices(void)
{
	u64 only = cmdline_number("slot", virtio_slots());
	u32 found = 0;

	for (u32 slot = 0; slot < virtio_slots(); slot++) {
		static struct virtio_device devices[VECTOR_COUNT];
		struct virtio_device *device = &devices[slot];

		if ((only != slot && only < virtio_slots()) || !virtio_probe(device, slot))
			continue;
		if (device->device_id == DEVICE_BLK)
			run_blk(device);
		else if (device->device_id == DEVICE_NET)
			run_net(device);
		else if (device->device_id == DEVICE_RNG)
			run_rng(device);
		else
			printf("virtio: slot=%u device=%u left alone\n", slot, device->device_id);
		virtio_reset(device);
		found++;
	}
	return found;
}

int main(void)
{
	u64 ring = cmdline_number("ring", 3);
	u32 found;

	watchdog_start();
	interrupts_on();
	if (ring == 3)
		enter_ring3();
	found = run_devices();
	printf("virtio: done devices=%u\n", found);
	return found ? 0 : 1;
}
