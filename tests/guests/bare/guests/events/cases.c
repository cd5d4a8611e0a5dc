#include "cases.h"

#include "layout.h"

volatile u32 watched;
/* 2 MiB of RAM that nothing else uses. */
volatile u64 *const far_page = (volatile u64 *)0x1000000;

/*
 * In assembler, so that every instruction is where it is. case_trap_flag sees its own
 * trap flag in what it pushes, and must; the others must not see one.
 */
__asm__(
	"	.text\n"
	"case_trap_flag:\n"
	"	pushfq\n"
	"	orq $0x100, (%rsp)\n"
	"	popfq\n"
	"	nop\n"
	"	pushfq\n"
	"	popq %rax\n"
	"	xorq $0x100, %rax\n"
	"	leaq watched(%rip), %rdx\n"
	"	movl $5, (%rdx)\n"
	"	movl $4, %ecx\n"
	"1:	loop 1b\n"
	"	pushfq\n"
	"	andq $~0x100, (%rsp)\n"
	"	popfq\n"
	"	nop\n"
	"	andq $0x100, %rax\n"
	"	ret\n"

	"case_trap_mov_ss:\n"
	"	movl %ss, %edx\n"
	"	pushfq\n"
	"	orq $0x100, (%rsp)\n"
	"	popfq\n"
	"	movl %edx, %ss\n"
	"	nop\n"
	"	pushfq\n"
	"	andq $~0x100, (%rsp)\n"
	"	popfq\n"
	"	xorl %eax, %eax\n"
	"	ret\n"

	"case_flags:\n"
	"	pushfq\n"
	"	popq %rax\n"
	"	pushfq\n"
	"	popq %rdx\n"
	"	orq %rdx, %rax\n"
	"	ret\n"

	"case_int3:\n"
	"	xorl %eax, %eax\n"
	"	int3\n"
	"	int3\n"
	"	ret\n"

	"case_int1:\n"
	"	xorl %eax, %eax\n"
	"	.byte 0xf1\n"
	"	nop\n"
	"	.byte 0xf1, 0xf1\n"
	"	ret\n"

	"case_breakpoint:\n"
	"	xorl %eax, %eax\n"
	"breakpoint_here:\n"
	"	nop\n"
	"	ret\n"

	"case_watchpoint:\n"
	"	xorl %eax, %eax\n"
	"	leaq watched(%rip), %rdx\n"
	"	movl $7, (%rdx)\n"
	"	nop\n"
	"	ret\n"

	"case_software:\n"
	"	xorl %eax, %eax\n"
	"	int $48\n"
	"	ret\n"

	"case_fault:\n"
	"	movq far_page(%rip), %rdx\n"
	"	movq (%rdx), %rax\n"
	"	xorl %eax, %eax\n"
	"	ret\n"

	"case_invalid:\n"
	"	xorl %eax, %eax\n"
	"	ud2\n"
	"	ret\n"

	/* Accesses that KVM has others do: across a page, and of strings, too. */
	"case_devices:\n"
	"	movl $0xd0f00000, %edx\n"
	"	movl (%rdx), %eax\n"
	"	movl %eax, (%rdx)\n"
	"	movq %rax, 0xffc(%rdx)\n"
	"	movq 0xffc(%rdx), %rax\n"
	"	movl $0x80, %edx\n"
	"	outb %al, %dx\n"
	"	movb $0x42, %al\n"
	"	inb %dx, %al\n"
	"	leaq watched(%rip), %rsi\n"
	"	movl $3, %ecx\n"
	"	rep outsb\n"
	"	leaq watched(%rip), %rdi\n"
	"	movl $3, %ecx\n"
	"	rep insb\n"
	"	xorl %eax, %eax\n"
	"	ret\n"

	"case_syscall:\n"
	"	syscall\n"
	"	movq %r11, %rax\n"
	"	ret\n"

	/* Back to ring 3, on whose stack this runs, with the flags that were saved. */
	"syscall_entry:\n"
	"	movq %rsp, %rax\n"
	"	pushq $0x23\n"
	"	pushq %rax\n"
	"	pushq %r11\n"
	"	pushq $0x1b\n"
	"	pushq %rcx\n"
	"	iretq\n"
	"	.globl case_trap_flag, case_trap_mov_ss, case_flags, case_int3, case_int1\n"
	"	.globl case_breakpoint, case_watchpoint, case_software, case_fault, case_invalid\n"
	"	.globl case_devices, case_syscall, syscall_entry, breakpoint_here\n");
