#include "virtio.h"

#include "apic.h"
#include "cmdline.h"
#include "io.h"
#include "power.h"
#include "traps.h"

#define FIRST_VECTOR	48
#define MAX_SLOTS	(VECTOR_COUNT - FIRST_VECTOR)
#define RESET_SPINS	1000000

static struct virtio_device *by_vector[MAX_SLOTS];

u32 virtio_read(const struct virtio_device *device, enum virtio_register reg)
{
	return read32(device->base + reg);
}

void virtio_write(const struct virtio_device *device, enum virtio_register reg, u32 value)
{
	write32(device->base + reg, value);
}

u32 virtio_slots(void)
{
	u64 slots = cmdline_number("slots", 8);

	return slots < MAX_SLOTS ? slots : MAX_SLOTS;
}

bool virtio_probe(struct virtio_device *device, u32 slot)
{
	device->base = cmdline_number("virtio", 0xd0000000) +
		       slot * cmdline_number("stride", 0x1000);
	device->slot = slot;
	device->interrupts = 0;
	if (virtio_read(device, VIRTIO_MAGIC) != VIRTIO_MAGIC_VALUE)
		return false;
	device->device_id = virtio_read(device, VIRTIO_DEVICE_ID);
	return device->device_id != 0;
}

u64 virtio_offered(const struct virtio_device *device)
{
	u64 features;

	virtio_write(device, VIRTIO_DEVICE_FEATURES_SEL, 1);
	features = (u64)virtio_read(device, VIRTIO_DEVICE_FEATURES) << 32;
	virtio_write(device, VIRTIO_DEVICE_FEATURES_SEL, 0);
	return features | virtio_read(device, VIRTIO_DEVICE_FEATURES);
}

void virtio_accept(const struct virtio_device *device, u64 features)
{
	virtio_write(device, VIRTIO_DRIVER_FEATURES_SEL, 0);
	virtio_write(device, VIRTIO_DRIVER_FEATURES, features);
	virtio_write(device, VIRTIO_DRIVER_FEATURES_SEL, 1);
	virtio_write(device, VIRTIO_DRIVER_FEATURES, features >> 32);
}

void virtio_reset(const struct virtio_device *device)
{
	virtio_write(device, VIRTIO_STATUS, 0);
	for (u32 spins = 0; virtio_read(device, VIRTIO_STATUS) != 0; spins++)
		if (spins == RESET_SPINS)
			panic("virtio: slot %u does not reset", device->slot);
}

void virtio_start(struct virtio_device *device, u64 wanted)
{
	u32 status = STATUS_ACKNOWLEDGE | STATUS_DRIVER;

	if (virtio_read(device, VIRTIO_VERSION) != 2)
		panic("virtio: slot %u has version %u, not 2", device->slot,
		      virtio_read(device, VIRTIO_VERSION));
	virtio_reset(device);
	virtio_write(device, VIRTIO_STATUS, STATUS_ACKNOWLEDGE);
	virtio_write(device, VIRTIO_STATUS, status);

	device->features = virtio_offered(device) & (wanted | FEATURE_VERSION_1);
	if (!(device->features & FEATURE_VERSION_1))
		panic("virtio: slot %u does not offer VERSION_1", device->slot);
	virtio_accept(device, device->features);

	status |= STATUS_FEATURES_OK;
	virtio_write(device, VIRTIO_STATUS, status);
	if (virtio_read(device, VIRTIO_STATUS) != status)
		panic("virtio: slot %u refuses features %lx, status %x", device->slot,
		      device->features, virtio_read(device, VIRTIO_STATUS));
}

static void on_interrupt(struct trap_frame *frame)
{
	struct virtio_device *device = by_vector[frame->vector - FIRST_VECTOR];
	u32 status = virtio_read(device, VIRTIO_INTERRUPT_STATUS);

	/* One from before a reset: nothing is pending any more. */
	if (!status)
		return;
	virtio_write(device, VIRTIO_INTERRUPT_ACK, status);
	device->interrupts++;
}

void virtio_driver_ok(struct virtio_device *device)
{
	u32 vector = FIRST_VECTOR + device->slot;

	device->polling = cmdline_flag("poll");
	if (!device->polling) {
		by_vector[device->slot] = device;
		traps_handle(vector, on_interrupt);
		ioapic_route(cmdline_number("gsi", 16) + device->slot, vector, lapic_id());
	}
	virtio_write(device, VIRTIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER |
					    STATUS_FEATURES_OK | STATUS_DRIVER_OK);
}

static u64 virtio_read64(const struct virtio_device *device, enum virtio_register low)
{
	return read32(device->base + low) | (u64)read32(device->base + low + 4) << 32;
}

void virtio_shared_memory(const struct virtio_device *device, u32 id, u64 *base, u64 *size)
{
	virtio_write(device, VIRTIO_SHM_SEL, id);
	*base = virtio_read64(device, VIRTIO_SHM_BASE);
	*size = virtio_read64(device, VIRTIO_SHM_LEN);
}

u64 virtio_config64(const struct virtio_device *device, u32 offset)
{
	u64 field = device->base + VIRTIO_CONFIG + offset;
	u32 generation;
	u64 value;

	do {
		generation = virtio_read(device, VIRTIO_CONFIG_GENERATION);
		value = read32(field) | (u64)read32(field + 4) << 32;
	} while (virtio_read(device, VIRTIO_CONFIG_GENERATION) != generation);
	return value;
}

u8 virtio_config8(const struct virtio_device *device, u32 offset)
{
	return read8(device->base + VIRTIO_CONFIG + offset);
}
