/* A virtio-net driver (virtio 1.3, section 5.1) for one pair of queues. */
#include "net.h"

#define RECEIVE_QUEUE	0
#define TRANSMIT_QUEUE	1
#define RECEIVE_BUFFERS	32
#define BUFFER_SIZE	2048

#define FEATURE_MTU	(1ul << 3)
#define FEATURE_MAC	(1ul << 5)
#define CONFIG_MAC	0
#define CONFIG_MTU	10

/* Section 5.1.6; all zero: no offloads are negotiated. */
struct net_header {
	u8 flags, gso_type;
	u16 header_length, gso_size, checksum_start, checksum_offset, buffers;
};

static NOINIT struct virtqueue receive_queue, transmit_queue;
static NOINIT u8 receive_data[RECEIVE_BUFFERS][BUFFER_SIZE];
static NOINIT u8 transmit_data[BUFFER_SIZE];

/* Which receive buffer a chain's head belongs to. */
static u32 buffer_of_head[QUEUE_MAX];

static const u8 default_mac[MAC_SIZE] = { 0x02, 0, 0, 0, 0, 1 };

static void offer_buffer(u32 index)
{
	struct buffer buffer = { receive_data[index], BUFFER_SIZE, true };
	s32 head = virtqueue_add(&receive_queue, &buffer, 1);

	if (head >= 0)
		buffer_of_head[head] = index;
}

u8 *net_transmit_buffer(void)
{
	return transmit_data + sizeof(struct net_header);
}

void net_transmit(struct net *net, u32 length)
{
	struct buffer buffer = { transmit_data, sizeof(struct net_header) + length, false };

	memset(transmit_data, 0, sizeof(struct net_header));
	if (virtqueue_add(&transmit_queue, &buffer, 1) < 0)
		panic("net: transmit queue full");
	virtqueue_kick(&transmit_queue);
	virtqueue_wait(&transmit_queue);
	net->sent++;
}

u32 net_receive(struct net *net, u8 *frame)
{
	struct used_chain chain = virtqueue_wait(&receive_queue);
	u32 index = buffer_of_head[chain.id];
	u32 length = chain.length - sizeof(struct net_header);

	if (chain.length < sizeof(struct net_header) || length > FRAME_MAX)
		panic("net: received %u bytes", chain.length);
	memcpy(frame, receive_data[index] + sizeof(struct net_header), length);
	offer_buffer(index);
	virtqueue_kick(&receive_queue);
	net->received++;
	return length;
}

static void read_mac(struct net *net)
{
	memcpy(net->mac, default_mac, MAC_SIZE);
	if (!(net->device->features & FEATURE_MAC))
		return;
	for (u32 i = 0; i < MAC_SIZE; i++)
		net->mac[i] = virtio_config8(net->device, CONFIG_MAC + i);
}

static u32 read_mtu(const struct net *net)
{
	if (!(net->device->features & FEATURE_MTU))
		return 1500;
	return virtio_config8(net->device, CONFIG_MTU) |
	       virtio_config8(net->device, CONFIG_MTU + 1) << 8;
}

void print_mac(const char *what, const u8 *mac)
{
	printf("%s%02x:%02x:%02x:%02x:%02x:%02x", what, mac[0], mac[1], mac[2], mac[3], mac[4],
	       mac[5]);
}

void run_net(struct virtio_device *device)
{
	struct net net = { .device = device };
	char test[8];

	cmdline_string("net", "arp", test, sizeof(test));
	if (string_equal(test, "storm")) {
		net_storm(device);
		return;
	}
	virtio_start(device, FEATURE_MAC | FEATURE_MTU | virtqueue_features());
	read_mac(&net);
	if (!virtqueue_setup(&receive_queue, device, RECEIVE_QUEUE, RECEIVE_BUFFERS) ||
	    !virtqueue_setup(&transmit_queue, device, TRANSMIT_QUEUE, RECEIVE_BUFFERS))
		panic("net: no queues 0 and 1");
	virtio_driver_ok(device);
	for (u32 i = 0; i < receive_queue.size; i++)
		offer_buffer(i);
	virtqueue_kick(&receive_queue);

	printf("net: slot=%u features=%lx mtu=%u", device->slot, device->features, read_mtu(&net));
	print_mac(" mac=", net.mac);
	printf("\n");
	net_test(&net);
	printf("net: ok sent=%lu received=%lu kicks=%lu interrupts=%u\n", net.sent, net.received,
	       receive_queue.kicks + transmit_queue.kicks, device->interrupts);
}
