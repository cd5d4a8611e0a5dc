#include "virtqueue.h"

#include "power.h"

static void advance(const struct virtqueue *queue, struct packed_place *place, u32 count)
{
	place->index += count;
	if (place->index >= queue->size) {
		place->index -= queue->size;
		place->wrap = !place->wrap;
	}
}

static void start(struct virtqueue *queue)
{
	struct packed_rings *rings = &queue->packed;

	rings->next_available.wrap = rings->next_used.wrap = true;
	for (u32 i = 0; i < queue->size; i++)
		rings->next_free[i] = i + 1;
}

static const void *area(const struct virtqueue *queue, u32 number)
{
	const struct packed_rings *rings = &queue->packed;
	const void *const areas[] = { rings->desc, &rings->driver, &rings->device };

	return areas[number];
}

static void fill(struct packed_desc *desc, const struct buffer *buffer)
{
	desc->address = (u64)buffer->data;
	desc->length = buffer->length;
}

static u16 write_flag(const struct buffer *buffer)
{
	return buffer->device_writes ? DESC_WRITE : 0;
}

/* A table has the flag of who writes alone, and ends with its length (2.8.7). */
static struct buffer fill_table(struct packed_desc *table, const struct buffer *buffers,
				u32 count)
{
	for (u32 i = 0; i < count; i++) {
		fill(&table[i], &buffers[i]);
		table[i].flags = write_flag(&buffers[i]);
	}
	return (struct buffer){ table, count * sizeof(*table), false };
}

static u16 add(struct virtqueue *queue, const struct buffer *buffers, u32 count)
{
	struct packed_rings *rings = &queue->packed;
	bool indirect = virtqueue_has(queue, FEATURE_INDIRECT);
	struct packed_desc *head = &rings->desc[rings->next_available.index];
	u16 id = rings->free_id, head_flags = 0;
	struct buffer table;

	if (indirect) {
		table = fill_table(rings->indirect[id], buffers, count);
		buffers = &table;
		count = 1;
	}
	for (u32 i = 0; i < count; i++) {
		struct packed_place *place = &rings->next_available;
		struct packed_desc *desc = &rings->desc[place->index];
		u16 flags = write_flag(&buffers[i]) | (i + 1 < count ? DESC_NEXT : 0) |
			    (indirect ? DESC_INDIRECT : 0) |
			    (place->wrap ? PACKED_AVAIL : PACKED_USED);

		fill(desc, &buffers[i]);
		desc->id = id;
		if (desc == head)
			head_flags = flags;
		else
			desc->flags = flags;
		advance(queue, place, 1);
	}
	rings->free_id = rings->next_free[id];
	rings->taken[id] = count;
	rings->added += count;
	/* With the first one the device has them all. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	head->flags = head_flags;
	return id;
}

static bool wants_kick(struct virtqueue *queue)
{
	struct packed_rings *rings = &queue->packed;
	u16 added = rings->added, flags, place, behind;

	rings->added = 0;
	/* The descriptors must be visible before the device's wish is read (2.8.21.3.1). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	flags = rings->device.flags;
	if (!added || flags == EVENTS_DISABLE)
		return false;
	if (flags != EVENTS_AT || !virtqueue_has(queue, FEATURE_EVENT_IDX))
		return true;
	/* The place is written before the flag, and may have moved on since. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	place = rings->device.place;
	behind = rings->next_available.index - (place & ~EVENT_WRAP) - 1;
	if (!!(place & EVENT_WRAP) != rings->next_available.wrap)
		behind += queue->size;
	return behind < added;
}

static bool is_used(const struct packed_rings *rings, struct packed_place place)
{
	u16 flags = rings->desc[place.index].flags;

	return !!(flags & PACKED_AVAIL) == place.wrap && !!(flags & PACKED_USED) == place.wrap;
}

static bool pending(const struct virtqueue *queue)
{
	return is_used(&queue->packed, queue->packed.next_used);
}

static struct used_chain take(struct virtqueue *queue)
{
	struct packed_rings *rings = &queue->packed;
	const struct packed_desc *desc = &rings->desc[rings->next_used.index];
	u16 id = desc->id, taken;

	if (id >= queue->size || !rings->taken[id])
		panic("virtio: used id %u of a queue of %u", id, queue->size);
	taken = rings->taken[id];
	rings->taken[id] = 0;
	rings->next_free[id] = rings->free_id;
	rings->free_id = id;
	queue->free_count += taken;
	advance(queue, &rings->next_used, taken);
	/* The length says nothing where the device wrote nothing (2.8.5). */
	return (struct used_chain){ id, desc->flags & DESC_WRITE ? desc->length : 0 };
}

static void want_interrupt(struct virtqueue *queue, bool wanted)
{
	struct packed_rings *rings = &queue->packed;
	struct packed_place next = rings->next_used;

	if (!wanted) {
		rings->driver.flags = EVENTS_DISABLE;
	} else if (!virtqueue_has(queue, FEATURE_EVENT_IDX)) {
		rings->driver.flags = EVENTS_ENABLE;
	} else {
		rings->driver.place = next.index | (next.wrap ? EVENT_WRAP : 0);
		__atomic_thread_fence(__ATOMIC_RELEASE);
		rings->driver.flags = EVENTS_AT;
	}
}

/* The ring counts nothing: what is not taken yet has to be walked. */
static u32 in_flight(const struct virtqueue *queue)
{
	const struct packed_rings *rings = &queue->packed;
	struct packed_place place = rings->next_used;
	u32 out = 0;

	for (u32 id = 0; id < queue->size; id++)
		out += rings->taken[id] != 0;
	for (; out && is_used(rings, place); out--)
		advance(queue, &place, rings->taken[rings->desc[place.index].id]);
	return out;
}

const struct virtqueue_format virtqueue_packed = {
	.start = start,
	.area = area,
	.add = add,
	.wants_kick = wants_kick,
	.pending = pending,
	.take = take,
	.want_interrupt = want_interrupt,
	.in_flight = in_flight,
};
