/* Code that causes exceptions, and where it begins. */
#pragma once

#include "runtime.h"

#define TRAP_FLAG	0x100

/* Vectors (SDM vol. 3, table 7-1); the last is for `int`. */
#define VECTOR_DEBUG		1
#define VECTOR_BREAKPOINT	3
#define VECTOR_SOFTWARE		48

/* Length of an instruction that faults and is to be skipped. */
#define LENGTH_UD2		2

/* Returns flags that the code has found saved: R11's, or pushf's. */
typedef u64 code(void);

code case_trap_flag, case_trap_mov_ss, case_flags, case_int3, case_int1, case_breakpoint,
	case_watchpoint, case_software, case_fault, case_invalid, case_devices, case_syscall;

/* Inside of case_breakpoint. */
extern u8 breakpoint_here[];

/* The kernel's entry for `syscall`. */
void syscall_entry(void);

extern volatile u32 watched;
/* Not present until the page fault's handler has mapped it. */
extern volatile u64 *const far_page;
