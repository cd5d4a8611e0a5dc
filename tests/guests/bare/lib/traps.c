#include "traps.h"

#include "apic.h"
#include "console.h"
#include "io.h"
#include "layout.h"
#include "power.h"

/* As in traps.S. */
#define STUB_SIZE	16

#define GATE_INTERRUPT	0x8e	/* present, DPL 0, interrupt gate */
#define GATE_RING3	0x60	/* DPL 3 */
#define TSS_AVAILABLE	0x89	/* present, DPL 0, 64-bit TSS */
#define TRAP_STACK_SIZE	8192
#define UD2_LENGTH	2

enum system_call {
	CALL_LEAVE_RING3,
	CALL_WAIT,
};

/* SDM vol. 3, 6.14.1 */
struct idt_gate {
	u16 offset_low;
	u16 selector;
	u8 ist;
	u8 type;
	u16 offset_middle;
	u32 offset_high;
	u32 reserved;
};

/* SDM vol. 3, 7.7 */
struct tss {
	u32 reserved0;
	u64 rsp0, rsp1, rsp2;
	u64 reserved1;
	u64 ist[7];
	u64 reserved2;
	u16 reserved3;
	u16 io_map;
} __attribute__((packed));

/*
 * Every TSS points to the one I/O bitmap behind them all: zeros, so all ports
 * are allowed, and a last byte of ones that the processor asks for.
 */
struct task_state {
	struct tss tss[MAX_CPUS];
	u8 io_bitmap[65536 / 8];
	u8 io_bitmap_end;
} __attribute__((packed));

struct table_pointer {
	u16 limit;
	u64 base;
} __attribute__((packed));

extern u8 trap_stubs[], system_call_instruction[];
extern u64 gdt[];

void system_call(enum system_call number, const volatile u32 *value, u32 seen);

static struct idt_gate idt[VECTOR_COUNT];
static struct task_state task_state = { .io_bitmap_end = 0xff };
static trap_handler handlers[VECTOR_COUNT];
static NOINIT u8 trap_stacks[MAX_CPUS][TRAP_STACK_SIZE];

void traps_init(void)
{
	for (u32 vector = 0; vector < VECTOR_COUNT; vector++) {
		u64 offset = (u64)trap_stubs + vector * STUB_SIZE;

		idt[vector].offset_low = offset;
		idt[vector].offset_middle = offset >> 16;
		idt[vector].offset_high = offset >> 32;
		idt[vector].selector = KERNEL_CS;
		idt[vector].type = GATE_INTERRUPT;
	}
}

void traps_load(u32 index)
{
	struct table_pointer idt_pointer = { sizeof(idt) - 1, (u64)idt };
	struct tss *tss = &task_state.tss[index];
	u16 selector = FIRST_TSS + index * 16;
	u64 base = (u64)tss;
	u64 limit = (u64)&task_state.io_bitmap_end - base;

	tss->rsp0 = (u64)trap_stacks[index + 1];
	tss->io_map = (u64)task_state.io_bitmap - base;

	gdt[selector / 8] = (limit & 0xffff) | (base & 0xffffff) << 16 |
			    (u64)TSS_AVAILABLE << 40 | (base >> 24 & 0xff) << 56;
	gdt[selector / 8 + 1] = base >> 32;

	__asm__ volatile("lidt %0" : : "m"(idt_pointer));
	__asm__ volatile("ltr %0" : : "r"(selector));
}

void traps_handle(u32 vector, trap_handler handler)
{
	handlers[vector] = handler;
}

void traps_allow_ring3(u32 vector)
{
	idt[vector].type |= GATE_RING3;
}

/* Ring 0, interrupts off. One asm: the shadow of sti covers the hlt. */
static void sleep_while_equal(const volatile u32 *value, u32 seen)
{
	if (*value == seen)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
}

static void handle_system_call(struct trap_frame *frame)
{
	switch (frame->rdi) {
	case CALL_LEAVE_RING3:
		frame->cs = KERNEL_CS;
		frame->ss = KERNEL_DS;
		break;
	case CALL_WAIT:
		sleep_while_equal((const volatile u32 *)frame->rsi, frame->rdx);
		break;
	}
	frame->rip += UD2_LENGTH;
}

static void unhandled(const struct trap_frame *frame)
{
	u64 cr2;

	__asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
	panic("vector %lu error %lx at %lx:%lx rsp %lx cr2 %lx", frame->vector, frame->error,
	      frame->cs, frame->rip, frame->rsp, cr2);
}

/* Called by traps.S. */
void trap_dispatch(struct trap_frame *frame)
{
	if (frame->vector == VECTOR_INVALID_OPCODE &&
	    frame->rip == (u64)system_call_instruction)
		handle_system_call(frame);
	else if (handlers[frame->vector])
		handlers[frame->vector](frame);
	else
		unhandled(frame);
	if (frame->vector >= VECTOR_FIRST_IRQ)
		lapic_eoi();
}

void leave_ring3(void)
{
	system_call(CALL_LEAVE_RING3, NULL, 0);
}

u32 current_ring(void)
{
	u16 cs;

	__asm__ volatile("mov %%cs, %0" : "=r"(cs));
	return cs & 3;
}

void wait_while_equal(const volatile u32 *value, u32 seen)
{
	u64 flags;

	if (current_ring() == 3) {
		system_call(CALL_WAIT, value, seen);
		return;
	}
	__asm__ volatile("pushfq; popq %0; cli" : "=r"(flags) : : "memory");
	sleep_while_equal(value, seen);
	__asm__ volatile("pushq %0; popfq" : : "r"(flags) : "memory", "cc");
}
