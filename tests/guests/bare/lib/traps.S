/*
 * Interrupt entry, and the way to ring 3 and back.
 */
#include "layout.h"

	.cfi_sections .debug_frame

/* Must match STUB_SIZE and STUB_COUNT in traps.c. */
#define STUB_SIZE	16
#define STUB_COUNT	64

	.text
	.balign	STUB_SIZE
	.globl	trap_stubs
trap_stubs:
	.set	vector, 0
	.rept	STUB_COUNT
	.balign	STUB_SIZE
	/* Exceptions 8, 10..14, 17, 21 push an error code (SDM vol. 3, 6.13). */
	.if	(vector != 8) && (vector < 10 || vector > 14) && (vector != 17) && (vector != 21)
	pushq	$0
	.endif
	pushq	$vector
	jmp	trap_entry
	.set	vector, vector + 1
	.endr

/*
 * Saves a struct trap_frame (traps.h) and calls trap_dispatch(frame). The CFI
 * lets gdb walk from a handler into the interrupted code, whatever its ring.
 */
	.globl	trap_entry
	.type	trap_entry, @function
trap_entry:
	.cfi_startproc
	.cfi_signal_frame
	.cfi_def_cfa rsp, 56
	.cfi_offset rip, -40
	.cfi_offset rsp, -16
	pushq	%rax
	pushq	%rbx
	pushq	%rcx
	pushq	%rdx
	pushq	%rbp
	pushq	%rsi
	pushq	%rdi
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	.cfi_def_cfa_offset 176
	.cfi_offset rax, -64
	.cfi_offset rbx, -72
	.cfi_offset rcx, -80
	.cfi_offset rdx, -88
	.cfi_offset rbp, -96
	.cfi_offset rsi, -104
	.cfi_offset rdi, -112
	.cfi_offset r8, -120
	.cfi_offset r9, -128
	.cfi_offset r10, -136
	.cfi_offset r11, -144
	.cfi_offset r12, -152
	.cfi_offset r13, -160
	.cfi_offset r14, -168
	.cfi_offset r15, -176
	cld
	movq	%rsp, %rdi
	call	trap_dispatch
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rdi
	popq	%rsi
	popq	%rbp
	popq	%rdx
	popq	%rcx
	popq	%rbx
	popq	%rax
	.cfi_def_cfa_offset 56
	addq	$16, %rsp
	.cfi_def_cfa_offset 40
	iretq
	.cfi_endproc
	.size	trap_entry, . - trap_entry

/* void enter_ring3(void): returns to its caller in ring 3, on the same stack. */
	.globl	enter_ring3
	.type	enter_ring3, @function
enter_ring3:
	.cfi_startproc
	popq	%rax
	.cfi_adjust_cfa_offset -8
	.cfi_register rip, rax
	movq	%rsp, %rcx
	pushq	$USER_DS
	pushq	%rcx
	pushfq
	pushq	$USER_CS
	pushq	%rax
	.cfi_adjust_cfa_offset 40
	iretq
	.cfi_endproc
	.size	enter_ring3, . - enter_ring3

/*
 * void system_call(enum system_call number, const volatile u32 *value, u32 seen)
 *
 * The arguments are in rdi, rsi and rdx already. `ud2` is the one way from
 * ring 3 to ring 0 that every host delivers: PVM turns `int $0x80` into #UD
 * anyway and runs the target of `syscall` in ring 3.
 */
	.globl	system_call, system_call_instruction
	.type	system_call, @function
system_call:
	.cfi_startproc
system_call_instruction:
	ud2
	ret
	.cfi_endproc
	.size	system_call, . - system_call

	.section .note.GNU-stack, "", @progbits
