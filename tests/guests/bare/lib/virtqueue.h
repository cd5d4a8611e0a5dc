/* Split virtqueues (virtio 1.3, section 2.7). */
#pragma once

#include "types.h"
#include "virtio.h"

#define QUEUE_MAX	256
#define CHAIN_MAX	4

#define DESC_NEXT	1
#define DESC_WRITE	2	/* the device writes it */
#define DESC_INDIRECT	4

#define AVAIL_NO_INTERRUPT	1
#define USED_NO_NOTIFY		1

struct virtq_desc {
	u64 address;
	u32 length;
	u16 flags;
	u16 next;
};

struct virtq_avail {
	volatile u16 flags;
	volatile u16 index;
	u16 ring[QUEUE_MAX + 1];	/* used_event is behind the last entry */
};

struct virtq_used_element {
	u32 id;
	u32 length;
};

struct virtq_used {
	volatile u16 flags;
	volatile u16 index;
	struct virtq_used_element ring[QUEUE_MAX + 1];	/* avail_event is behind the last */
};

/* One queue, rings and all: put it into NOINIT memory. */
struct virtqueue {
	struct virtq_desc desc[QUEUE_MAX] __attribute__((aligned(4096)));
	struct virtq_avail avail __attribute__((aligned(4096)));
	struct virtq_used used __attribute__((aligned(4096)));
	struct virtq_desc indirect[QUEUE_MAX][CHAIN_MAX];

	struct virtio_device *device;
	u32 number;
	u32 size;
	u16 free_head;
	u16 free_count;
	u16 last_used;
	u16 last_kick;		/* available index at the last virtqueue_kick() */
	u64 kicks;
};

/* A piece of a request; those the device writes stand behind those it reads. */
struct buffer {
	void *data;
	u32 length;
	bool device_writes;
};

/*
 * Sets up queue `number` with min(`size`, what the device allows) entries and
 * makes it ready. False when the device has no such queue.
 */
bool virtqueue_setup(struct virtqueue *queue, struct virtio_device *device, u32 number, u32 size);

/* Tells the device where the rings are, and QueueReady. */
void virtqueue_publish(const struct virtqueue *queue);

/*
 * Makes a chain of up to CHAIN_MAX buffers available. Returns its head, which
 * comes back in the used ring, or -1 when the queue is full.
 */
s32 virtqueue_add(struct virtqueue *queue, const struct buffer *buffers, u32 count);

/* Notifies the device of what was added, if it wants to know. */
void virtqueue_kick(struct virtqueue *queue);

/* Whether the device has finished something that was not taken yet. */
bool virtqueue_pending(const struct virtqueue *queue);

/* Takes the next finished chain; false when there is none. */
bool virtqueue_take(struct virtqueue *queue, struct virtq_used_element *element);

/* The same, waiting for one: by interrupts, or polling. */
struct virtq_used_element virtqueue_wait(struct virtqueue *queue);

/*
 * Waits until one of `count` queues of a device has something pending: by
 * interrupts, or polling.
 */
void virtqueue_wait_any(struct virtqueue *const *queues, u32 count);
