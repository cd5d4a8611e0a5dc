/* The local APIC (SDM vol. 3, chapter 11) and the I/O APIC (82093AA). */
#pragma once

#include "types.h"

/*
 * Masks the two 8259s. KVM starts the boot CPU with LINT0 wired to them, so the
 * PIT would arrive as vector 0, "divide error".
 */
void pic_disable(void);

/* Enables this CPU's LAPIC. */
void lapic_enable(void);

/* Lets no interrupt of the 8259s reach this CPU, whatever is written to them. */
void lapic_mask_pic(void);

u32 lapic_id(void);
void lapic_eoi(void);

/* INIT and start-up inter-processor interrupts; `page` is the code's address / 4 KiB. */
void lapic_send_init(u32 apic_id);
void lapic_send_startup(u32 apic_id, u8 page);

/* A fixed interrupt to one CPU. */
void lapic_send_ipi(u32 apic_id, u8 vector);

/* Fires `vector` every `ticks` of the APIC timer (divided by 16); 0 stops it. */
void lapic_timer_start(u8 vector, u32 ticks);

/* Sends GSI `gsi`, edge-triggered and active high, to CPU `apic_id` as `vector`. */
void ioapic_route(u32 gsi, u8 vector, u32 apic_id);
void ioapic_mask(u32 gsi);
