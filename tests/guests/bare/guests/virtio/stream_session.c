/*
 * Devices that carry bytes: a network and a console, whose peer sends back what
 * it gets, and a source of entropy.
 */
#include "net_frame.h"
#include "pool.h"
#include "session.h"
#include "virtio_guest.h"

#define NET_HEADER	12
#define MESSAGE		(NET_HEADER + 200)
/* The lower half of a pool shows that the device works, the upper is left in flight. */
#define HALF		(POOL_BUFFERS / 2)
/* So many of those that are left in flight may finish before. */
#define FINISHED_MAX	(HALF / 2)

struct stream {
	struct pool incoming, outgoing;
	bool has_outgoing;
};

static NOINIT struct stream network, console, entropy;

static struct stream *stream_of(const struct virtio_device *device)
{
	switch (device->device_id) {
	case DEVICE_NET:
		return &network;
	case DEVICE_CONSOLE:
		return &console;
	default:
		return &entropy;
	}
}

static void start(struct stream *stream, struct virtio_device *device)
{
	virtio_start(device, virtqueue_features());
	stream->has_outgoing = device->device_id != DEVICE_RNG;
	pool_start(&stream->incoming, device, 0, "session: incoming", true);
	if (stream->has_outgoing)
		pool_start(&stream->outgoing, device, 1, "session: outgoing", false);
	virtio_driver_ok(device);
}

/* A frame to all for a network; for a console, so many bytes. */
static void send(struct stream *stream, u32 index)
{
	static const u8 broadcast[MAC_SIZE] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	static const u8 source[MAC_SIZE] = { 0x02, 0, 0, 0, 0, 2 };
	u8 *buffer = stream->outgoing.buffers[index];

	memset(buffer, 0, MESSAGE);
	make_ethernet((struct ethernet *)(buffer + NET_HEADER), broadcast, source, ETHERTYPE_TEST);
	pool_give(&stream->outgoing, index, MESSAGE);
}

/* Gives the buffers of one half to the device. */
static void give(struct stream *stream, u32 first)
{
	for (u32 i = first; i < first + HALF; i++)
		pool_give(&stream->incoming, i, POOL_BYTES);
	virtqueue_kick(&stream->incoming.queue);
	for (u32 i = first; stream->has_outgoing && i < first + HALF; i++)
		send(stream, i);
	if (stream->has_outgoing)
		virtqueue_kick(&stream->outgoing.queue);
}

static void wait(struct stream *stream)
{
	struct virtqueue *queues[] = { &stream->incoming.queue, &stream->outgoing.queue };

	virtqueue_wait_any(queues, stream->has_outgoing ? 2 : 1);
}

/*
 * Waits until something came back, and gives that to the device again. A device
 * that is faster than this never lets a queue run empty: each has its turn.
 */
static void turn(struct stream *stream)
{
	u32 length, n;
	s32 index;

	wait(stream);
	for (n = 0; n < POOL_BUFFERS; n++) {
		index = pool_take(&stream->incoming, &length);
		if (index < 0)
			break;
		if (length == 0)
			panic("session: a buffer came back empty");
		pool_give(&stream->incoming, index, POOL_BYTES);
	}
	virtqueue_kick(&stream->incoming.queue);
	if (!stream->has_outgoing)
		return;
	for (n = 0; n < POOL_BUFFERS; n++) {
		index = pool_take(&stream->outgoing, &length);
		if (index < 0)
			break;
		send(stream, index);
	}
	virtqueue_kick(&stream->outgoing.queue);
}

static void expect_scribble(const struct pool *pool)
{
	for (u32 i = HALF; i < POOL_BUFFERS; i++)
		for (u32 j = 0; j < POOL_BYTES; j++)
			if (pool->buffers[i][j] != SCRIBBLE)
				panic("%s: buffer %u was written after the reset", pool->name, i);
}

static u64 completed(const struct stream *stream)
{
	return stream->incoming.completed + (stream->has_outgoing ? stream->outgoing.completed : 0);
}

u32 stream_session(struct virtio_device *device)
{
	struct stream *stream = stream_of(device);
	u64 enough;

	for (u32 i = 0; i < POOL_BUFFERS; i++)
		memset(stream->incoming.buffers[i], SCRIBBLE, POOL_BYTES);
	start(stream, device);
	give(stream, 0);
	while (!stream->incoming.completed || (stream->has_outgoing && !stream->outgoing.completed))
		turn(stream);
	expect_scribble(&stream->incoming);

	give(stream, HALF);
	enough = completed(stream) + next_random() % (FINISHED_MAX + 1);
	while (completed(stream) < enough)
		turn(stream);
	return virtqueue_in_flight(&stream->incoming.queue) +
	       (stream->has_outgoing ? virtqueue_in_flight(&stream->outgoing.queue) : 0);
}
