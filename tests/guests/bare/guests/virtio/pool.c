#include "pool.h"

#include "power.h"
#include "string.h"

#define GUARD	0x5a

void pool_start(struct pool *pool, struct virtio_device *device, u32 number, const char *name,
		bool device_writes)
{
	pool->name = name;
	pool->device_writes = device_writes;
	pool->submitted = pool->completed = 0;
	memset(pool->is_out, 0, sizeof(pool->is_out));
	for (u32 i = 0; i < QUEUE_MAX; i++)
		pool->owner[i] = -1;
	for (u32 i = 0; i < POOL_BUFFERS; i++)
		memset(pool->buffers[i] + POOL_BYTES, GUARD, POOL_GUARD);
	if (!virtqueue_setup(&pool->queue, device, number, POOL_BUFFERS))
		panic("%s: no queue %u", name, number);
}

void pool_give(struct pool *pool, u32 index, u32 length)
{
	struct buffer buffer = { pool->buffers[index], length, pool->device_writes };
	s32 head = virtqueue_add(&pool->queue, &buffer, 1);

	if (head < 0)
		panic("%s: queue full", pool->name);
	if (pool->owner[head] >= 0 || pool->is_out[index])
		panic("%s: chain %d or buffer %u is in use", pool->name, head, index);
	pool->owner[head] = index;
	pool->is_out[index] = true;
	pool->submitted++;
}

s32 pool_take(struct pool *pool, u32 *length)
{
	struct used_chain chain;
	s32 index;

	if (!virtqueue_take(&pool->queue, &chain))
		return -1;
	index = pool->owner[chain.id];
	if (index < 0)
		panic("%s: chain %u came back twice", pool->name, chain.id);
	pool->owner[chain.id] = -1;
	pool->is_out[index] = false;
	pool->completed++;
	if (chain.length > (pool->device_writes ? POOL_BYTES : 0))
		panic("%s: %u bytes were written", pool->name, chain.length);
	for (u32 i = POOL_BYTES; i < POOL_BYTES + POOL_GUARD; i++)
		if (pool->buffers[index][i] != GUARD)
			panic("%s: byte %u of buffer %d was written", pool->name, i, index);
	*length = chain.length;
	return index;
}

u32 pool_out(const struct pool *pool)
{
	u32 out = 0;

	for (u32 i = 0; i < POOL_BUFFERS; i++)
		out += pool->is_out[i];
	return out;
}

void pool_audit(const struct pool *pool)
{
	const struct virtqueue *queue = &pool->queue;
	u32 out = pool_out(pool);

	if (pool->submitted - pool->completed != out || !virtqueue_audit(queue, out))
		panic("%s: submitted %lu completed %lu out %u free %u of %u", pool->name,
		      pool->submitted, pool->completed, out, queue->free_count, queue->size);
}
