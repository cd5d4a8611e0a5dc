/* The net driver for the net tests. */
#pragma once

#include "net_frame.h"
#include "virtio_guest.h"

/* Pairs of queues that are driven; a device may have more. */
#define NET_PAIRS_MAX	4

struct net {
	struct virtio_device *device;
	u8 mac[MAC_SIZE];
	u32 device_pairs;	/* that the device has: without MQ, one */
	u32 pairs;		/* that are set up; the device uses the first only, until told */
	u64 sent, received;
};

/* Where the next frame of a pair is built: FRAME_MAX bytes. */
u8 *net_transmit_buffer(u32 pair);

/* Sends it, and waits until the device has taken it. */
void net_transmit(struct net *net, u32 pair, u32 length);

/* Waits for a frame, copies it (up to FRAME_MAX bytes) and returns its length. */
u32 net_receive(struct net *net, u32 pair, u8 *frame);

/* Whether a frame has come by a pair. */
bool net_pending(u32 pair);

/* Waits for a frame by any of the first `pairs`, and returns which. */
u32 net_wait_any(u32 pairs);

/* Reads the address from the configuration space. */
void net_read_mac(struct net *net);

/* Runs what `net=` names. */
void net_test(struct net *net);

/* By every number of pairs. */
void net_pairs(struct net *net);

/* The control queue, which has this number. */
void net_control_start(struct virtio_device *device, u32 number);

/* Has the device use the first `pairs`; whether it does. */
bool net_control_set_pairs(u32 pairs);

/* Has the device take another address; whether it does. */
bool net_control_set_mac(const u8 *mac);

/* Sets the device up for itself. */
void net_storm(struct virtio_device *device);

/* Prints `what` and the address. */
void print_mac(const char *what, const u8 *mac);
