/*
 * Sends test frames, `depth=D` (16) at a time, until a byte comes on the
 * console, to a peer that sends every frame back. A frame may be lost, or come
 * again; but none is damaged, no buffer is lost or comes back twice, and
 * in the end the device still carries frames both ways.
 */
#include "net.h"
#include "pool.h"

#define RECEIVE_QUEUE	0
#define TRANSMIT_QUEUE	1
#define NET_HEADER	12
#define FRAME_MIN	60
#define FRAMES_A_LOOK	64

/* What a test frame is, behind its number following from it. */
struct test_frame {
	struct ethernet ethernet;
	u32 number;
	u8 payload[];
} __attribute__((packed));

static NOINIT struct pool receive, transmit;
static u32 sent, received, again, highest;

static u8 payload_byte(u32 number, u32 i)
{
	return (number * 0x9e3779b1u >> 24) + i;
}

static u32 size_of(u32 number)
{
	return FRAME_MIN + (number * 0x85ebca6bu >> 8) % (FRAME_MAX - FRAME_MIN + 1);
}

static void send(u32 index)
{
	static const u8 broadcast[MAC_SIZE] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	static const u8 source[MAC_SIZE] = { 0x02, 0, 0, 0, 0, 2 };
	u8 *buffer = transmit.buffers[index];
	struct test_frame *frame = (struct test_frame *)(buffer + NET_HEADER);
	u32 number = ++sent, size = size_of(number);

	memset(buffer, 0, NET_HEADER);
	make_ethernet(&frame->ethernet, broadcast, source, ETHERTYPE_TEST);
	frame->number = number;
	for (u32 i = 0; i < size - sizeof(*frame); i++)
		frame->payload[i] = payload_byte(number, i);
	pool_give(&transmit, index, NET_HEADER + size);
}

static void check(const u8 *buffer, u32 length)
{
	const struct test_frame *frame = (const struct test_frame *)(buffer + NET_HEADER);
	u32 number = frame->number;

	if (length < NET_HEADER + FRAME_MIN || frame->ethernet.type != swap16(ETHERTYPE_TEST) ||
	    number == 0 || number > sent || length != NET_HEADER + size_of(number))
		panic("net storm: received %u bytes as frame %u of %u", length, number, sent);
	for (u32 i = 0; i < length - NET_HEADER - sizeof(*frame); i++)
		if (frame->payload[i] != payload_byte(number, i))
			panic("net storm: byte %u of frame %u is %x", i, number,
			      frame->payload[i]);
	received++;
	if (number <= highest)
		again++;
	else
		highest = number;
}

/*
 * Takes what has come, and gives the buffers back unless told not to. A device that
 * is faster than this never lets a queue run empty: each has its turn.
 */
static void receive_all(bool more)
{
	u32 length;
	s32 index;

	for (u32 n = 0; n < POOL_BUFFERS; n++) {
		index = pool_take(&receive, &length);
		if (index < 0)
			break;
		check(receive.buffers[index], length);
		memset(receive.buffers[index], 0xee, POOL_BYTES);
		if (more)
			pool_give(&receive, index, POOL_BYTES);
	}
	if (more)
		virtqueue_kick(&receive.queue);
}

/* One of two queues has something. */
static void wait(void)
{
	struct virtqueue *queues[] = { &receive.queue, &transmit.queue };

	virtqueue_wait_any(queues, ARRAY_SIZE(queues));
}

/* Takes what was sent, and sends more unless told not to. */
static void transmit_all(bool more)
{
	u32 length;
	s32 index;

	for (u32 n = 0; n < POOL_BUFFERS; n++) {
		index = pool_take(&transmit, &length);
		if (index < 0)
			break;
		if (more)
			send(index);
	}
	virtqueue_kick(&transmit.queue);
}

static void storm(u32 depth)
{
	bool stop = false;
	u64 looked = 0;

	for (u32 i = 0; i < depth; i++)
		send(i);
	virtqueue_kick(&transmit.queue);
	while (pool_out(&transmit)) {
		wait();
		receive_all(true);
		transmit_all(!stop);
		if (!stop && transmit.completed - looked >= FRAMES_A_LOOK) {
			looked = transmit.completed;
			stop = console_take();
		}
	}
}

/* The device is as good as ever: a frame of now goes out and comes back. */
static void prove_life(void)
{
	u32 before = sent;

	while (highest <= before) {
		if (!pool_out(&transmit))
			send(0);
		virtqueue_kick(&transmit.queue);
		wait();
		receive_all(true);
		transmit_all(false);
	}
	while (pool_out(&transmit)) {
		wait();
		transmit_all(false);
		receive_all(true);
	}
}

void net_storm(struct virtio_device *device)
{
	u32 depth = cmdline_number("depth", 16);

	if (!depth || depth > POOL_BUFFERS)
		panic("net storm: depth %u", depth);
	virtio_start(device, virtqueue_features());
	pool_start(&receive, device, RECEIVE_QUEUE, "net storm: receive", true);
	pool_start(&transmit, device, TRANSMIT_QUEUE, "net storm: transmit", false);
	virtio_driver_ok(device);
	for (u32 i = 0; i < POOL_BUFFERS; i++)
		pool_give(&receive, i, POOL_BYTES);
	virtqueue_kick(&receive.queue);
	printf("net storm: start depth=%u features=%lx\n", depth, device->features);
	storm(depth);
	prove_life();
	/* From now on the device uses nothing more. */
	virtio_reset(device);
	receive_all(false);
	pool_audit(&receive);
	pool_audit(&transmit);
	printf("net storm: ok sent=%u received=%u again=%u interrupts=%u\n", sent, received, again,
	       device->interrupts);
}
