#include "runtime.h"

#include "layout.h"

/* struct hvm_start_info of the PVH boot ABI. */
struct hvm_start_info {
	u32 magic, version, flags, module_count;
	u64 modules, command_line, rsdp;
};

#define HVM_START_MAGIC	0x336ec578

/* Offsets in struct boot_params of the Linux boot protocol. */
#define BOOT_PARAMS_RSDP	0x70
#define BOOT_PARAMS_CMDLINE	0x228

static u64 read_start_info(const struct hvm_start_info *info)
{
	if (info->magic != HVM_START_MAGIC)
		panic("bad hvm_start_info magic %x", info->magic);
	cmdline_set((const char *)info->command_line);
	return info->rsdp;
}

static u64 read_boot_params(const u8 *boot_params)
{
	u32 command_line;
	u64 rsdp;

	memcpy(&command_line, boot_params + BOOT_PARAMS_CMDLINE, sizeof(command_line));
	memcpy(&rsdp, boot_params + BOOT_PARAMS_RSDP, sizeof(rsdp));
	cmdline_set((const char *)(u64)command_line);
	return rsdp;
}

/* Called by start.S; `kind` says what `boot` points to. */
void runtime_start(const void *boot, u32 kind)
{
	u64 rsdp;
	int status;

	console_init();
	rsdp = kind == BOOT_PVH ? read_start_info(boot) : read_boot_params(boot);
	traps_init();
	traps_load(0);
	pic_disable();
	lapic_enable();
	interrupts_on();
	smp_init(rsdp);
	status = main();
	if (status != 0)
		panic("main returned %d", status);
	power_off();
}
