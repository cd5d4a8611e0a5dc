/*
 * Sends `count=N` (100) UDP datagrams of `size=N` (256) bytes by every pair of queues
 * that is enabled, all pairs at once, to a peer that sends them back; with every number
 * of pairs that there can be, up and down again.
 *
 * A pair's datagrams are a flow of their own, to port `port=N` (7777) of `gateway=` from
 * a port that tells the pair. What comes back of a flow comes by its pair (section
 * 5.1.6.5.5), once the device knows the flow, and nothing by a pair that is not enabled.
 */
#include "net.h"

struct datagram {
	struct udp udp;
	u32 pair, number;
	u8 bytes[];
} __attribute__((packed));

struct round {
	u32 enabled;
	u32 number;			/* of the datagrams that are on their way */
	bool is_back[NET_PAIRS_MAX];	/* the one of this pair */
	u32 steered[NET_PAIRS_MAX];	/* came back by the pair that sent them */
};

static u8 frame[FRAME_MAX];
static u32 count, size;
static u16 port;

static u8 byte_of(u32 pair, u32 number, u32 i)
{
	return 67 * pair + number + i;
}

static void send(struct net *net, u32 pair, u32 number)
{
	/* The peer is not asked for its address; that it is meant is for IP to say. */
	static const u8 broadcast[MAC_SIZE] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	struct datagram *datagram = (struct datagram *)net_transmit_buffer(pair);

	make_ethernet(&datagram->udp.ethernet, broadcast, net->mac, ETHERTYPE_IPV4);
	make_udp(&datagram->udp, cmdline_ip("ip", "10.0.2.15"), cmdline_ip("gateway", "10.0.2.2"),
		 port, size - sizeof(datagram->udp));
	datagram->udp.source_port = swap16(port + 1 + pair);
	datagram->pair = pair;
	datagram->number = number;
	for (u32 i = 0; i < size - sizeof(*datagram); i++)
		datagram->bytes[i] = byte_of(pair, number, i);
	net_transmit(net, pair, size);
}

/* Addresses may have been exchanged or not: one of the ports is the peer's. */
static bool is_ours(const struct datagram *datagram, u32 length)
{
	const struct udp *udp = &datagram->udp;

	return length >= sizeof(*datagram) && udp->ethernet.type == swap16(ETHERTYPE_IPV4) &&
	       udp->protocol == PROTOCOL_UDP &&
	       (udp->source_port == swap16(port) || udp->destination_port == swap16(port));
}

static void check(struct round *round, u32 length, u32 came_by)
{
	const struct datagram *datagram = (const struct datagram *)frame;
	u32 pair = datagram->pair;

	if (length != size || pair >= round->enabled || datagram->number != round->number)
		panic("net pairs: %u bytes as datagram %u of pair %u, when %u were sent", length,
		      datagram->number, pair, round->number);
	for (u32 i = 0; i < size - sizeof(*datagram); i++)
		if (datagram->bytes[i] != byte_of(pair, round->number, i))
			panic("net pairs: byte %u of datagram %u of pair %u is %x", i,
			      round->number, pair, datagram->bytes[i]);
	if (round->is_back[pair])
		panic("net pairs: datagram %u of pair %u came twice", round->number, pair);
	round->is_back[pair] = true;
	round->steered[pair] += came_by == pair;
}

/* One datagram there and back for each pair. */
static void exchange(struct net *net, struct round *round)
{
	u32 missing = round->enabled;

	memset(round->is_back, 0, sizeof(round->is_back));
	for (u32 pair = 0; pair < round->enabled; pair++)
		send(net, pair, round->number);
	while (missing) {
		u32 pair = net_wait_any(round->enabled);
		u32 length = net_receive(net, pair, frame);

		if (!is_ours((const struct datagram *)frame, length))
			continue;
		check(round, length, pair);
		missing--;
	}
}

/*
 * The first datagram of a flow may be answered before the device knows the flow, and
 * one that forgets flows learns them again.
 */
static void expect_steering(const struct net *net, const struct round *round)
{
	for (u32 pair = 0; pair < net->pairs; pair++) {
		if (pair >= round->enabled && net_pending(pair))
			panic("net pairs: a frame came by pair %u with %u enabled", pair,
			      round->enabled);
		if (pair < round->enabled && round->steered[pair] <= count / 2)
			panic("net pairs: %u of %u datagrams of pair %u of %u came by it",
			      round->steered[pair], count, pair, round->enabled);
	}
}

static void use_pairs(struct net *net, u32 enabled)
{
	struct round round = { .enabled = enabled };

	for (round.number = 0; round.number < count; round.number++)
		exchange(net, &round);
	expect_steering(net, &round);
	printf("net: pairs=%u count=%u\n", enabled, count);
}

static void enable(struct net *net, u32 pairs)
{
	if (!net_control_set_pairs(pairs))
		panic("net pairs: the device does not take %u pairs", pairs);
	/* From before the device said so; it is nothing of ours, for that is all back. */
	for (u32 pair = pairs; pair < net->pairs; pair++)
		while (net_pending(pair))
			net_receive(net, pair, frame);
}

static void refuse(u32 pairs)
{
	if (net_control_set_pairs(pairs))
		panic("net pairs: the device takes %u pairs", pairs);
}

void net_pairs(struct net *net)
{
	count = cmdline_number("count", 100);
	size = cmdline_number("size", 256);
	port = cmdline_number("port", 7777);
	if (size < sizeof(struct datagram) || size > FRAME_MAX)
		panic("net pairs: size %u is not in %lu..%u", size, sizeof(struct datagram),
		      FRAME_MAX);
	/* Nothing has been said yet. */
	use_pairs(net, 1);
	for (u32 pairs = 2; pairs <= net->pairs; pairs++) {
		enable(net, pairs);
		use_pairs(net, pairs);
	}
	if (net->device_pairs == 1)
		return;
	refuse(0);
	refuse(net->device_pairs + 1);
	for (u32 pairs = net->pairs; pairs > 0; pairs--) {
		enable(net, pairs);
		use_pairs(net, pairs);
	}
}
