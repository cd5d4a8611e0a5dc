/*
 *   net=arp    asks who has `gateway=A.B.C.D` (10.0.2.2) and prints the answer
 *   net=udp    then sends one datagram to its `port=N` (7777) from `source=N`
 *              (the same), prints the answer
 *   net=send   sends `count=N` (100) test frames of `size=N` (256) bytes, each
 *              after the echo of the one before, and compares the echoes
 *   net=echo   answers `count=N` such frames with the addresses exchanged
 *   net=mac    takes `count=N` (100) other addresses, each of which it then reads
 *   net=pairs  as net_pairs.c has it
 *
 * The own address is `ip=A.B.C.D` (10.0.2.15). Other frames are ignored.
 */
#include "net.h"

/* The one that needs no control queue. */
#define PAIR	0

static u8 frame[FRAME_MAX + 1];

/* Waits for a frame of one EtherType; returns its length. */
static u32 receive_type(struct net *net, u16 type)
{
	const struct ethernet *ethernet = (const struct ethernet *)frame;

	for (;;) {
		u32 length = net_receive(net, PAIR, frame);

		if (length >= sizeof(*ethernet) && ethernet->type == swap16(type))
			return length;
	}
}

/* Resolves the gateway's address into `mac`. */
static void resolve(struct net *net, u8 *mac)
{
	u32 gateway = cmdline_ip("gateway", "10.0.2.2");
	const struct arp *reply = (const struct arp *)frame;

	net_transmit(net, PAIR, make_arp_request((struct arp *)net_transmit_buffer(PAIR), net->mac,
					   cmdline_ip("ip", "10.0.2.15"), gateway));
	do {
		receive_type(net, ETHERTYPE_ARP);
	} while (reply->operation != swap16(ARP_REPLY) || reply->sender_ip != gateway);
	memcpy(mac, reply->sender_mac, MAC_SIZE);
	print_mac("net: gateway is at ", mac);
	printf("\n");
}

static void exchange_udp(struct net *net)
{
	static const char message[] = "hello from outboard";
	struct udp *request = (struct udp *)net_transmit_buffer(PAIR);
	struct udp *reply = (struct udp *)frame;
	u16 port = cmdline_number("port", 7777);
	u16 source = cmdline_number("source", port);
	u8 mac[MAC_SIZE];
	u32 length;

	resolve(net, mac);
	make_ethernet(&request->ethernet, mac, net->mac, ETHERTYPE_IPV4);
	memcpy(request->payload, message, strlen(message));
	length = make_udp(request, cmdline_ip("ip", "10.0.2.15"),
			  cmdline_ip("gateway", "10.0.2.2"), port, strlen(message));
	request->source_port = swap16(source);
	net_transmit(net, PAIR, length);
	do {
		length = receive_type(net, ETHERTYPE_IPV4);
	} while (length < sizeof(*reply) || reply->destination_port != swap16(source));
	frame[sizeof(*reply) + swap16(reply->length) - 8] = 0;
	printf("net: udp answer: %s\n", (const char *)reply->payload);
}

/* Frames of the send test: a header, their number, then bytes that follow from it. */
static void fill_frame(u8 *bytes, u32 number, u32 size)
{
	memcpy(bytes + sizeof(struct ethernet), &number, sizeof(number));
	for (u32 i = sizeof(struct ethernet) + sizeof(number); i < size; i++)
		bytes[i] = number + i;
}

static void send_frames(struct net *net)
{
	static const u8 broadcast[MAC_SIZE] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	u8 *sent = net_transmit_buffer(PAIR);
	u32 count = cmdline_number("count", 100);
	u32 size = cmdline_number("size", 256);
	u64 checksum = FNV_START;
	u64 start = rdtsc();

	if (size < 60 || size > FRAME_MAX)
		panic("net: size %u is not in 60..%u", size, FRAME_MAX);
	for (u32 number = 0; number < count; number++) {
		make_ethernet((struct ethernet *)sent, broadcast, net->mac, ETHERTYPE_TEST);
		fill_frame(sent, number, size);
		net_transmit(net, PAIR, size);
		if (receive_type(net, ETHERTYPE_TEST) != size ||
		    memcmp(frame + 2 * MAC_SIZE, sent + 2 * MAC_SIZE, size - 2 * MAC_SIZE) != 0)
			panic("net: echo of frame %u differs", number);
		checksum = fnv(checksum, frame + 2 * MAC_SIZE, size - 2 * MAC_SIZE);
	}
	printf("net: send count=%u size=%u checksum=%016lx per_frame=%lu\n", count, size, checksum,
	       (rdtsc() - start) / count);
}

static void echo_frames(struct net *net)
{
	const struct ethernet *received = (const struct ethernet *)frame;
	u8 *reply = net_transmit_buffer(PAIR);
	u32 count = cmdline_number("count", 100);
	u64 checksum = FNV_START;

	printf("net: echo ready\n");
	for (u32 number = 0; number < count; number++) {
		u32 length = receive_type(net, ETHERTYPE_TEST);

		memcpy(reply, frame, length);
		make_ethernet((struct ethernet *)reply, received->source, net->mac, ETHERTYPE_TEST);
		net_transmit(net, PAIR, length);
		checksum = fnv(checksum, frame + 2 * MAC_SIZE, length - 2 * MAC_SIZE);
	}
	printf("net: echo count=%u checksum=%016lx\n", count, checksum);
}

/* The configuration space has the address when the command is done (section 5.1.6.5.2). */
static void change_mac(struct net *net)
{
	u32 count = cmdline_number("count", 100);
	u8 mac[MAC_SIZE];

	memcpy(mac, net->mac, MAC_SIZE);
	for (u32 i = 1; i <= count; i++) {
		mac[MAC_SIZE - 1]++;
		if (!net_control_set_mac(mac))
			panic("net: address %u refused", i);
		net_read_mac(net);
		if (memcmp(net->mac, mac, MAC_SIZE) != 0)
			panic("net: address %u is not in the configuration space", i);
	}
	print_mac("net: last mac=", net->mac);
	printf("\n");
}

void net_test(struct net *net)
{
	char test[8];
	u8 mac[MAC_SIZE];

	cmdline_string("net", "arp", test, sizeof(test));
	if (string_equal(test, "arp"))
		resolve(net, mac);
	else if (string_equal(test, "udp"))
		exchange_udp(net);
	else if (string_equal(test, "send"))
		send_frames(net);
	else if (string_equal(test, "echo"))
		echo_frames(net);
	else if (string_equal(test, "mac"))
		change_mac(net);
	else if (string_equal(test, "pairs"))
		net_pairs(net);
	else
		panic("net: unknown test %s", test);
}
