/* Constants that assembler and C share. */
#pragma once

/* Segment selectors of the GDT in start.S. */
#define KERNEL_CS	0x08
#define KERNEL_DS	0x10
#define USER_CS		0x1b
#define USER_DS		0x23
#define KERNEL_CS32	0x28
#define FIRST_TSS	0x30

#define MAX_CPUS	64
#define GDT_SIZE	(FIRST_TSS + MAX_CPUS * 16)

#define BOOT_STACK_SIZE	16384

/* Where the APs' 16-bit code is copied: page 8, so the SIPI vector is 8. */
#define AP_TRAMPOLINE	0x8000

/* How the loader started us: the second argument of runtime_start(). */
#define BOOT_PVH	1
#define BOOT_LINUX	2
