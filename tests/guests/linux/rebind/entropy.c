/* /dev/hwrng, which is there also while no driver is. */
#include "rebind.h"

#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

void entropy_work(void)
{
	uint8_t bytes[512];
	int source = must(open("/dev/hwrng", O_RDONLY), "/dev/hwrng");

	while (read(source, bytes, sizeof(bytes)) > 0)
		sem_post(&begun);
	close(source);
}

void entropy_check(void)
{
	uint8_t bytes[32];
	int source = must(open("/dev/hwrng", O_RDONLY), "/dev/hwrng");

	for (size_t have = 0; have < sizeof(bytes);)
		have += must(read(source, bytes + have, sizeof(bytes) - have), "entropy");
	close(source);
}
