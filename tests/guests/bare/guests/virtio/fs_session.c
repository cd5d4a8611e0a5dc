/*
 * A file system (virtio 1.3, section 5.11), asked for the attributes of its root: requests
 * as FUSE has them (include/uapi/linux/fuse.h), which end in any order.
 */
#include "session.h"
#include "virtio_guest.h"

#define REQUESTS	1	/* the queue; 0 is for urgent ones */
#define SLOTS		32
/* The lower half shows that the device works, the upper is left in flight. */
#define HALF		(SLOTS / 2)
/* So many of those that are left in flight may finish before. */
#define FINISHED_MAX	(HALF / 2)

#define FUSE_GETATTR	3
#define FUSE_INIT	26
#define FUSE_ROOT	1

struct request {
	struct {
		u32 length, opcode;
		u64 unique, node;
		u32 uid, gid, pid, padding;
		u32 body[16];
	} in;
	struct {
		u32 length;
		s32 error;
		u64 unique;
		u8 body[128];
	} out;
};

static NOINIT struct virtqueue queue;
static struct request requests[SLOTS];
static s32 owner[QUEUE_MAX];	/* the slot of the chain with this head; or -1 */
static u64 completed;

static void submit(u32 slot, u32 opcode, u32 in, u32 out)
{
	struct request *request = &requests[slot];
	struct buffer buffers[] = { { &request->in, 40 + in, false },
				    { &request->out, 16 + out, true } };
	s32 head;

	request->in.length = 40 + in;
	request->in.opcode = opcode;
	request->in.unique = 2 * (slot + 1);
	request->in.node = FUSE_ROOT;
	head = virtqueue_add(&queue, buffers, 2);
	if (head < 0)
		panic("session: queue full");
	owner[head] = slot;
}

static void give(u32 first)
{
	for (u32 slot = first; slot < first + HALF; slot++) {
		memset(&requests[slot].in, 0, sizeof(requests[slot].in));
		submit(slot, FUSE_GETATTR, 16, 104);
	}
	virtqueue_kick(&queue);
}

static void complete_one(void)
{
	struct used_chain chain = virtqueue_wait(&queue);
	s32 slot = owner[chain.id];
	const struct request *request = &requests[slot];

	if (slot < 0)
		panic("session: chain %u came back twice", chain.id);
	owner[chain.id] = -1;
	if (request->out.unique != request->in.unique || request->out.error)
		panic("session: request %d gives error %d", slot, request->out.error);
	completed++;
}

static void initialize(void)
{
	memset(&requests[0].in, 0, sizeof(requests[0].in));
	requests[0].in.body[0] = 7;	/* version 7.31 */
	requests[0].in.body[1] = 31;
	submit(0, FUSE_INIT, 16, 64);
	virtqueue_kick(&queue);
	complete_one();
}

static void expect_scribble(void)
{
	for (u32 slot = HALF; slot < SLOTS; slot++)
		for (u32 i = 0; i < sizeof(requests[slot].out); i++)
			if (((u8 *)&requests[slot].out)[i] != SCRIBBLE)
				panic("session: buffer %u was written after the reset", slot);
}

u32 fs_session(struct virtio_device *device)
{
	u64 enough;

	for (u32 slot = HALF; slot < SLOTS; slot++)
		memset(&requests[slot].out, SCRIBBLE, sizeof(requests[slot].out));
	memset(owner, 0xff, sizeof(owner));
	virtio_start(device, virtqueue_features());
	if (!virtqueue_setup(&queue, device, REQUESTS, QUEUE_MAX))
		panic("session: no queue %u", REQUESTS);
	virtio_driver_ok(device);
	initialize();
	give(0);
	enough = completed + HALF;
	while (completed < enough)
		complete_one();
	expect_scribble();

	give(HALF);
	enough = completed + next_random() % (FINISHED_MAX + 1);
	while (completed < enough)
		complete_one();
	return virtqueue_in_flight(&queue);
}
