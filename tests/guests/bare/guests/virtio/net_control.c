/* Commands to a network device (virtio 1.3, section 5.1.6.5). */
#include "net.h"

#define CLASS_MQ	4
#define MQ_PAIRS_SET	0
#define ACK_OK		0
#define ACK_NONE	0xff
/* A command and its acknowledgement, one at a time. */
#define DESCRIPTORS	2

static NOINIT struct virtqueue queue;

void net_control_start(struct virtio_device *device, u32 number)
{
	if (!virtqueue_setup(&queue, device, number, DESCRIPTORS))
		panic("net: no control queue %u", number);
}

bool net_control_set_pairs(u32 pairs)
{
	static struct {
		u8 class, command;
		u16 pairs;
	} request;
	static volatile u8 ack;
	struct buffer buffers[] = {
		{ &request, sizeof(request), false },
		{ (void *)&ack, sizeof(ack), true },
	};

	request.class = CLASS_MQ;
	request.command = MQ_PAIRS_SET;
	request.pairs = pairs;
	ack = ACK_NONE;
	if (virtqueue_add(&queue, buffers, ARRAY_SIZE(buffers)) < 0)
		panic("net: control queue full");
	virtqueue_kick(&queue);
	virtqueue_wait(&queue);
	return ack == ACK_OK;
}
