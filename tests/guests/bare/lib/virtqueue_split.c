#include "virtqueue.h"

#include "power.h"

static u16 *used_event(struct virtqueue *queue)
{
	return &queue->split.avail.ring[queue->size];
}

static const volatile u16 *avail_event(struct virtqueue *queue)
{
	return (const volatile u16 *)&queue->split.used.ring[queue->size];
}

static void start(struct virtqueue *queue)
{
	for (u32 i = 0; i < queue->size; i++)
		queue->split.desc[i].next = i + 1;
}

static const void *area(const struct virtqueue *queue, u32 number)
{
	const void *const areas[] = { queue->split.desc, &queue->split.avail, &queue->split.used };

	return areas[number];
}

static void fill(struct virtq_desc *desc, const struct buffer *buffer, bool last)
{
	desc->address = (u64)buffer->data;
	desc->length = buffer->length;
	desc->flags = (buffer->device_writes ? DESC_WRITE : 0) | (last ? 0 : DESC_NEXT);
}

/* Fills a table of `count` descriptors apart, and one that points to it. */
static void fill_indirect(struct split_rings *rings, u16 head, const struct buffer *buffers,
			  u32 count)
{
	struct virtq_desc *table = rings->indirect[head];

	for (u32 i = 0; i < count; i++) {
		fill(&table[i], &buffers[i], i + 1 == count);
		table[i].next = i + 1;
	}
	rings->desc[head].address = (u64)table;
	rings->desc[head].length = count * sizeof(*table);
	rings->desc[head].flags = DESC_INDIRECT;
}

static u16 add(struct virtqueue *queue, const struct buffer *buffers, u32 count)
{
	struct split_rings *rings = &queue->split;
	bool indirect = virtqueue_has(queue, FEATURE_INDIRECT);
	u16 head = rings->free_head, next = head;
	u32 taken = indirect ? 1 : count;

	if (indirect)
		fill_indirect(rings, head, buffers, count);
	for (u32 i = 0; i < taken; i++) {
		if (!indirect)
			fill(&rings->desc[next], &buffers[i], i + 1 == count);
		next = rings->desc[next].next;
	}
	rings->free_head = next;

	rings->avail.ring[rings->avail.index % queue->size] = head;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	rings->avail.index++;
	return head;
}

static bool wants_kick(struct virtqueue *queue)
{
	struct split_rings *rings = &queue->split;
	u16 added = rings->avail.index - rings->last_kick;
	u16 behind;

	rings->last_kick = rings->avail.index;
	/* The index must be visible before the device's wish is read (2.7.13.4.1). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!virtqueue_has(queue, FEATURE_EVENT_IDX))
		return added && !(rings->used.flags & USED_NO_NOTIFY);
	behind = rings->avail.index - *avail_event(queue) - 1;
	return behind < added;
}

static void release(struct virtqueue *queue, u16 head)
{
	struct virtq_desc *desc = queue->split.desc;
	u16 last = head;
	u32 count = 1;

	for (; desc[last].flags & DESC_NEXT; count++)
		last = desc[last].next;
	desc[last].next = queue->split.free_head;
	queue->split.free_head = head;
	queue->free_count += count;
}

static bool pending(const struct virtqueue *queue)
{
	return queue->split.last_used != queue->split.used.index;
}

static struct used_chain take(struct virtqueue *queue)
{
	struct split_rings *rings = &queue->split;
	struct virtq_used_element element = rings->used.ring[rings->last_used % queue->size];

	if (element.id >= queue->size)
		panic("virtio: used id %u of a queue of %u", element.id, queue->size);
	rings->last_used++;
	release(queue, element.id);
	return (struct used_chain){ element.id, element.length };
}

static void want_interrupt(struct virtqueue *queue, bool wanted)
{
	struct split_rings *rings = &queue->split;

	if (virtqueue_has(queue, FEATURE_EVENT_IDX))
		*used_event(queue) = wanted ? rings->last_used : rings->last_used - 1;
	else
		rings->avail.flags = wanted ? 0 : AVAIL_NO_INTERRUPT;
}

static u32 in_flight(const struct virtqueue *queue)
{
	return (u16)(queue->split.avail.index - queue->split.used.index);
}

const struct virtqueue_format virtqueue_split = {
	.start = start,
	.area = area,
	.add = add,
	.wants_kick = wants_kick,
	.pending = pending,
	.take = take,
	.want_interrupt = want_interrupt,
	.in_flight = in_flight,
};
