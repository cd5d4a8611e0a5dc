/*
 * Drives every virtio-blk, -net and -rng device it finds, in ring 3 unless
 * `ring=0`, by interrupts unless `poll`. See ../../README.md for the rest.
 */
#include "virtio_guest.h"
#include "session.h"
#include "watchdog.h"

static struct virtio_device devices[VECTOR_COUNT];

u64 fnv(u64 hash, const void *data, usize size)
{
	const u8 *bytes = data;

	for (usize i = 0; i < size; i++)
		hash = (hash ^ bytes[i]) * 0x100000001b3ul;
	return hash;
}

/* Knuth's MMIX generator; its high bits are good enough. */
static u64 random_state = 1;

u32 next_random(void)
{
	random_state = random_state * 6364136223846793005ul + 1442695040888963407ul;
	return random_state >> 33;
}

void random_stir(void)
{
	random_state ^= rdtsc();
}

/* The devices there are, or the one that `slot=N` names. */
static u32 find_devices(void)
{
	u64 only = cmdline_number("slot", virtio_slots());
	u32 found = 0;

	for (u32 slot = 0; slot < virtio_slots(); slot++)
		if ((only == slot || only >= virtio_slots()) &&
		    virtio_probe(&devices[found], slot))
			found++;
	return found;
}

static void run_device(struct virtio_device *device)
{
	if (device->device_id == DEVICE_BLK)
		run_blk(device);
	else if (device->device_id == DEVICE_NET)
		run_net(device);
	else if (device->device_id == DEVICE_RNG)
		run_rng(device);
	else
		printf("virtio: slot=%u device=%u left alone\n", device->slot, device->device_id);
	virtio_reset(device);
}

int main(void)
{
	u64 ring = cmdline_number("ring", 3);
	char mode[8];
	u32 found;

	watchdog_start();
	if (ring == 3)
		enter_ring3();
	found = find_devices();
	cmdline_string("mode", "test", mode, sizeof(mode));
	if (string_equal(mode, "reset"))
		sessions_with_resets(devices, found);
	else if (string_equal(mode, "reboot"))
		sessions_with_reboots(devices, found);
	else if (string_equal(mode, "hold"))
		sessions_held(devices, found);
	else
		for (u32 i = 0; i < found; i++)
			run_device(&devices[i]);
	printf("virtio: done devices=%u\n", found);
	return found ? 0 : 1;
}
