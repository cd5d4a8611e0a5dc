/* The rings of a split virtqueue (virtio 1.3, section 2.7). */
#pragma once

#include "types.h"
#include "virtqueue_desc.h"

#define AVAIL_NO_INTERRUPT	1
#define USED_NO_NOTIFY		1

struct virtq_desc {
	u64 address;
	u32 length;
	u16 flags;
	u16 next;
};

struct virtq_avail {
	volatile u16 flags;
	volatile u16 index;
	u16 ring[QUEUE_MAX + 1];	/* used_event is behind the last entry */
};

struct virtq_used_element {
	u32 id;
	u32 length;
};

struct virtq_used {
	volatile u16 flags;
	volatile u16 index;
	struct virtq_used_element ring[QUEUE_MAX + 1];	/* avail_event is behind the last */
};

struct split_rings {
	struct virtq_desc desc[QUEUE_MAX] __attribute__((aligned(4096)));
	struct virtq_avail avail __attribute__((aligned(4096)));
	struct virtq_used used __attribute__((aligned(4096)));
	struct virtq_desc indirect[QUEUE_MAX][CHAIN_MAX];

	u16 free_head;
	u16 last_used;
	u16 last_kick;		/* available index when the device's wish was last looked at */
};
