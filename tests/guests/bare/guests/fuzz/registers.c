/* Accesses of any width to the devices' windows. */
#include "fuzz.h"

#define WINDOW		0x1000

/* Where a queue's addresses are written: fuzz_setup() decides what may stand there. */
#define ADDRESSES	VIRTIO_QUEUE_DESC
#define ADDRESSES_END	VIRTIO_SHM_SEL

static u32 draw_offset(struct source *source)
{
	switch (draw_below(source, 4)) {
	case 0:
		return draw_below(source, WINDOW);
	case 1:
		return VIRTIO_CONFIG + draw_below(source, 0x100);
	default:
		return draw_below(source, VIRTIO_CONFIG / 4) * 4;
	}
}

static void write(u64 address, u32 width, u64 value)
{
	if (width == 1)
		write8(address, value);
	else if (width == 2)
		write16(address, value);
	else if (width == 4)
		write32(address, value);
	else
		write64(address, value);
}

static void read(u64 address, u32 width)
{
	if (width == 1)
		read8(address);
	else if (width == 2)
		read16(address);
	else if (width == 4)
		read32(address);
	else
		read64(address);
}

void fuzz_register(struct source *source)
{
	struct virtio_device *device = target(draw_below(source, targets_count()));
	u32 width = draw_chance(source, 70) ? 4 : 1u << draw_below(source, 4);
	u32 offset = draw_offset(source);
	bool is_address = offset + width > ADDRESSES && offset < ADDRESSES_END;

	/* The window behind may be the spare's. */
	if (offset + width > WINDOW)
		offset = WINDOW - width;
	if (draw_chance(source, 50) && !is_address)
		write(device->base + offset, width, draw_value(source));
	else
		read(device->base + offset, width);
}
