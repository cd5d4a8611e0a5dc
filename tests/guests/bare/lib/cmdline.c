#include "cmdline.h"

#include "string.h"

static char text[1024];

void cmdline_set(const char *source)
{
	for (usize i = 0; source && source[i] && i < sizeof(text) - 1; i++)
		text[i] = source[i];
}

const char *cmdline(void)
{
	return text;
}

static bool is_end(char c)
{
	return c == 0 || c == ' ';
}

/* What follows `name` in the word that starts with it, or NULL. */
static const char *find(const char *name)
{
	usize length = strlen(name);

	for (const char *word = text; *word;) {
		const char *rest = word + length;

		if (memcmp(word, name, length) == 0 && (is_end(*rest) || *rest == '='))
			return rest;
		while (!is_end(*word))
			word++;
		while (*word == ' ')
			word++;
	}
	return NULL;
}

static u32 digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return 16;
}

static u64 parse_number(const char *s)
{
	u32 base = 10;
	u64 value = 0;

	if (s[0] == '0' && s[1] == 'x') {
		base = 16;
		s += 2;
	}
	for (; digit(*s) < base; s++)
		value = value * base + digit(*s);
	return value;
}

u64 cmdline_number(const char *name, u64 fallback)
{
	const char *rest = find(name);

	return rest && *rest == '=' ? parse_number(rest + 1) : fallback;
}

void cmdline_string(const char *name, const char *fallback, char *value, usize size)
{
	const char *rest = find(name);
	const char *source = rest && *rest == '=' ? rest + 1 : fallback;
	usize i;

	for (i = 0; i < size - 1 && !is_end(source[i]); i++)
		value[i] = source[i];
	value[i] = 0;
}

bool cmdline_flag(const char *name)
{
	const char *rest = find(name);

	return rest && is_end(*rest);
}
