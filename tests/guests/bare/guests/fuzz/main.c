/*
 * Every CPU does what no driver should to all devices but one, `n=N` operations in all,
 * drawn by `seed=N`: ports, registers, rings, model-specific registers. The device in slot
 * `spare=N` is a disk that CPU 0 reads meanwhile, as a sound driver does.
 *
 * Waits for a byte on the console before it begins and before it ends.
 */
#include "fuzz.h"
#include "layout.h"
#include "watchdog.h"

#define SPARE_EVERY	256

static volatile u32 finished;
static u64 seed, operations;

static const struct kind {
	u32 weight;		/* of 100 */
	bool privileged;
	void (*run)(struct source *source);
} kinds[] = {
	{ 30, false, fuzz_port },
	{ 39, false, fuzz_register },
	{ 1, false, fuzz_setup },
	{ 20, false, fuzz_ring },
	{ 10, true, fuzz_cpu },
};

static const struct kind *draw_kind(struct source *source)
{
	u32 at = draw_below(source, 100);
	const struct kind *kind = kinds;

	while (at >= kind->weight) {
		at -= kind->weight;
		kind++;
	}
	return kind;
}

/* In ring 3, where hosts that emulate ring 0 are quick. */
static void run(u32 index)
{
	struct source source = { seed * MAX_CPUS + index };
	u64 mine = operations / smp_cpu_count();

	enter_ring3();
	for (u64 i = 0; i < mine; i++) {
		const struct kind *kind = draw_kind(&source);

		if (kind->privileged)
			leave_ring3();
		kind->run(&source);
		if (kind->privileged)
			enter_ring3();
		if (index == 0 && i % SPARE_EVERY == 0)
			spare_read(&source);
	}
	leave_ring3();
	__atomic_add_fetch(&finished, 1, __ATOMIC_RELEASE);
}

static void wait_for_byte(void)
{
	while (!console_take())
		pause();
}

/* After a reset each device must start as if nothing had been. */
static void check_target(struct virtio_device *device)
{
	virtio_start(device, 0);
	virtio_write(device, VIRTIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER |
					    STATUS_FEATURES_OK | STATUS_DRIVER_OK);
	if (virtio_read(device, VIRTIO_STATUS) & STATUS_NEEDS_RESET)
		panic("fuzz: slot %u does not start again", device->slot);
	virtio_reset(device);
}

int main(void)
{
	u32 spare = cmdline_number("spare", 0);

	lapic_mask_pic();
	watchdog_start();
	seed = cmdline_number("seed", 1);
	operations = cmdline_number("n", 10000);
	fuzz_cpu_prepare();
	targets_find(spare);
	spare_start(spare);
	printf("fuzz: ready devices=%u cpus=%u\n", targets_count(), smp_cpu_count());
	wait_for_byte();

	for (u32 i = 1; i < smp_cpu_count(); i++)
		if (!smp_start(i, run))
			panic("fuzz: cpu %u did not start", i);
	run(0);
	while (__atomic_load_n(&finished, __ATOMIC_ACQUIRE) < smp_cpu_count())
		pause();

	fuzz_port_restore();
	for (u32 i = 0; i < targets_count(); i++)
		check_target(target(i));
	spare_read(&(struct source){ seed });
	printf("fuzz: done operations=%lu faults=%lu\n", operations, fuzz_cpu_faults());
	wait_for_byte();
	return 0;
}
