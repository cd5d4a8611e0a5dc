/* Port and memory-mapped I/O, and the few instructions C cannot say. */
#pragma once

#include "types.h"

static inline void outb(u16 port, u8 value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outw(u16 port, u16 value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outl(u16 port, u32 value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline u8 inb(u16 port)
{
	u8 value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline u16 inw(u16 port)
{
	u16 value;

	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline u32 inl(u16 port)
{
	u32 value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

/*
 * MMIO uses plain `mov`s with one operand in rax: that is what every
 * hypervisor's emulator decodes.
 */
static inline void write8(u64 address, u8 value)
{
	__asm__ volatile("movb %b0, (%1)" : : "a"(value), "r"(address) : "memory");
}

static inline void write16(u64 address, u16 value)
{
	__asm__ volatile("movw %w0, (%1)" : : "a"(value), "r"(address) : "memory");
}

static inline void write32(u64 address, u32 value)
{
	__asm__ volatile("movl %k0, (%1)" : : "a"(value), "r"(address) : "memory");
}

static inline void write64(u64 address, u64 value)
{
	__asm__ volatile("movq %q0, (%1)" : : "a"(value), "r"(address) : "memory");
}

static inline u8 read8(u64 address)
{
	u8 value;

	__asm__ volatile("movb (%1), %b0" : "=a"(value) : "r"(address) : "memory");
	return value;
}

static inline u16 read16(u64 address)
{
	u16 value;

	__asm__ volatile("movw (%1), %w0" : "=a"(value) : "r"(address) : "memory");
	return value;
}

static inline u32 read32(u64 address)
{
	u32 value;

	__asm__ volatile("movl (%1), %k0" : "=a"(value) : "r"(address) : "memory");
	return value;
}

static inline u64 read64(u64 address)
{
	u64 value;

	__asm__ volatile("movq (%1), %q0" : "=a"(value) : "r"(address) : "memory");
	return value;
}

static inline u64 rdtsc(void)
{
	u32 low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (u64)high << 32 | low;
}

static inline void pause(void)
{
	__asm__ volatile("pause" : : : "memory");
}

/*
 * Ring 0 only. A guest may not spin for long with interrupts off: where Bochs emulates
 * the host's processor, a VM entry with IF clear masks the host's own interrupts until
 * IF changes.
 */
static inline void interrupts_off(void)
{
	__asm__ volatile("cli" : : : "memory");
}

static inline void interrupts_on(void)
{
	__asm__ volatile("sti" : : : "memory");
}

/*
 * Leaves interrupts off, and takes none: the shadow of sti covers the cli. To spin with,
 * for the reason above.
 */
static inline void hold_interrupts(void)
{
	__asm__ volatile("sti; cli; pause" : : : "memory");
}
