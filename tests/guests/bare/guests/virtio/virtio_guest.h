/* The parts of the virtio guest. Each panics when the device is wrong. */
#pragma once

#include "runtime.h"
#include "virtio.h"
#include "virtqueue.h"

/* Sets the device up; `mode=test`, `bench` or `storm` decides what follows. */
void run_blk(struct virtio_device *device);
void run_net(struct virtio_device *device);
void run_rng(struct virtio_device *device);

/* The blk driver, for the test, the benchmark and the sessions. */

#define SECTOR_SIZE	512
#define BLK_SLOTS	64	/* requests in flight */
#define BLK_DATA	4096	/* bytes each */

enum blk_type {
	BLK_READ = 0,
	BLK_WRITE = 1,
	BLK_FLUSH = 4,
	BLK_GET_ID = 8,
};

enum blk_status {
	BLK_OK = 0,
	BLK_IOERR = 1,
	BLK_UNSUPPORTED = 2,
	BLK_NO_ANSWER = 0xff,	/* the device wrote none */
};

#define BLK_FEATURE_RO		(1ul << 5)
#define BLK_FEATURE_FLUSH	(1ul << 9)
#define BLK_FEATURE_MQ		(1ul << 12)

struct blk {
	struct virtio_device *device;
	struct virtqueue *queue;
	u64 capacity;		/* sectors */
	bool read_only;
};

/* Up to DRIVER_OK, with queue 0. */
void blk_start(struct blk *blk, struct virtio_device *device);

/* The data buffer of request slot `slot`. */
u8 *blk_data(u32 slot);

/* Makes a request available, without a kick; false when the queue is full. */
bool blk_submit(struct blk *blk, u32 slot, u32 type, u64 sector, u32 length);

/* Waits for any request; returns its slot, and its status through `status`. */
u32 blk_complete(struct blk *blk, enum blk_status *status);

void blk_test(struct blk *blk);
void blk_bench(struct blk *blk);
void blk_storm(struct virtio_device *device);

/* The same numbers in every run, until random_stir() makes them others. */
u32 next_random(void);
void random_stir(void);

/* FNV-1a, 64 bits. Start with FNV_START. */
#define FNV_START 0xcbf29ce484222325ul
u64 fnv(u64 hash, const void *data, usize size);
