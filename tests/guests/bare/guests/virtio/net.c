/* A virtio-net driver (virtio 1.3, section 5.1): one pair of queues, or with `mq` several. */
#include "net.h"

#define RECEIVE_BUFFERS	32
#define BUFFER_SIZE	2048

#define FEATURE_MTU	(1ul << 3)
#define FEATURE_MAC	(1ul << 5)
#define FEATURE_CTRL_VQ	(1ul << 17)
#define FEATURE_MQ	(1ul << 22)
#define FEATURE_CTRL_MAC_ADDR	(1ul << 23)
#define CONFIG_MAC	0
#define CONFIG_PAIRS	8
#define CONFIG_MTU	10

/* Section 5.1.6; all zero: no offloads are negotiated. */
struct net_header {
	u8 flags, gso_type;
	u16 header_length, gso_size, checksum_start, checksum_offset, buffers;
};

struct pair {
	struct virtqueue receive, transmit;
	u8 receive_data[RECEIVE_BUFFERS][BUFFER_SIZE];
	u8 transmit_data[BUFFER_SIZE];
	/* Which receive buffer a chain's head belongs to. */
	u32 buffer_of_head[QUEUE_MAX];
};

static NOINIT struct pair pairs[NET_PAIRS_MAX];

static const u8 default_mac[MAC_SIZE] = { 0x02, 0, 0, 0, 0, 1 };

static void offer_buffer(struct pair *pair, u32 index)
{
	struct buffer buffer = { pair->receive_data[index], BUFFER_SIZE, true };
	s32 head = virtqueue_add(&pair->receive, &buffer, 1);

	if (head >= 0)
		pair->buffer_of_head[head] = index;
}

u8 *net_transmit_buffer(u32 pair)
{
	return pairs[pair].transmit_data + sizeof(struct net_header);
}

void net_transmit(struct net *net, u32 pair, u32 length)
{
	struct virtqueue *queue = &pairs[pair].transmit;
	u8 *data = pairs[pair].transmit_data;
	struct buffer buffer = { data, sizeof(struct net_header) + length, false };

	memset(data, 0, sizeof(struct net_header));
	if (virtqueue_add(queue, &buffer, 1) < 0)
		panic("net: transmit queue full");
	virtqueue_kick(queue);
	virtqueue_wait(queue);
	net->sent++;
}

u32 net_receive(struct net *net, u32 pair, u8 *frame)
{
	struct virtqueue *queue = &pairs[pair].receive;
	struct used_chain chain = virtqueue_wait(queue);
	u32 index = pairs[pair].buffer_of_head[chain.id];
	u32 length = chain.length - sizeof(struct net_header);

	if (chain.length < sizeof(struct net_header) || length > FRAME_MAX)
		panic("net: received %u bytes", chain.length);
	memcpy(frame, pairs[pair].receive_data[index] + sizeof(struct net_header), length);
	offer_buffer(&pairs[pair], index);
	virtqueue_kick(queue);
	net->received++;
	return length;
}

bool net_pending(u32 pair)
{
	return virtqueue_pending(&pairs[pair].receive);
}

u32 net_wait_any(u32 count)
{
	struct virtqueue *queues[NET_PAIRS_MAX];
	u32 pair = 0;

	for (u32 i = 0; i < count; i++)
		queues[i] = &pairs[i].receive;
	virtqueue_wait_any(queues, count);
	while (!net_pending(pair))
		pair++;
	return pair;
}

void net_read_mac(struct net *net)
{
	memcpy(net->mac, default_mac, MAC_SIZE);
	if (!(net->device->features & FEATURE_MAC))
		return;
	for (u32 i = 0; i < MAC_SIZE; i++)
		net->mac[i] = virtio_config8(net->device, CONFIG_MAC + i);
}

static u16 read_config16(const struct net *net, u32 offset)
{
	return virtio_config8(net->device, offset) | virtio_config8(net->device, offset + 1) << 8;
}

static u32 read_mtu(const struct net *net)
{
	return net->device->features & FEATURE_MTU ? read_config16(net, CONFIG_MTU) : 1500;
}

static void count_pairs(struct net *net)
{
	net->device_pairs = 1;
	if (net->device->features & FEATURE_MQ)
		net->device_pairs = read_config16(net, CONFIG_PAIRS);
	net->pairs = net->device_pairs < NET_PAIRS_MAX ? net->device_pairs : NET_PAIRS_MAX;
}

/* The control queue comes behind all pairs that the device has (section 5.1.2). */
static void set_up_queues(const struct net *net)
{
	for (u32 i = 0; i < net->pairs; i++)
		if (!virtqueue_setup(&pairs[i].receive, net->device, 2 * i, RECEIVE_BUFFERS) ||
		    !virtqueue_setup(&pairs[i].transmit, net->device, 2 * i + 1, RECEIVE_BUFFERS))
			panic("net: no queues of pair %u", i);
	if (net->device->features & FEATURE_CTRL_VQ)
		net_control_start(net->device, 2 * net->device_pairs);
}

static void offer_buffers(const struct net *net)
{
	for (u32 i = 0; i < net->pairs; i++) {
		for (u32 j = 0; j < pairs[i].receive.size; j++)
			offer_buffer(&pairs[i], j);
		virtqueue_kick(&pairs[i].receive);
	}
}

static u64 kicks(const struct net *net)
{
	u64 kicks = 0;

	for (u32 i = 0; i < net->pairs; i++)
		kicks += pairs[i].receive.kicks + pairs[i].transmit.kicks;
	return kicks;
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
	virtio_start(device, FEATURE_MAC | FEATURE_MTU | virtqueue_features() |
				     (cmdline_flag("mq") ? FEATURE_CTRL_VQ | FEATURE_MQ : 0) |
				     (string_equal(test, "mac") ?
					      FEATURE_CTRL_VQ | FEATURE_CTRL_MAC_ADDR :
					      0));
	net_read_mac(&net);
	count_pairs(&net);
	set_up_queues(&net);
	virtio_driver_ok(device);
	offer_buffers(&net);

	printf("net: slot=%u features=%lx mtu=%u", device->slot, device->features, read_mtu(&net));
	print_mac(" mac=", net.mac);
	printf("\n");
	net_test(&net);
	printf("net: ok sent=%lu received=%lu kicks=%lu interrupts=%u\n", net.sent, net.received,
	       kicks(&net), device->interrupts);
}
