/* A vsock connection to the host, which sends back what it gets. */
#include "rebind.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static struct sockaddr_vm host = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST };

void stream_configure(char **arguments)
{
	errno = EINVAL;
	if (!arguments[0])
		fail("the host's port");
	host.svm_port = atoi(arguments[0]);
}

static int connected(void)
{
	int stream = must(socket(AF_VSOCK, SOCK_STREAM, 0), "vsock");

	must(connect(stream, (struct sockaddr *)&host, sizeof(host)), "connection to the host");
	return stream;
}

/* Reads as much as there is and not all that comes back: both directions stay busy. */
void stream_work(void)
{
	static const uint8_t sent[1400];
	uint8_t found[sizeof(sent)];
	int stream = connected();

	while (send(stream, sent, sizeof(sent), MSG_NOSIGNAL) > 0 &&
	       recv(stream, found, sizeof(found), 0) > 0)
		sem_post(&begun);
	close(stream);
}

void stream_check(void)
{
	uint8_t sent[4096], found[sizeof(sent)];
	int stream = connected();

	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = random();
	if (send(stream, sent, sizeof(sent), MSG_NOSIGNAL) != sizeof(sent))
		fail("send");
	if (recv(stream, found, sizeof(found), MSG_WAITALL) != sizeof(found))
		fail("receive");
	if (memcmp(sent, found, sizeof(sent)) != 0) {
		errno = EILSEQ;
		fail("what came back");
	}
	close(stream);
}
