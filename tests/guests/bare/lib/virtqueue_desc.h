/* What queues of either format have room for. */
#pragma once

#define QUEUE_MAX	256
#define CHAIN_MAX	4

/* Descriptor flags of both formats (virtio 1.3, sections 2.7.5 and 2.8.13). */
#define DESC_NEXT	1
#define DESC_WRITE	2	/* the device writes it */
#define DESC_INDIRECT	4
