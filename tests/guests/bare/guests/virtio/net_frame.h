/* Ethernet, ARP, IPv4 and UDP, as far as the net tests go. */
#pragma once

#include "types.h"

#define MAC_SIZE	6
#define FRAME_MAX	1514

#define ETHERTYPE_IPV4	0x0800
#define ETHERTYPE_ARP	0x0806
#define ETHERTYPE_TEST	0x88b5	/* IEEE 802, local experiments */

#define ARP_REQUEST	1
#define ARP_REPLY	2

#define PROTOCOL_UDP	17

struct ethernet {
	u8 destination[MAC_SIZE];
	u8 source[MAC_SIZE];
	u16 type;
} __attribute__((packed));

struct arp {
	struct ethernet ethernet;
	u16 hardware, protocol;
	u8 hardware_size, protocol_size;
	u16 operation;
	u8 sender_mac[MAC_SIZE];
	u32 sender_ip;
	u8 target_mac[MAC_SIZE];
	u32 target_ip;
} __attribute__((packed));

struct udp {
	struct ethernet ethernet;
	u8 version, service;
	u16 total_length, id, fragment;
	u8 ttl, protocol;
	u16 header_checksum;
	u32 source_ip, destination_ip;
	u16 source_port, destination_port, length, checksum;
	u8 payload[];
} __attribute__((packed));

static inline u16 swap16(u16 value)
{
	return value << 8 | value >> 8;
}

static inline u32 swap32(u32 value)
{
	return __builtin_bswap32(value);
}

/* `ip` values are in network order: "a.b.c.d" of a command-line parameter. */
u32 cmdline_ip(const char *name, const char *fallback);

void make_ethernet(struct ethernet *frame, const u8 *destination, const u8 *source, u16 type);

/* An ARP request for `target`; returns its length. */
u32 make_arp_request(struct arp *frame, const u8 *mac, u32 ip, u32 target);

/* The UDP and IP headers around `size` bytes that are in `payload`; returns the length. */
u32 make_udp(struct udp *frame, u32 source_ip, u32 destination_ip, u16 port, u32 size);
