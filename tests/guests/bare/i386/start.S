/*
 * The PVH entry of the 32-bit guest: ebx = hvm_start_info, paging off, the segments
 * flat. "paging=32" or "paging=pae" as the command line turns paging on, which not
 * every host can outside of long mode (PVM). The segments stay the loader's; there
 * is no IDT, so that an exception is a triple fault.
 */
	.cfi_sections .debug_frame

#define CR0_PG		(1 << 31)
#define CR4_PSE		(1 << 4)
#define CR4_PAE		(1 << 5)

/* hvm_start_info's address of the command line; where that names the paging. */
#define START_INFO_CMDLINE	24
#define PAGING			7

/* XEN_ELFNOTE_PHYS32_ENTRY, with the 4-byte descriptor of 32-bit kernels. */
	.section .note.pvh, "a", @note
	.balign	4
	.long	4, 4, 18
	.asciz	"Xen"
	.long	pvh_start

	.text
	.globl	pvh_start
	.type	pvh_start, @function
pvh_start:
	.cfi_startproc
	.cfi_undefined eip
	cli
	cld
	movl	START_INFO_CMDLINE(%ebx), %eax
	movb	PAGING(%eax), %dl
	cmpb	$'3', %dl
	movl	$page_directory, %eax
	movl	$CR4_PSE, %ecx
	je	1f
	cmpb	$'p', %dl
	movl	$pae_pointers, %eax
	movl	$CR4_PAE, %ecx
	jne	2f
1:	movl	%eax, %cr3
	movl	%ecx, %cr4
	movl	%cr0, %eax
	orl	$CR0_PG, %eax
	movl	%eax, %cr0
2:	movl	$boot_stack_top, %esp
	xorl	%ebp, %ebp
	call	runtime_start
	ud2
	.cfi_endproc
	.size	pvh_start, . - pvh_start

/*
 * Both tables map the first GiB twice, from 0 and from 3 GiB on, with large pages.
 * The assembler builds them: a host that emulates ring 0 would take its time.
 */
#define PTE_PRESENT	1
#define PTE_WRITE	2
#define PTE_HUGE	0x80
#define PTE_LEAF	(PTE_PRESENT | PTE_WRITE | PTE_HUGE)

	.macro	MAP_FIRST_GIB
	.set	address, 0
	.rept	256
	.long	address + PTE_LEAF
	.set	address, address + 0x400000
	.endr
	.endm

	.data
	.balign	4096
page_directory:
	MAP_FIRST_GIB
	.fill	512, 4, 0
	MAP_FIRST_GIB

pae_directory:
	.set	address, 0
	.rept	512
	.quad	address + PTE_LEAF
	.set	address, address + 0x200000
	.endr

	.balign	32
pae_pointers:
	.long	pae_directory + PTE_PRESENT, 0, 0, 0
	.long	0, 0, pae_directory + PTE_PRESENT, 0

	.bss
	.balign	16
	.skip	4096
boot_stack_top:

	.section .note.GNU-stack, "", @progbits
