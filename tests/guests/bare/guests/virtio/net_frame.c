#include "net_frame.h"

#include "runtime.h"

#define HARDWARE_ETHERNET	1
#define IPV4_20_BYTES		0x45
#define IPV4_HEADER		20
#define UDP_HEADER		8

static const u8 broadcast[MAC_SIZE] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

u32 cmdline_ip(const char *name, const char *fallback)
{
	char text[16];
	u32 ip = 0, byte = 0;

	cmdline_string(name, fallback, text, sizeof(text));
	for (const char *s = text; *s; s++) {
		if (*s == '.') {
			ip = ip << 8 | byte;
			byte = 0;
		} else {
			byte = byte * 10 + (*s - '0');
		}
	}
	return swap32(ip << 8 | byte);
}

void make_ethernet(struct ethernet *frame, const u8 *destination, const u8 *source, u16 type)
{
	memcpy(frame->destination, destination, MAC_SIZE);
	memcpy(frame->source, source, MAC_SIZE);
	frame->type = swap16(type);
}

u32 make_arp_request(struct arp *frame, const u8 *mac, u32 ip, u32 target)
{
	memset(frame, 0, sizeof(*frame));
	make_ethernet(&frame->ethernet, broadcast, mac, ETHERTYPE_ARP);
	frame->hardware = swap16(HARDWARE_ETHERNET);
	frame->protocol = swap16(ETHERTYPE_IPV4);
	frame->hardware_size = MAC_SIZE;
	frame->protocol_size = sizeof(ip);
	frame->operation = swap16(ARP_REQUEST);
	memcpy(frame->sender_mac, mac, MAC_SIZE);
	frame->sender_ip = ip;
	frame->target_ip = target;
	return sizeof(*frame);
}

/* RFC 1071 over the 20 bytes of an IPv4 header. */
static u16 header_checksum(const u8 *header)
{
	u32 sum = 0;

	for (u32 i = 0; i < IPV4_HEADER; i += 2)
		sum += header[i] << 8 | header[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return swap16(~sum);
}

u32 make_udp(struct udp *frame, u32 source_ip, u32 destination_ip, u16 port, u32 size)
{
	frame->version = IPV4_20_BYTES;
	frame->service = 0;
	frame->total_length = swap16(IPV4_HEADER + UDP_HEADER + size);
	frame->id = 0;
	frame->fragment = 0;
	frame->ttl = 64;
	frame->protocol = PROTOCOL_UDP;
	frame->header_checksum = 0;
	frame->source_ip = source_ip;
	frame->destination_ip = destination_ip;
	frame->header_checksum = header_checksum(&frame->version);
	frame->source_port = swap16(port);
	frame->destination_port = swap16(port);
	frame->length = swap16(UDP_HEADER + size);
	frame->checksum = 0;	/* none: allowed over IPv4 */
	return sizeof(*frame) + size;
}
