/* The net driver for the net tests. */
#pragma once

#include "net_frame.h"
#include "virtio_guest.h"

struct net {
	struct virtio_device *device;
	u8 mac[MAC_SIZE];
	u64 sent, received;
};

/* Where the next frame is built: FRAME_MAX bytes. */
u8 *net_transmit_buffer(void);

/* Sends it, and waits until the device has taken it. */
void net_transmit(struct net *net, u32 length);

/* Waits for a frame, copies it (up to FRAME_MAX bytes) and returns its length. */
u32 net_receive(struct net *net, u8 *frame);

/* Runs what `net=` names. */
void net_test(struct net *net);

/* Sets the device up for itself. */
void net_storm(struct virtio_device *device);

/* Prints `what` and the address. */
void print_mac(const char *what, const u8 *mac);
