#include "virtqueue.h"

#include "io.h"
#include "power.h"
#include "string.h"
#include "traps.h"

static u16 *used_event(struct virtqueue *queue)
{
	return &queue->avail.ring[queue->size];
}

static const volatile u16 *avail_event(struct virtqueue *queue)
{
	return (const volatile u16 *)&queue->used.ring[queue->size];
}

static bool has_feature(const struct virtqueue *queue, u64 feature)
{
	return (queue->device->features & feature) != 0;
}

static void write_address(const struct virtio_device *device, enum virtio_register reg,
			  const void *address)
{
	virtio_write(device, reg, (u64)address);
	virtio_write(device, reg + 4, (u64)address >> 32);
}

void virtqueue_publish(const struct virtqueue *queue)
{
	const struct virtio_device *device = queue->device;

	virtio_write(device, VIRTIO_QUEUE_SEL, queue->number);
	virtio_write(device, VIRTIO_QUEUE_SIZE, queue->size);
	write_address(device, VIRTIO_QUEUE_DESC, queue->desc);
	write_address(device, VIRTIO_QUEUE_DRIVER, &queue->avail);
	write_address(device, VIRTIO_QUEUE_DEVICE, &queue->used);
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
	queue->number = number;
	queue->size = size < max ? size : max;
	queue->free_count = queue->size;
	for (u32 i = 0; i < queue->size; i++)
		queue->desc[i].next = i + 1;
	virtqueue_publish(queue);
	if (virtio_read(device, VIRTIO_QUEUE_READY) != 1)
		panic("virtio: queue %u does not become ready", number);
	return true;
}

static void fill(struct virtq_desc *desc, const struct buffer *buffer, bool last)
{
	desc->address = (u64)buffer->data;
	desc->length = buffer->length;
	desc->flags = (buffer->device_writes ? DESC_WRITE : 0) | (last ? 0 : DESC_NEXT);
}

/* Fills a table of `count` descriptors apart, and one that points to it. */
static void fill_indirect(struct virtqueue *queue, u16 head, const struct buffer *buffers,
			  u32 count)
{
	struct virtq_desc *table = queue->indirect[head];

	for (u32 i = 0; i < count; i++) {
		fill(&table[i], &buffers[i], i + 1 == count);
		table[i].next = i + 1;
	}
	queue->desc[head].address = (u64)table;
	queue->desc[head].length = count * sizeof(*table);
	queue->desc[head].flags = DESC_INDIRECT;
}

s32 virtqueue_add(struct virtqueue *queue, const struct buffer *buffers, u32 count)
{
	bool indirect = has_feature(queue, FEATURE_INDIRECT);
	u16 head = queue->free_head, next = head;
	u32 taken = indirect ? 1 : count;

	if (queue->free_count < taken)
		return -1;
	if (indirect)
		fill_indirect(queue, head, buffers, count);
	for (u32 i = 0; i < taken; i++) {
		if (!indirect)
			fill(&queue->desc[next], &buffers[i], i + 1 == count);
		next = queue->desc[next].next;
	}
	queue->free_head = next;
	queue->free_count -= taken;

	queue->avail.ring[queue->avail.index % queue->size] = head;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	queue->avail.index++;
	return head;
}

void virtqueue_kick(struct virtqueue *queue)
{
	u16 added = queue->avail.index - queue->last_kick;
	u16 behind;

	if (added == 0)
		return;
	queue->last_kick = queue->avail.index;
	/* The index must be visible before the device's wish is read (2.7.13.4.1). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (has_feature(queue, FEATURE_EVENT_IDX)) {
		behind = queue->avail.index - *avail_event(queue) - 1;
		if (behind >= added)
			return;
	} else if (queue->used.flags & USED_NO_NOTIFY) {
		return;
	}
	queue->kicks++;
	virtio_write(queue->device, VIRTIO_QUEUE_NOTIFY, queue->number);
}

static void release(struct virtqueue *queue, u16 head)
{
	u16 last = head;
	u32 count = 1;

	for (; queue->desc[last].flags & DESC_NEXT; count++)
		last = queue->desc[last].next;
	queue->desc[last].next = queue->free_head;
	queue->free_head = head;
	queue->free_count += count;
}

bool virtqueue_pending(const struct virtqueue *queue)
{
	return queue->last_used != queue->used.index;
}

bool virtqueue_take(struct virtqueue *queue, struct virtq_used_element *element)
{
	if (!virtqueue_pending(queue))
		return false;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	*element = queue->used.ring[queue->last_used % queue->size];
	if (element->id >= queue->size)
		panic("virtio: used id %u of a queue of %u", element->id, queue->size);
	queue->last_used++;
	release(queue, element->id);
	return true;
}

/* Asks for an interrupt at the next used element, or for none. */
static void want_interrupt(struct virtqueue *queue, bool wanted)
{
	if (has_feature(queue, FEATURE_EVENT_IDX))
		*used_event(queue) = wanted ? queue->last_used : queue->last_used - 1;
	else
		queue->avail.flags = wanted ? 0 : AVAIL_NO_INTERRUPT;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

struct virtq_used_element virtqueue_wait(struct virtqueue *queue)
{
	struct virtio_device *device = queue->device;
	struct virtq_used_element element;

	for (;;) {
		u32 seen = device->interrupts;

		if (virtqueue_take(queue, &element))
			return element;
		want_interrupt(queue, !device->polling);
		if (device->polling)
			pause();
		else if (!virtqueue_pending(queue))
			wait_while_equal(&device->interrupts, seen);
	}
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
			want_interrupt(queues[i], !device->polling);
		if (device->polling)
			pause();
		else if (!any_pending(queues, count))
			wait_while_equal(&device->interrupts, seen);
	}
}
