/* port NUMBER: writes standard input to an I/O port, byte by byte, as it comes. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char bytes[4096];
	ssize_t length;
	unsigned long port;

	if (argc != 2) {
		fputs("usage: port NUMBER\n", stderr);
		return 2;
	}
	port = strtoul(argv[1], NULL, 0);
	if (ioperm(port, 1, 1)) {
		perror("ioperm");
		return 1;
	}
	while ((length = read(STDIN_FILENO, bytes, sizeof(bytes))) > 0)
		for (ssize_t i = 0; i < length; i++)
			outb(bytes[i], port);
	return 0;
}
