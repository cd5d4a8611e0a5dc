/*
 * Entry points: everything between the loader's first instruction and C.
 *
 *   pvh_start    32-bit, paging off, ebx = hvm_start_info (the PVH note)
 *   elf_start    64-bit, paging on, rsi = boot_params (the ELF entry; the
 *                Linux 64-bit boot protocol)
 *   ap_trampoline  16-bit, copied below 1 MiB and started by a SIPI
 *
 * All three end in 64-bit mode on this image's own GDT and page tables.
 * Nothing here clears memory: the image has its zeros in the file (link.ld).
 */
#include "layout.h"

	.cfi_sections .debug_frame

#define CR0_PE          (1 << 0)
#define CR0_NW          (1 << 29)
#define CR0_CD          (1 << 30)
#define CR0_PG          (1 << 31)
#define CR4_PAE         (1 << 5)
#define MSR_EFER        0xc0000080
#define EFER_LME        (1 << 8)

/* The PVH entry: XEN_ELFNOTE_PHYS32_ENTRY, an 8-byte descriptor as Linux has. */
	.section .note.pvh, "a", @note
	.balign	4
	.long	4, 8, 18
	.asciz	"Xen"
	.quad	pvh_start

/*
 * From 32-bit protected mode without paging to 64-bit code at `target`.
 * Clobbers eax, ecx, edx.
 */
	.macro	ENTER_LONG_MODE target
	movl	%cr4, %eax
	orl	$CR4_PAE, %eax
	movl	%eax, %cr4
	movl	$page_pml4, %eax
	movl	%eax, %cr3
	movl	$MSR_EFER, %ecx
	rdmsr
	orl	$EFER_LME, %eax
	wrmsr
	movl	%cr0, %eax
	andl	$~(CR0_CD | CR0_NW), %eax	/* INIT leaves the caches off */
	orl	$(CR0_PG | CR0_PE), %eax
	movl	%eax, %cr0
	ljmpl	$KERNEL_CS, $\target
	.endm

	.macro	LOAD_DATA_SEGMENTS
	movl	$KERNEL_DS, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	.endm

	.text
	.code32
	.globl	pvh_start
	.type	pvh_start, @function
pvh_start:
	cli
	cld
	movl	%ebx, %edi
	lgdt	gdt_pointer
	ENTER_LONG_MODE pvh_start64
	.size	pvh_start, . - pvh_start

	.code64
pvh_start64:
	LOAD_DATA_SEGMENTS
	movl	%edi, %edi
	movl	$BOOT_PVH, %esi
	jmp	enter_c

	.globl	elf_start
	.type	elf_start, @function
elf_start:
	cli
	cld
	lgdt	gdt_pointer
	movl	$page_pml4, %eax
	movq	%rax, %cr3
	movl	$boot_stack_top, %esp
	pushq	$KERNEL_CS
	pushq	$1f
	lretq
1:	movq	%rsi, %rdi
	LOAD_DATA_SEGMENTS
	movl	$BOOT_LINUX, %esi
	.size	elf_start, . - elf_start

/* rdi = the loader's structure, esi = which kind. */
	.type	enter_c, @function
enter_c:
	.cfi_startproc
	.cfi_undefined rip
	movl	$boot_stack_top, %esp
	xorl	%ebp, %ebp
	call	runtime_start
	ud2
	.cfi_endproc
	.size	enter_c, . - enter_c

/*
 * A started AP: real mode, cs = AP_TRAMPOLINE >> 4, ip = 0. Addresses are
 * given relative to the copy.
 */
	.section .rodata
	.globl	ap_trampoline, ap_trampoline_end
	.code16
ap_trampoline:
	cli
	cld
	movw	%cs, %ax
	movw	%ax, %ds
	lgdtl	ap_gdt_pointer - ap_trampoline
	movl	%cr0, %eax
	orl	$CR0_PE, %eax
	movl	%eax, %cr0
	ljmpl	$KERNEL_CS32, $ap_start32
	.balign	8
ap_gdt_pointer:
	.word	GDT_SIZE - 1
	.long	gdt
ap_trampoline_end:

	.text
	.code32
	.type	ap_start32, @function
ap_start32:
	ENTER_LONG_MODE ap_start64
	.size	ap_start32, . - ap_start32

	.code64
	.type	ap_start64, @function
ap_start64:
	.cfi_startproc
	.cfi_undefined rip
	LOAD_DATA_SEGMENTS
	movq	ap_stack_top, %rsp
	xorl	%ebp, %ebp
	call	runtime_start_ap
	ud2
	.cfi_endproc
	.size	ap_start64, . - ap_start64

	.data
	.balign	8
	.globl	gdt
gdt:
	.quad	0
	.quad	0x00af9b000000ffff	/* KERNEL_CS:   64-bit code, ring 0 */
	.quad	0x00cf93000000ffff	/* KERNEL_DS:   data, ring 0 */
	.quad	0x00affb000000ffff	/* USER_CS:     64-bit code, ring 3 */
	.quad	0x00cff3000000ffff	/* USER_DS:     data, ring 3 */
	.quad	0x00cf9b000000ffff	/* KERNEL_CS32: flat 32-bit code, ring 0 */
	.fill	MAX_CPUS * 2, 8, 0	/* one 16-byte TSS descriptor a CPU */
gdt_end:
	.if	gdt_end - gdt - GDT_SIZE
	.error	"GDT_SIZE in layout.h does not match"
	.endif

gdt_pointer:
	.word	GDT_SIZE - 1
	.quad	gdt

/*
 * The first 4 GiB, identity mapped with 2 MiB pages that ring 3 may use too.
 * Built by the assembler: on a host that emulates ring 0 a loop would cost
 * milliseconds.
 */
#define PTE_PRESENT	1
#define PTE_WRITE	2
#define PTE_USER	4
#define PTE_HUGE	0x80
#define PTE_TABLE	(PTE_PRESENT | PTE_WRITE | PTE_USER)

	.balign	4096
	.globl	page_pml4
page_pml4:
	.quad	page_pdpt + PTE_TABLE
	.fill	511, 8, 0
	.globl	page_pdpt
page_pdpt:
	.set	gib, 0
	.rept	4
	.quad	page_directories + gib * 4096 + PTE_TABLE
	.set	gib, gib + 1
	.endr
	.fill	508, 8, 0
	.globl	page_directories
page_directories:
	.set	address, 0
	.rept	4 * 512
	.quad	address + PTE_TABLE + PTE_HUGE
	.set	address, address + 0x200000
	.endr

	.section .noinit, "aw", @nobits
	.balign	16
	.skip	BOOT_STACK_SIZE
	.globl	boot_stack_top
boot_stack_top:

	.section .note.GNU-stack, "", @progbits
