/*
 * A queue whose chains are one buffer each, all of the same kind: what a device
 * may do to them is checked, and who has which is known at all times.
 */
#pragma once

#include "virtqueue.h"

#define POOL_BUFFERS	32
#define POOL_BYTES	2048
/* Bytes behind a buffer that nobody may touch. */
#define POOL_GUARD	64

struct pool {
	struct virtqueue queue;		/* first, so that it is on pages of its own */
	const char *name;
	bool device_writes;
	u64 submitted, completed;
	bool is_out[POOL_BUFFERS];	/* the device has it */
	s32 owner[QUEUE_MAX];		/* the buffer of the chain with this head; or -1 */
	u8 buffers[POOL_BUFFERS][POOL_BYTES + POOL_GUARD];
};

/* Sets queue `number` up; nothing is out. */
void pool_start(struct pool *pool, struct virtio_device *device, u32 number, const char *name,
		bool device_writes);

/* Makes buffer `index`, of `length` bytes, available. */
void pool_give(struct pool *pool, u32 index, u32 length);

/*
 * Takes a buffer that came back, and the length that the device wrote; -1 when
 * there is none. Panics when it was not out, or is damaged.
 */
s32 pool_take(struct pool *pool, u32 *length);

/* How many are out. */
u32 pool_out(const struct pool *pool);

/* Every chain that was made available is out or was used once. */
void pool_audit(const struct pool *pool);
