/* The ring of a packed virtqueue (virtio 1.3, section 2.8). */
#pragma once

#include "types.h"
#include "virtqueue_desc.h"

/* Who wrote a descriptor last, by comparison with the wrap counter (2.8.1). */
#define PACKED_AVAIL	(1u << 7)
#define PACKED_USED	(1u << 15)

/* Event suppression (2.8.14). */
#define EVENTS_ENABLE	0
#define EVENTS_DISABLE	1
#define EVENTS_AT	2	/* a place; with EVENT_IDX only */
#define EVENT_WRAP	(1u << 15)

struct packed_desc {
	u64 address;
	u32 length;
	u16 id;
	volatile u16 flags;
};

struct packed_events {
	volatile u16 place;	/* and in its highest bit the wrap counter there */
	volatile u16 flags;
};

struct packed_place {
	u16 index;
	bool wrap;
};

struct packed_rings {
	struct packed_desc desc[QUEUE_MAX] __attribute__((aligned(4096)));
	struct packed_events driver __attribute__((aligned(4096)));
	struct packed_events device __attribute__((aligned(4096)));
	struct packed_desc indirect[QUEUE_MAX][CHAIN_MAX];

	struct packed_place next_available;
	struct packed_place next_used;
	u16 added;		/* descriptors, since the device's wish was last looked at */
	u16 free_id;
	u16 next_free[QUEUE_MAX];
	u16 taken[QUEUE_MAX];	/* descriptors of the chain with this id; 0 when it is free */
};
