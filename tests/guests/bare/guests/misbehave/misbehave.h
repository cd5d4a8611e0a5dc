/* One function a misdeed; main.c picks. */
#pragma once

#include "runtime.h"
#include "virtio.h"
#include "virtqueue.h"

struct misdeed {
	const char *name;
	void (*run)(void);
};

/* Tables that end with a NULL name. */
extern const struct misdeed cpu_misdeeds[];
extern const struct misdeed bus_misdeeds[];
extern const struct misdeed register_misdeeds[];
extern const struct misdeed ring_misdeeds[];

/* The device to annoy: `slot=N`, or the first that is found. Panics without one. */
struct virtio_device *victim(void);

/* Its only queue in use. */
extern struct virtqueue victim_queue;

u32 victim_status(void);

/* Reset, then Status up to FEATURES_OK with VERSION_1 accepted. */
void victim_negotiate(void);

/* victim_negotiate(), queue 0 ready, DRIVER_OK; polling. */
void victim_start(void);

/*
 * Starts the device properly and, on a block device, reads sector 0: whatever
 * was done to it before, a reset must make it work again. Says whether it does.
 */
bool victim_recover(void);

/* Whether `queue` got something back within about 100 ms, or NEEDS_RESET came. */
const char *victim_reaction(void);
