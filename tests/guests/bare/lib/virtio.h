/* A driver's side of virtio-mmio, version 2 (virtio 1.3, section 4.2.2). */
#pragma once

#include "types.h"

enum virtio_register {
	VIRTIO_MAGIC = 0x000,
	VIRTIO_VERSION = 0x004,
	VIRTIO_DEVICE_ID = 0x008,
	VIRTIO_VENDOR_ID = 0x00c,
	VIRTIO_DEVICE_FEATURES = 0x010,
	VIRTIO_DEVICE_FEATURES_SEL = 0x014,
	VIRTIO_DRIVER_FEATURES = 0x020,
	VIRTIO_DRIVER_FEATURES_SEL = 0x024,
	VIRTIO_QUEUE_SEL = 0x030,
	VIRTIO_QUEUE_SIZE_MAX = 0x034,
	VIRTIO_QUEUE_SIZE = 0x038,
	VIRTIO_QUEUE_READY = 0x044,
	VIRTIO_QUEUE_NOTIFY = 0x050,
	VIRTIO_INTERRUPT_STATUS = 0x060,
	VIRTIO_INTERRUPT_ACK = 0x064,
	VIRTIO_STATUS = 0x070,
	VIRTIO_QUEUE_DESC = 0x080,	/* low half; the high half is at +4 */
	VIRTIO_QUEUE_DRIVER = 0x090,
	VIRTIO_QUEUE_DEVICE = 0x0a0,
	VIRTIO_SHM_SEL = 0x0ac,
	VIRTIO_SHM_LEN = 0x0b0,		/* low half; the high half is at +4 */
	VIRTIO_SHM_BASE = 0x0b8,
	VIRTIO_CONFIG_GENERATION = 0x0fc,
	VIRTIO_CONFIG = 0x100,
};

#define VIRTIO_MAGIC_VALUE	0x74726976	/* "virt" */

#define STATUS_ACKNOWLEDGE	0x01
#define STATUS_DRIVER		0x02
#define STATUS_DRIVER_OK	0x04
#define STATUS_FEATURES_OK	0x08
#define STATUS_NEEDS_RESET	0x40
#define STATUS_FAILED		0x80

#define FEATURE_INDIRECT	(1ul << 28)
#define FEATURE_EVENT_IDX	(1ul << 29)
#define FEATURE_VERSION_1	(1ul << 32)
#define FEATURE_PACKED		(1ul << 34)

#define DEVICE_NET	1
#define DEVICE_BLK	2
#define DEVICE_CONSOLE	3
#define DEVICE_RNG	4
#define DEVICE_FS	26

struct virtio_device {
	u64 base;
	u32 slot;
	u32 device_id;
	u64 features;		/* those accepted */
	bool polling;
	volatile u32 interrupts;
};

u32 virtio_read(const struct virtio_device *device, enum virtio_register reg);
void virtio_write(const struct virtio_device *device, enum virtio_register reg, u32 value);

/* How many slots there are to probe: `slots=N` on the command line, or 8. */
u32 virtio_slots(void);

/*
 * Looks at slot `slot`: `virtio=ADDRESS` (0xd0000000) plus `stride=BYTES`
 * (0x1000) a slot. False when no device is there. Touches nothing.
 */
bool virtio_probe(struct virtio_device *device, u32 slot);

/* What the device offers. */
u64 virtio_offered(const struct virtio_device *device);

/* Writes what the driver accepts. */
void virtio_accept(const struct virtio_device *device, u64 features);

/* Writes 0 to Status and waits for it to read 0. */
void virtio_reset(const struct virtio_device *device);

/*
 * Reset up to FEATURES_OK (section 3.1.1, steps 1 to 6), accepting those of
 * `wanted` that are offered, and VERSION_1. Panics if the device refuses.
 */
void virtio_start(struct virtio_device *device, u64 wanted);

/*
 * Step 8: DRIVER_OK, and from then on interrupts through GSI `gsi=N` (16)
 * plus the slot number, unless `poll` is on the command line.
 */
void virtio_driver_ok(struct virtio_device *device);

/* Where shared memory region `id` is; ~0 where there is none (section 2.10). */
void virtio_shared_memory(const struct virtio_device *device, u32 id, u64 *base, u64 *size);

/* A 64-bit field of the configuration space, read consistently (2.5.1). */
u64 virtio_config64(const struct virtio_device *device, u32 offset);
u8 virtio_config8(const struct virtio_device *device, u32 offset);
