/* A directory of the host's. It is mounted again each time: nothing is from a cache. */
#define _GNU_SOURCE
#include "rebind.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#define DIR	"/mnt"
/* Bytes of a write, and those that are written and read to check the device. */
#define CHUNK	(64 << 10)
#define CHECKED	(1 << 20)

static const char *tag;
static uint64_t written[CHECKED / 8];
static uint64_t found[CHECKED / 8];

void files_configure(char **arguments)
{
	tag = arguments[0];
	errno = EINVAL;
	if (!tag)
		fail("the file system's tag");
}

static void attach(void)
{
	must(mount(tag, DIR, "virtiofs", 0, NULL), tag);
}

static void detach(void)
{
	must(umount(DIR), DIR);
}

void files_work(void)
{
	int file;

	attach();
	file = must(open(DIR "/work", O_CREAT | O_WRONLY, 0600), "work");
	for (off_t at = 0; pwrite(file, found, CHUNK, at % CHECKED) == CHUNK; at += CHUNK)
		sem_post(&begun);
	close(file);
	detach();
}

void files_check(void)
{
	uint64_t seed = random();
	int file;

	for (size_t i = 0; i < CHECKED / sizeof(*written); i++)
		written[i] = (seed + i) * 0x9e3779b97f4a7c15ul;
	attach();
	file = must(open(DIR "/check", O_CREAT | O_TRUNC | O_WRONLY, 0600), "check");
	if (write(file, written, CHECKED) != CHECKED)
		fail("write");
	must(close(file), "write");
	detach();
	attach();
	memset(found, 0, CHECKED);
	file = must(open(DIR "/check", O_RDONLY), "check");
	for (size_t have = 0; have < CHECKED;) {
		int size = must(read(file, (char *)found + have, CHECKED - have), "read");

		if (size == 0)
			fail("end of file");
		have += size;
	}
	if (memcmp(written, found, CHECKED) != 0) {
		errno = EILSEQ;
		fail("what was read");
	}
	close(file);
	detach();
}
