/*
 * vsock-line CID PORT TEXT: connects, sends TEXT and a line's end, and prints what
 * comes back up to the end of the connection. Busybox has nothing that does it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static int fail(const char *what)
{
	perror(what);
	return 1;
}

int main(int argc, char **argv)
{
	struct sockaddr_vm peer = { .svm_family = AF_VSOCK };
	char buffer[4096];
	ssize_t len;
	int fd;

	if (argc != 4) {
		fprintf(stderr, "usage: vsock-line CID PORT TEXT\n");
		return 2;
	}
	peer.svm_cid = strtoul(argv[1], NULL, 10);
	peer.svm_port = strtoul(argv[2], NULL, 10);
	fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	if (fd < 0)
		return fail("socket");
	if (connect(fd, (struct sockaddr *)&peer, sizeof(peer)) < 0)
		return fail("connect");
	len = snprintf(buffer, sizeof(buffer), "%s\n", argv[3]);
	if (write(fd, buffer, len) != len)
		return fail("write");
	while ((len = read(fd, buffer, sizeof(buffer))) > 0) {
		if (fwrite(buffer, 1, len, stdout) != (size_t)len)
			return fail("stdout");
	}
	return len < 0 ? fail("read") : 0;
}
