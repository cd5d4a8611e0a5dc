#include "traps.h"

#include "apic.h"
#include "console.h"
#include "io.h"
#include "layout.h"
#include "power.h"

/* As in traps.S. */
#define STUB_SIZE	16

#define GATE_INTERRUPT	0x8e	/* present, DPL 0, interrupt gate */
#define GATE_DPL3	0x60
#define TSS_AVAILABLE	0x89	/* present, DPL 0, 64-bit TSS */
#define TRAP_STACK_SIZE	8192

enum syscall {
	SYSCALL_LEAVE_RING3,
	SYSCALL_WAIT,
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

struct table_pointer {
	u16 limit;
	u64 base;
} __attribute__((packed));

extern u8 trap_stubs[], syscall_stub[];
extern u64 gdt[];

static struct idt_gate idt[256];
static struct tss tss[MAX_CPUS];
static trap_handler handlers[VECTOR_COUNT];
static NOINIT u8 trap_stacks[MAX_CPUS][TRAP_STACK_SIZE];

static void set_gate(u32 vector, const u8 *entry, u8 type)
{
	u64 offset = (u64)entry;

	idt[vector].offset_low = offset;
	idt[vector].offset_middle = offset >> 16;
	idt[vector].offset_high = offset >> 32;
	idt[vector].selector = KERNEL_CS;
	idt[vector].type = type;
}

void traps_init(void)
{
	for (u32 vector = 0; vector < VECTOR_COUNT; vector++)
		set_gate(vector, trap_stubs + vector * STUB_SIZE, GATE_INTERRUPT);
	set_gate(SYSCALL_VECTOR, syscall_stub, GATE_INTERRUPT | GATE_DPL3);
}

void traps_load(u32 index)
{
	struct table_pointer idt_pointer = { sizeof(idt) - 1, (u64)idt };
	u16 selector = FIRST_TSS + index * 16;
	u64 base = (u64)&tss[index];

	tss[index].rsp0 = (u64)trap_stacks[index + 1];
	tss[index].io_map = sizeof(struct tss);

	gdt[selector / 8] = (sizeof(struct tss) - 1) | (base & 0xffffff) << 16 |
			    (u64)TSS_AVAILABLE << 40 | (base >> 24 & 0xff) << 56;
	gdt[selector / 8 + 1] = base >> 32;

	__asm__ volatile("lidt %0" : : "m"(idt_pointer));
	__asm__ volatile("ltr %0" : : "r"(selector));
}

void traps_handle(u32 vector, trap_handler handler)
{
	handlers[vector] = handler;
}

static void handle_syscall(struct trap_frame *frame)
{
	switch (frame->rax) {
	case SYSCALL_LEAVE_RING3:
		frame->cs = KERNEL_CS;
		frame->ss = KERNEL_DS;
		break;
	case SYSCALL_WAIT:
		wait_for_interrupt();
		break;
	default:
		panic("unknown system call %lu at %lx", frame->rax, frame->rip);
	}
}

/* Called by traps.S. */
void trap_dispatch(struct trap_frame *frame)
{
	u64 cr2;

	if (frame->vector == SYSCALL_VECTOR) {
		handle_syscall(frame);
		return;
	}
	if (handlers[frame->vector] == NULL) {
		__asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
		panic("vector %lu error %lx at %lx:%lx rsp %lx cr2 %lx", frame->vector,
		      frame->error, frame->cs, frame->rip, frame->rsp, cr2);
	}
	handlers[frame->vector](frame);
	if (frame->vector >= VECTOR_FIRST_IRQ)
		lapic_eoi();
}

static void syscall(enum syscall number)
{
	__asm__ volatile("int %0" : : "i"(SYSCALL_VECTOR), "a"((u64)number) : "memory");
}

void leave_ring3(void)
{
	syscall(SYSCALL_LEAVE_RING3);
}

u32 current_ring(void)
{
	u16 cs;

	__asm__ volatile("mov %%cs, %0" : "=r"(cs));
	return cs & 3;
}

void wait_for_interrupt(void)
{
	if (current_ring() == 0)
		/* One asm: the interrupt shadow of sti covers the hlt. */
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	else
		syscall(SYSCALL_WAIT);
}
