#include "string.h"

void *memcpy(void *destination, const void *source, usize size)
{
	void *result = destination;

	__asm__ volatile("rep movsb" : "+D"(destination), "+S"(source), "+c"(size) : : "memory");
	return result;
}

void *memset(void *destination, int value, usize size)
{
	void *result = destination;

	__asm__ volatile("rep stosb" : "+D"(destination), "+c"(size) : "a"(value) : "memory");
	return result;
}

int memcmp(const void *a, const void *b, usize size)
{
	const u8 *x = a, *y = b;

	for (usize i = 0; i < size; i++)
		if (x[i] != y[i])
			return x[i] - y[i];
	return 0;
}

usize strlen(const char *s)
{
	usize length = 0;

	while (s[length])
		length++;
	return length;
}

bool string_equal(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}
