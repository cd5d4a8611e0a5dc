/* Virtqueues, split or packed as the driver has accepted (virtio 1.3, 2.7 and 2.8). */
#pragma once

#include "types.h"
#include "virtio.h"
#include "virtqueue_packed.h"
#include "virtqueue_split.h"

struct virtqueue_format;

/* One queue, rings and all: put it into NOINIT memory. */
struct virtqueue {
	union {
		struct split_rings split;
		struct packed_rings packed;
	};
	const struct virtqueue_format *format;
	struct virtio_device *device;
	u32 number;
	u32 size;
	u16 free_count;		/* descriptors */
	u64 kicks;
};

/* A chain that the device has finished. */
struct used_chain {
	u32 id;
	u32 length;
};

/* A piece of a request; those the device writes stand behind those it reads. */
struct buffer {
	void *data;
	u32 length;
	bool device_writes;
};

/* What a format makes of an empty queue, a chain that fits, and so on. */
struct virtqueue_format {
	void (*start)(struct virtqueue *queue);
	/* Descriptor area, driver area and device area (section 2.6). */
	const void *(*area)(const struct virtqueue *queue, u32 number);
	u16 (*add)(struct virtqueue *queue, const struct buffer *buffers, u32 count);
	/* Whether the device wants to know of what was added since this was asked last. */
	bool (*wants_kick)(struct virtqueue *queue);
	bool (*pending)(const struct virtqueue *queue);
	struct used_chain (*take)(struct virtqueue *queue);
	/* At the next chain that is used, or never. */
	void (*want_interrupt)(struct virtqueue *queue, bool wanted);
	u32 (*in_flight)(const struct virtqueue *queue);
};

extern const struct virtqueue_format virtqueue_split, virtqueue_packed;

/* The features of queues that the command line asks for: `indirect`, `event_idx`, `packed`. */
u64 virtqueue_features(void);

/* Whether the driver has accepted `feature`. */
bool virtqueue_has(const struct virtqueue *queue, u64 feature);

/*
 * Sets up queue `number` with min(`size`, what the device allows) entries and
 * makes it ready. False when the device has no such queue.
 */
bool virtqueue_setup(struct virtqueue *queue, struct virtio_device *device, u32 number, u32 size);

/*
 * Makes a chain of up to CHAIN_MAX buffers available. Returns its id, which
 * comes back when it is used, or -1 when the queue is full.
 */
s32 virtqueue_add(struct virtqueue *queue, const struct buffer *buffers, u32 count);

/* Notifies the device of what was added, if it wants to know. */
void virtqueue_kick(struct virtqueue *queue);

/* Whether the device has finished something that was not taken yet. */
bool virtqueue_pending(const struct virtqueue *queue);

/* Takes the next finished chain; false when there is none. */
bool virtqueue_take(struct virtqueue *queue, struct used_chain *chain);

/* The same, waiting for one: by interrupts, or polling. */
struct used_chain virtqueue_wait(struct virtqueue *queue);

/*
 * Waits until one of `count` queues of a device has something pending: by
 * interrupts, or polling.
 */
void virtqueue_wait_any(struct virtqueue *const *queues, u32 count);

/* How many chains the device has not finished. */
u32 virtqueue_in_flight(const struct virtqueue *queue);

/*
 * Whether the driver has taken all that the device finished, and `out` descriptors are
 * in flight, in chains of one.
 */
bool virtqueue_audit(const struct virtqueue *queue, u32 out);
