/*
 * Queues that are set up in many ways, and rings that hold sound requests, nearly sound
 * ones and nonsense. Several CPUs do this to one device at a time, without a lock.
 */
#include "fuzz.h"

#include "virtqueue.h"

#define QUEUES		4
#define AREAS		3

/* What was told to the device last. areas[0] is 0 where the CPU may not write the ring. */
struct ring {
	u64 areas[AREAS];
	u16 size;
	bool packed;
};

static struct ring rings[TARGETS_MAX][QUEUES];

/*
 * Each area has a part of the arena: an index that the device writes over half of a
 * descriptor's address makes one of the guest's own code of it.
 */
static u64 draw_area(struct source *source, u32 area)
{
	u64 part = ARENA_SIZE / AREAS & -4096ul;
	u64 offset;

	if (draw_chance(source, 5))
		return draw_nowhere(source);
	offset = draw_below(source, part) & (draw_chance(source, 95) ? -4096ul : -4ul);
	return ARENA + area * part + offset;
}

/* Whether the CPU may write `size` bytes there. */
static bool is_arena(u64 address, u64 size)
{
	return address >= ARENA && address - ARENA <= ARENA_SIZE - size;
}

static void setup_queue(struct source *source, struct virtio_device *device, u32 number,
			struct ring *ring, bool packed)
{
	struct ring next = { .packed = packed };
	u32 max;

	virtio_write(device, VIRTIO_QUEUE_SEL, number);
	max = virtio_read(device, VIRTIO_QUEUE_SIZE_MAX);
	if (max == 0)
		return;
	next.size = draw_chance(source, 90) ? 1u << draw_below(source, 9) : draw_value(source);
	virtio_write(device, VIRTIO_QUEUE_SIZE, next.size);
	for (u32 i = 0; i < AREAS; i++) {
		next.areas[i] = draw_area(source, i);
		virtio_write(device, VIRTIO_QUEUE_DESC + 0x10 * i, next.areas[i]);
		virtio_write(device, VIRTIO_QUEUE_DESC + 0x10 * i + 4, next.areas[i] >> 32);
		if (is_arena(next.areas[i], 4096))
			memset((void *)next.areas[i], 0, 4096);
	}
	virtio_write(device, VIRTIO_QUEUE_READY, 1);
	if (!is_arena(next.areas[0], 4096) || !is_arena(next.areas[1], 4096))
		next.areas[0] = 0;
	*ring = next;
}

void fuzz_setup(struct source *source)
{
	u32 number = draw_below(source, targets_count());
	struct virtio_device *device = target(number);
	u32 status = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
	u64 features;

	virtio_write(device, VIRTIO_STATUS, 0);
	virtio_write(device, VIRTIO_STATUS, status);
	features = virtio_offered(device) & (draw(source) | FEATURE_VERSION_1);
	if (draw_chance(source, 5))
		features ^= 1ul << draw_below(source, 64);
	virtio_accept(device, features);
	status |= STATUS_FEATURES_OK;
	virtio_write(device, VIRTIO_STATUS, status);
	for (u32 i = 0; i < QUEUES; i++)
		setup_queue(source, device, i, &rings[number][i],
			    features & FEATURE_PACKED);
	if (draw_chance(source, 95))
		virtio_write(device, VIRTIO_STATUS, status | STATUS_DRIVER_OK);
}

/* The header of a block request; other devices find it as good as any other data. */
static void fill_header(struct source *source, u64 address)
{
	u32 *header = (u32 *)address;

	if (!is_arena(address, 16))
		return;
	header[0] = draw_chance(source, 80) ? draw_below(source, 16) : draw_value(source);
	header[1] = 0;
	header[2] = draw_chance(source, 80) ? draw_below(source, 256) : draw_value(source);
	header[3] = draw_chance(source, 95) ? 0 : draw_value(source);
}

static u32 draw_length(struct source *source)
{
	static const u32 usual[] = { 1, 12, 16, 512, 1024, 4096 };

	if (draw_chance(source, 80))
		return usual[draw_below(source, ARRAY_SIZE(usual))];
	/* Behind RAM in any case, or not as far as from address 0 to the guest's code. */
	return draw_chance(source, 50) ? 1u << 31 | draw_value(source) :
					 draw_below(source, 1u << 16);
}

/* Part `part` of `parts`: first for the device to read, the rest for it to write. */
static u16 draw_flags(struct source *source, u32 part, u32 parts)
{
	if (draw_chance(source, 10))
		return draw_value(source);
	return (part + 1 < parts ? DESC_NEXT : 0) | (part ? DESC_WRITE : 0);
}

static void submit_split(struct source *source, const struct ring *ring)
{
	struct virtq_desc *table = (struct virtq_desc *)ring->areas[0];
	struct virtq_avail *avail = (struct virtq_avail *)ring->areas[1];
	u32 limit = ring->size && ring->size < QUEUE_MAX ? ring->size : QUEUE_MAX;
	u32 parts = 1 + draw_below(source, 4);
	u16 head = draw_below(source, limit);

	for (u32 part = 0; part < parts; part++) {
		struct virtq_desc *desc = &table[(head + part) % limit];

		desc->address = draw_address(source);
		desc->length = part ? draw_length(source) : 16;
		desc->flags = draw_flags(source, part, parts);
		desc->next = draw_chance(source, 95) ? (head + part + 1) % limit :
						       draw_value(source);
		if (part == 0)
			fill_header(source, desc->address);
	}
	avail->ring[avail->index % limit] = draw_chance(source, 95) ? head : draw_value(source);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	avail->index += draw_chance(source, 95) ? 1 : draw_value(source);
}

static void submit_packed(struct source *source, const struct ring *ring)
{
	struct packed_desc *table = (struct packed_desc *)ring->areas[0];
	u32 limit = ring->size && ring->size < QUEUE_MAX ? ring->size : QUEUE_MAX;
	u32 parts = 1 + draw_below(source, 4);
	u32 head = draw_below(source, limit);

	for (u32 part = parts; part-- > 0;) {
		struct packed_desc *desc = &table[(head + part) % limit];

		desc->address = draw_address(source);
		desc->length = part ? draw_length(source) : 16;
		desc->id = draw_chance(source, 80) ? head : draw_value(source);
		if (part == 0)
			fill_header(source, desc->address);
		__atomic_thread_fence(__ATOMIC_RELEASE);
		desc->flags = draw_flags(source, part, parts) |
			      (draw_chance(source, 80) ? PACKED_AVAIL : PACKED_USED);
	}
}

void fuzz_ring(struct source *source)
{
	u32 number = draw_below(source, targets_count());
	u32 queue = draw_below(source, QUEUES);
	struct ring ring = rings[number][queue];

	if (ring.areas[0] && ring.packed)
		submit_packed(source, &ring);
	else if (ring.areas[0])
		submit_split(source, &ring);
	virtio_write(target(number), VIRTIO_QUEUE_NOTIFY, queue);
}
