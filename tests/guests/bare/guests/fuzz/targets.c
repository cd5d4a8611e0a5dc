/* The devices that are misused. */
#include "fuzz.h"

static struct virtio_device targets[TARGETS_MAX];
static u32 count;

void targets_find(u32 spare)
{
	for (u32 slot = 0; slot < virtio_slots() && count < TARGETS_MAX; slot++)
		if (slot != spare && virtio_probe(&targets[count], slot))
			count++;
	if (count == 0)
		panic("fuzz: no virtio device");
}

u32 targets_count(void)
{
	return count;
}

struct virtio_device *target(u32 number)
{
	return &targets[number];
}
