/* The first disk. Each request lasts until the device has finished it. */
#define _GNU_SOURCE
#include "rebind.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Bytes of a request, and those that are written and read to check the device. */
#define CHUNK	(64 << 10)
#define CHECKED	(1 << 20)

/* Used again and again: memory that is fresh costs more than the requests. */
static uint64_t written[CHECKED / 8] __attribute__((aligned(4096)));
static uint64_t found[CHECKED / 8] __attribute__((aligned(4096)));

void block_work(void)
{
	int disk = must(open("/dev/vda", O_WRONLY | O_DIRECT), "/dev/vda");

	/* Behind what the check uses. */
	for (off_t at = 0; pwrite(disk, found, CHUNK, CHECKED + at % CHECKED) == CHUNK; at += CHUNK)
		sem_post(&begun);
	/* Or the disk would come back by another name. */
	close(disk);
}

void block_check(void)
{
	int disk = must(open("/dev/vda", O_RDWR | O_DIRECT), "/dev/vda");
	uint64_t seed = random();

	for (size_t i = 0; i < CHECKED / sizeof(*written); i++)
		written[i] = (seed + i) * 0x9e3779b97f4a7c15ul;
	memset(found, 0, CHECKED);
	if (pwrite(disk, written, CHECKED, 0) != CHECKED ||
	    pread(disk, found, CHECKED, 0) != CHECKED)
		fail("write and read");
	if (memcmp(written, found, CHECKED) != 0) {
		errno = EILSEQ;
		fail("what was read");
	}
	close(disk);
}
