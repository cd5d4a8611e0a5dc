/*
 * Works on the shared memory of the kit's board (backends/examples/board.rs):
 * has a page hung up, reads and writes it in place, and looks at what is there
 * when nothing hangs. With `wait` another backend takes over in between; with `cut`
 * the file behind a page is cut short, which costs the device a reset.
 */
#include "cmdline.h"
#include "io.h"
#include "power.h"
#include "runtime.h"
#include "string.h"
#include "virtio.h"
#include "virtqueue.h"

#define DEVICE_BOARD	63

#define PTE_PRESENT	0x01ul
#define PTE_WRITE	0x02ul
#define PTE_USER	0x04ul
#define PTE_LARGE	0x80ul
#define GIB		(1ul << 30)
#define LARGE_PAGE	(2ul << 20)

#define HANG_UP		'w'	/* the guest may write */
#define SHOW		'r'	/* it may only read */
#define TAKE_DOWN	'd'

extern u64 page_pdpt[];

static NOINIT struct virtqueue queue;
static u64 directory[512] __attribute__((aligned(4096)));
static u8 command[2];
static u8 answer;

/* Identity-maps the GiB that `address` is in. */
static void map_gib(u64 address)
{
	u64 start = address & ~(GIB - 1);

	for (u32 i = 0; i < 512; i++)
		directory[i] = (start + i * LARGE_PAGE) | PTE_PRESENT | PTE_WRITE | PTE_USER |
			       PTE_LARGE;
	page_pdpt[start / GIB] = (u64)directory | PTE_PRESENT | PTE_WRITE | PTE_USER;
}

/* What the device says to `what` with page `page` of the region: 0 is yes. */
static u8 ask(u8 what, u8 page)
{
	struct buffer buffers[] = { { command, 2, false }, { &answer, 1, true } };

	command[0] = what;
	command[1] = page;
	answer = 0xff;
	if (virtqueue_add(&queue, buffers, 2) < 0)
		panic("board: queue full");
	virtqueue_kick(&queue);
	virtqueue_wait(&queue);
	return answer;
}

static void expect(const char *what, u64 found, u64 wanted)
{
	if (found != wanted)
		panic("board: %s is %lx, not %lx", what, found, wanted);
}

static void start(struct virtio_device *device)
{
	virtio_start(device, 0);
	if (!virtqueue_setup(&queue, device, 0, QUEUE_MAX))
		panic("board: no queue 0");
	virtio_driver_ok(device);
}

static void read_what_is_cut(struct virtio_device *device, u64 base)
{
	u32 found;

	expect("the answer to hanging up", ask(HANG_UP, 0), 0);
	printf("board: reads %s\n", (const char *)base);
	printf("board: waits\n");
	while (!console_take())
		;
	/* With interrupts on, KVM may try again without end (asynchronous page faults). */
	if (cmdline_flag("masked"))
		interrupts_off();
	found = read32(base);
	interrupts_on();
	if (found && found != 0xffffffff)
		panic("board: %x is read where the file was cut", found);
	printf("board: runs on\n");
	while (!(virtio_read(device, VIRTIO_STATUS) & STATUS_NEEDS_RESET))
		;
	virtio_reset(device);
	printf("board: was reset\n");
	while (!console_take())
		;
	start(device);
	expect("the answer after a reset", ask(SHOW, 1), 0);
	expect("page 1 after a reset", read8(base + 4096 + 64), 'w');
	printf("board: ok\n");
}

int main(void)
{
	struct virtio_device device;
	u64 base, size;

	if (!virtio_probe(&device, 0) || device.device_id != DEVICE_BOARD)
		panic("board: there is none");
	virtio_shared_memory(&device, 1, &base, &size);
	expect("the size of region 1, which is absent,", size, ~0ul);
	virtio_shared_memory(&device, 0, &base, &size);
	printf("board: base=%lx size=%lx\n", base, size);
	map_gib(base);
	start(&device);
	if (cmdline_flag("cut")) {
		read_what_is_cut(&device, base);
		return 0;
	}

	expect("what is read where nothing hangs", read32(base), 0xffffffff);
	expect("the answer to hanging up", ask(HANG_UP, 0), 0);
	printf("board: reads %s\n", (const char *)base);
	memcpy((void *)(base + 64), "written by the guest", 21);
	expect("the answer to hanging up again", ask(HANG_UP, 0), 1);
	expect("the answer to showing page 1", ask(SHOW, 1), 0);
	write32(base + 4096 + 64, 0);	/* has no effect */
	expect("page 1", read8(base + 4096 + 64), 'w');
	expect("the answer to taking down", ask(TAKE_DOWN, 0), 0);
	expect("what is read when it is down", read32(base), 0xffffffff);
	expect("page 1 meanwhile", read8(base + 4096 + 64), 'w');
	if (cmdline_flag("wait")) {
		printf("board: waits\n");
		while (!console_take())
			;
		expect("page 1 with another backend", read8(base + 4096 + 64), 'w');
		expect("the new one's answer", ask(HANG_UP, 1), 0);
		expect("page 1 hung up again", read8(base + 4096 + 64), 'w');
	}
	virtio_reset(&device);
	expect("page 1 after a reset", read8(base + 4096), 0xff);
	start(&device);
	expect("the answer after a reset", ask(SHOW, 1), 0);
	expect("page 1 after a reset", read8(base + 4096 + 64), 'w');
	printf("board: ok\n");
	return 0;
}
