/*
 * Takes the driver of the first virtio device of a kind away in the middle of I/O and
 * gives it back, so many times; each time the device has to serve its new driver.
 *
 *   rebind virtio_blk|virtio_console|virtio_rng CYCLES
 *   rebind virtio_net CYCLES ADDRESS/BITS PEER         eth0's; who answers there
 *   rebind virtiofs CYCLES TAG                         the file system's
 *   rebind vmw_vsock_virtio_transport CYCLES PORT      where the host listens
 *
 * With `busy` as CYCLES the driver stays, and I/O continues behind this program's end.
 *
 * It is no script: under emulation that starts processes for most of its time.
 */
#include "rebind.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Seconds that a cycle may take. */
#define CYCLE_MAX	60
/* Microseconds from the first I/O until the driver goes: some requests take as long. */
#define MOMENT_MAX	10000

struct subject {
	const char *driver;
	void (*configure)(char **arguments);
	void (*work)(void);
	void (*check)(void);
};

sem_t begun;
static atomic_bool is_going;

void fail(const char *what)
{
	fprintf(stderr, "rebind: %s: %s\n", what, strerror(errno));
	exit(1);
}

int must(int result, const char *what)
{
	if (result < 0)
		fail(what);
	return result;
}

static void configure_nothing(char **arguments)
{
	(void)arguments;
}

static const struct subject subjects[] = {
	{ "virtio_blk", configure_nothing, block_work, block_check },
	{ "virtio_console", configure_nothing, console_work, console_check },
	{ "virtio_net", network_configure, network_work, network_check },
	{ "virtio_rng", configure_nothing, entropy_work, entropy_check },
	{ "virtiofs", files_configure, files_work, files_check },
	{ "vmw_vsock_virtio_transport", stream_configure, stream_work, stream_check },
};

static const struct subject *subject_of(const char *driver)
{
	for (size_t i = 0; i < sizeof(subjects) / sizeof(subjects[0]); i++)
		if (strcmp(subjects[i].driver, driver) == 0)
			return &subjects[i];
	errno = ENOENT;
	fail(driver);
	return NULL;
}

/* The name of the first device that the driver has; there is one of each. */
static char *device_of(const char *driver)
{
	char pattern[100];
	glob_t found;

	snprintf(pattern, sizeof(pattern), "/sys/bus/virtio/drivers/%s/virtio*", driver);
	if (glob(pattern, 0, NULL, &found))
		fail(pattern);
	return strrchr(found.gl_pathv[0], '/') + 1;
}

/* Writes the device's name to the driver's `unbind` or `bind`. */
static void tell(const char *driver, const char *what, const char *device)
{
	char path[100];
	int file;

	snprintf(path, sizeof(path), "/sys/bus/virtio/drivers/%s/%s", driver, what);
	file = must(open(path, O_WRONLY), path);
	must(write(file, device, strlen(device)), what);
	close(file);
}

static void *work(void *subject)
{
	((const struct subject *)subject)->work();
	if (!is_going)
		fail("I/O with the driver there");
	return NULL;
}

static void cycle(const struct subject *subject, const char *device)
{
	pthread_t worker;

	alarm(CYCLE_MAX);
	is_going = false;
	sem_init(&begun, 0, 0);
	errno = pthread_create(&worker, NULL, work, (void *)subject);
	if (errno)
		fail("thread");
	sem_wait(&begun);
	/* Not a synchronisation: any moment will do. */
	usleep(random() % MOMENT_MAX);
	is_going = true;
	tell(subject->driver, "unbind", device);
	pthread_join(worker, NULL);
	tell(subject->driver, "bind", device);
	subject->check();
}

/* The device serves its driver, which then works for ever. */
static void be_busy(const struct subject *subject, int told)
{
	pthread_t worker;

	subject->check();
	sem_init(&begun, 0, 0);
	errno = pthread_create(&worker, NULL, work, (void *)subject);
	if (errno)
		fail("thread");
	sem_wait(&begun);
	must(write(told, "!", 1), "telling that I/O is under way");
	pthread_join(worker, NULL);
}

/* Ends when I/O is under way, in another process. */
static void leave_busy(const struct subject *subject)
{
	int ends[2];
	char byte;

	must(pipe(ends), "pipe");
	if (must(fork(), "fork") == 0) {
		be_busy(subject, ends[1]);
		exit(1);
	}
	close(ends[1]);
	errno = ECHILD;
	if (read(ends[0], &byte, 1) != 1)
		fail("I/O");
}

int main(int argc, char **argv)
{
	const struct subject *subject;
	const char *device;

	if (argc < 3)
		return 2;
	subject = subject_of(argv[1]);
	subject->configure(argv + 3);
	srandom(getpid() ^ time(NULL));
	if (strcmp(argv[2], "busy") == 0) {
		leave_busy(subject);
		return 0;
	}
	device = device_of(argv[1]);
	for (int n = atoi(argv[2]); n > 0; n--)
		cycle(subject, device);
	return 0;
}
