/* Exceptions, interrupts and the change of rings. */
#pragma once

#include "types.h"

/* What traps.S pushes; rip and below by the processor. */
struct trap_frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8;
	u64 rdi, rsi, rbp, rdx, rcx, rbx, rax;
	u64 vector, error;
	u64 rip, cs, rflags, rsp, ss;
};

typedef void (*trap_handler)(struct trap_frame *frame);

#define VECTOR_INVALID_OPCODE	6
#define VECTOR_GENERAL_PROTECTION	13
#define VECTOR_PAGE_FAULT	14
#define VECTOR_FIRST_IRQ	32
#define VECTOR_COUNT		64

/* Fills the IDT; once, before traps_load(). */
void traps_init(void);

/* Loads the IDT and the TSS of CPU `index` (0 = boot CPU) on that CPU. */
void traps_load(u32 index);

/*
 * Calls `handler` for `vector` (below VECTOR_COUNT). Vectors from
 * VECTOR_FIRST_IRQ are acknowledged to the LAPIC afterwards. An exception
 * without a handler is a panic.
 */
void traps_handle(u32 vector, trap_handler handler);

/* Lets ring 3 raise `vector` by a software interrupt. */
void traps_allow_ring3(u32 vector);

/*
 * From ring 0 to ring 3 and back, on the same stack. Ring 3 may do port I/O
 * (TSS bitmap) and MMIO, but not cli and sti.
 * PVM hosts do not keep IOPL, so it is not used.
 */
void enter_ring3(void);
void leave_ring3(void);

/* The ring this code runs in: 0 or 3. */
u32 current_ring(void);

/*
 * Sleeps until an interrupt has been handled, unless `*value` is no longer
 * `seen`. The test and the sleep are one step: an interrupt handler that
 * changes `*value` cannot slip in between.
 */
void wait_while_equal(const volatile u32 *value, u32 seen);
