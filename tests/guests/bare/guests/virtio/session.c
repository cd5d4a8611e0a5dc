#include "session.h"

#include "virtio_guest.h"

static u32 session(struct virtio_device *device)
{
	switch (device->device_id) {
	case DEVICE_BLK:
		return blk_session(device);
	case DEVICE_NET:
	case DEVICE_CONSOLE:
	case DEVICE_RNG:
		return stream_session(device);
	case DEVICE_FS:
		return fs_session(device);
	default:
		panic("session: slot %u has a device of type %u", device->slot, device->device_id);
		return 0;
	}
}

void sessions_with_resets(struct virtio_device *devices, u32 count)
{
	u64 resets = cmdline_number("resets", 100);

	random_stir();
	for (u32 i = 0; i < count; i++) {
		struct virtio_device *device = &devices[i];
		u64 in_flight = 0;

		for (u64 n = 0; n < resets; n++) {
			in_flight += session(device);
			virtio_reset(device);
		}
		/* The last one as well left the device able to work. */
		session(device);
		virtio_reset(device);
		printf("reset: ok device=%u resets=%lu in_flight=%lu\n", device->device_id, resets,
		       in_flight);
	}
}

static u32 session_with_each(struct virtio_device *devices, u32 count)
{
	u32 in_flight = 0;

	random_stir();
	for (u32 i = 0; i < count; i++)
		in_flight += session(&devices[i]);
	return in_flight;
}

void sessions_with_reboots(struct virtio_device *devices, u32 count)
{
	bool stop = console_take();
	u32 in_flight = session_with_each(devices, count);

	if (!stop) {
		printf("reboot: in_flight=%u\n", in_flight);
		reboot();
	}
	for (u32 i = 0; i < count; i++)
		virtio_reset(&devices[i]);
	printf("reboot: ok\n");
}

void sessions_held(struct virtio_device *devices, u32 count)
{
	printf("hold: in_flight=%u\n", session_with_each(devices, count));
	for (;;)
		__asm__ volatile("pause");
}
