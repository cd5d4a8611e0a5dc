/* A virtio-rng driver (virtio 1.3, section 5.4): asks for `bytes=N` (64) bytes. */
#include "virtio_guest.h"

#define RNG_MAX	4096

static NOINIT struct virtqueue queue;
static NOINIT u8 data[RNG_MAX];

/* One request; the device may give less than it was asked for, but something. */
static u32 ask(u8 *to, u32 length)
{
	struct buffer buffer = { to, length, true };
	struct used_chain chain;

	if (virtqueue_add(&queue, &buffer, 1) < 0)
		panic("rng: queue full");
	virtqueue_kick(&queue);
	chain = virtqueue_wait(&queue);
	if (chain.length == 0 || chain.length > length)
		panic("rng: %u bytes for a buffer of %u", chain.length, length);
	return chain.length;
}

void run_rng(struct virtio_device *device)
{
	u64 wanted = cmdline_number("bytes", 64);
	u32 got = 0;

	if (wanted == 0 || wanted > RNG_MAX)
		panic("rng: bytes=%lu", wanted);
	virtio_start(device, virtqueue_features());
	if (!virtqueue_setup(&queue, device, 0, QUEUE_MAX))
		panic("rng: no queue 0");
	virtio_driver_ok(device);
	while (got < wanted)
		got += ask(data + got, wanted - got);
	printf("rng: ok bytes=%u checksum=%016lx\n", got, fnv(FNV_START, data, got));
}
