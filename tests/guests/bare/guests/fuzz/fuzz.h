/* One file a kind of operation; main.c draws which comes next. */
#pragma once

#include "runtime.h"
#include "virtio.h"

#define TARGETS_MAX	8

/*
 * Where devices may write: queues and buffers are put here, or where no RAM is. No change
 * of one byte of such an address leads to the guest's own code or data.
 */
#define ARENA		0x2800000ul
#define ARENA_SIZE	0x100000ul

/* A CPU's random numbers: what it does is decided by the seed and its index alone. */
struct source {
	u64 state;
};

u64 draw(struct source *source);
u64 draw_below(struct source *source, u64 limit);

/* True `times` in a hundred. */
bool draw_chance(struct source *source, u32 times);

/* A number at which a device may stumble: a small one, one beside a power of two, any. */
u64 draw_value(struct source *source);

/* An address where no RAM is. */
u64 draw_nowhere(struct source *source);

/* An address of the arena; now and then one where no RAM is. */
u64 draw_address(struct source *source);

/* Finds the devices, all but the one in slot `spare`. Panics without one. */
void targets_find(u32 spare);
u32 targets_count(void);
struct virtio_device *target(u32 number);

/* Each does one thing that a driver should not, or that a sound one does. */
void fuzz_port(struct source *source);
void fuzz_register(struct source *source);
void fuzz_setup(struct source *source);
void fuzz_ring(struct source *source);
void fuzz_cpu(struct source *source);

/* Ring 0. Lets fuzz_cpu() meet general protection faults. */
void fuzz_cpu_prepare(void);

/* Faults that it has met, on all CPUs. */
u64 fuzz_cpu_faults(void);

/* Puts the UART back to what the console expects. */
void fuzz_port_restore(void);

/* A disk in use by a sound driver, beside all this. */
void spare_start(u32 slot);

/* Reads a sector, and panics if it is not what the test has put there. */
void spare_read(struct source *source);
