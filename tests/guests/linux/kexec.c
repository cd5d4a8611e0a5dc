/*
 * Starts another kernel from this one, as `reboot` does not: devices stay as
 * they are. busybox has no kexec, and Debian's package of it changes how the
 * machine that it is installed on reboots.
 *
 *   kexec KERNEL INITRAMFS CMDLINE
 */
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int count, char **arguments)
{
	int kernel, initramfs;

	if (count != 4) {
		fprintf(stderr, "usage: kexec KERNEL INITRAMFS CMDLINE\n");
		return 2;
	}
	kernel = open(arguments[1], O_RDONLY);
	initramfs = open(arguments[2], O_RDONLY);
	if (kernel < 0 || initramfs < 0) {
		perror("kexec: cannot open the files");
		return 1;
	}
	/* The length of the command line is with its end. */
	if (syscall(SYS_kexec_file_load, kernel, initramfs, strlen(arguments[3]) + 1,
		    arguments[3], 0ul) != 0) {
		perror("kexec: the kernel is not taken");
		return 1;
	}
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, 0);
	perror("kexec: the kernel does not start");
	return 1;
}
