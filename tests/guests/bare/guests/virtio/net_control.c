/* Commands to a network device (virtio 1.3, section 5.1.6.5). */
#include "net.h"

#define CLASS_MAC	1
#define MAC_ADDR_SET	1
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

/* Sends a command; whether the device has followed it. */
static bool command(u8 class, u8 number, const void *data, u32 length)
{
	static u8 request[2 + MAC_SIZE];
	static volatile u8 ack;
	struct buffer buffers[] = {
		{ request, 2 + length, false },
		{ (void *)&ack, sizeof(ack), true },
	};

	request[0] = class;
	request[1] = number;
	memcpy(request + 2, data, length);
	ack = ACK_NONE;
	if (virtqueue_add(&queue, buffers, ARRAY_SIZE(buffers)) < 0)
		panic("net: control queue full");
	virtqueue_kick(&queue);
	virtqueue_wait(&queue);
	return ack == ACK_OK;
}

bool net_control_set_pairs(u32 pairs)
{
	u16 count = pairs;

	return command(CLASS_MQ, MQ_PAIRS_SET, &count, sizeof(count));
}

bool net_control_set_mac(const u8 *mac)
{
	return command(CLASS_MAC, MAC_ADDR_SET, mac, MAC_SIZE);
}
