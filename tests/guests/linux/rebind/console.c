/* The first hvc there is. What is written to it the host types back. */
#include "rebind.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/* How many the kernel has nodes for (HVC_ALLOC_TTY_ADAPTERS). */
#define CONSOLES	8

/* Without echo, or host and guest would send the same for ever. */
static void make_raw(int terminal)
{
	struct termios mode;

	must(tcgetattr(terminal, &mode), "console's mode");
	cfmakeraw(&mode);
	must(tcsetattr(terminal, TCSANOW, &mode), "console's mode");
}

static int console(void)
{
	for (int n = 0; n < CONSOLES; n++) {
		char path[sizeof("/dev/hvc0")];
		int terminal;

		snprintf(path, sizeof(path), "/dev/hvc%d", n);
		terminal = open(path, O_RDWR | O_NOCTTY);
		if (terminal >= 0) {
			make_raw(terminal);
			return terminal;
		}
	}
	fail("/dev/hvc*");
	return -1;
}

/* Reads as much as there is and not all that comes back: both directions stay busy. */
void console_work(void)
{
	static const char written[256] = "both ways";
	char found[sizeof(written)];
	int terminal = console();

	while (write(terminal, written, sizeof(written)) > 0 &&
	       read(terminal, found, sizeof(found)) > 0)
		sem_post(&begun);
	close(terminal);
}

/* What comes back first may be from before the driver went. */
void console_check(void)
{
	char word[20];
	int terminal = console();
	size_t found = 0;

	snprintf(word, sizeof(word), "<%08lx%08lx>", random(), random());
	if (write(terminal, word, strlen(word)) != (ssize_t)strlen(word))
		fail("console's output");
	while (found < strlen(word)) {
		char byte;

		errno = 0;
		if (read(terminal, &byte, 1) != 1)
			fail("console's input");
		/* Only a word's first byte is a bracket. */
		found = byte == word[found] ? found + 1 : byte == word[0];
	}
	close(terminal);
}
