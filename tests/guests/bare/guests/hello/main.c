/* Prints a greeting and its command line, and powers off. */
#include "runtime.h"

int main(void)
{
	printf("hello from bare metal\n");
	printf("cmdline: %s\n", cmdline());
	return 0;
}
