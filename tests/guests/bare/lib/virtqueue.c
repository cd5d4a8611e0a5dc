#include "virtqueue.h"

#include "cmdline.h"
#include "io.h"
#include "power.h"
#include "string.h"
#include "traps.h"

u64 virtqueue_features(void)
{
	return (cmdline_flag("indirect") ? FEATURE_INDIRECT : 0) |
	       (cmdline_flag("event_idx") ? FEATURE_EVENT_IDX : 0) |
	       (cmdline_flag("packed") ? FEATURE_PACKED : 0);
}

bool virtqueue_has(const struct virtqueue *queue, u64 feature)
{
	return (queue->device->features & feature) != 0;
}

static void publish(const struct virtqueue *queue)
{
	static const enum virtio_register areas[] = { VIRTIO_QUEUE_DESC, VIRTIO_QUEUE_DRIVER,
						      VIRTIO_QUEUE_DEVICE };
	const struct virtio_device *device = queue->device;

	virtio_write(device, VIRTIO_QUEUE_SEL, queue->number);
	virtio_write(device, VIRTIO_QUEUE_SIZE, queue->size);
	for (u32 i = 0; i < ARRAY_SIZE(areas); i++) {
		u64 address = (u64)queue->format->area(queue, i);

		virtio_write(device, areas[i], address);
		virtio_write(device, areas[i] + 4, address >> 32);
	}
	virtio_write(device, VIRTIO_QUEUE_READY, 1);
}

bool virtqueue_setup(struct virtqueue *queue, struct virtio_device *device, u32 number, u32 size)
{
	u32 max;

	virtio_write(device, VIRTIO_QUEUE_SEL, number);
	max = virtio_read(device, VIRTIO_QUEUE_SIZE_MAX);
	if (max == 0 || virtio_read(device, VIRTIO_QUEUE_READY) != 0)
		return false;

	memset(queue, 0, sizeof(*queue));
	queue->device = device;
	queue->format = virtqueue_has(queue, FEATURE_PACKED) ? &virtqueue_packed :
							       &virtqueue_split;
	queue->number = number;
	queue->size = size < max ? size : max;
	queue->free_count = queue->size;
	queue->format->start(queue);
	publish(queue);
	if (virtio_read(device, VIRTIO_QUEUE_READY) != 1)
		panic("virtio: queue %u does not become ready", number);
	return true;
}

s32 virtqueue_add(struct virtqueue *queue, const struct buffer *buffers, u32 count)
{
	u32 taken = virtqueue_has(queue, FEATURE_INDIRECT) ? 1 : count;

	if (queue->free_count < taken)
		return -1;
	queue->free_count -= taken;
	return queue->format->add(queue, buffers, count);
}

void virtqueue_kick(struct virtqueue *queue)
{
	if (!queue->format->wants_kick(queue))
		return;
	queue->kicks++;
	virtio_write(queue->device, VIRTIO_QUEUE_NOTIFY, queue->number);
}

bool virtqueue_pending(const struct virtqueue *queue)
{
	return queue->format->pending(queue);
}

bool virtqueue_take(struct virtqueue *queue, struct used_chain *chain)
{
	if (!virtqueue_pending(queue))
		return false;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	*chain = queue->format->take(queue);
	return true;
}

struct used_chain virtqueue_wait(struct virtqueue *queue)
{
	struct used_chain chain;

	while (!virtqueue_take(queue, &chain))
		virtqueue_wait_any(&queue, 1);
	return chain;
}

static bool any_pending(struct virtqueue *const *queues, u32 count)
{
	for (u32 i = 0; i < count; i++)
		if (virtqueue_pending(queues[i]))
			return true;
	return false;
}

void virtqueue_wait_any(struct virtqueue *const *queues, u32 count)
{
	struct virtio_device *device = queues[0]->device;

	for (;;) {
		u32 seen = device->interrupts;

		if (any_pending(queues, count))
			return;
		for (u32 i = 0; i < count; i++)
			queues[i]->format->want_interrupt(queues[i], !device->polling);
		/* The wish must be visible before the rings are looked at again. */
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (device->polling)
			pause();
		else if (!any_pending(queues, count))
			wait_while_equal(&device->interrupts, seen);
	}
}

u32 virtqueue_in_flight(const struct virtqueue *queue)
{
	return queue->format->in_flight(queue);
}

bool virtqueue_audit(const struct virtqueue *queue, u32 out)
{
	return queue->free_count == queue->size - out && virtqueue_in_flight(queue) == out &&
	       !virtqueue_pending(queue);
}
