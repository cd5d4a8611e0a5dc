/*
 * Does what a guest should not. `case=NAME` picks one misdeed; `case=bus`,
 * `case=registers` and `case=rings` run all of a kind, none of which ends the
 * guest. Without a case it lists them.
 *
 * Prints what it saw, and "misbehave: survived ..." before it powers off. After
 * every misdeed to a virtio device, the device must work again.
 */
#include "misbehave.h"
#include "watchdog.h"

static const struct kind {
	const char *name;
	const struct misdeed *misdeeds;
	bool (*recover)(void);
} kinds[] = {
	{ "cpu", cpu_misdeeds, NULL },
	{ "bus", bus_misdeeds, NULL },
	{ "registers", register_misdeeds, victim_recover },
	{ "rings", ring_misdeeds, victim_recover },
};

static u32 broken;

/* Runs what `name` means within a kind; returns how many that were. */
static u32 run(const struct kind *kind, const char *name)
{
	bool all = string_equal(kind->name, name);
	u32 count = 0;

	for (const struct misdeed *m = kind->misdeeds; m->name; m++) {
		if (!all && !string_equal(m->name, name))
			continue;
		printf("misbehave: %s\n", m->name);
		m->run();
		if (kind->recover && !kind->recover())
			broken++;
		count++;
	}
	return count;
}

static void list(void)
{
	for (u32 i = 0; i < ARRAY_SIZE(kinds); i++)
		for (const struct misdeed *m = kinds[i].misdeeds; m->name; m++)
			printf("%s: case=%s\n", kinds[i].name, m->name);
}

int main(void)
{
	char name[32];
	u32 count = 0;

	watchdog_start();
	cmdline_string("case", "", name, sizeof(name));
	if (name[0] == 0) {
		list();
		return 0;
	}
	for (u32 i = 0; i < ARRAY_SIZE(kinds); i++)
		count += run(&kinds[i], name);
	if (count == 0)
		panic("misbehave: no case %s", name);
	printf("misbehave: survived %u, %u left the device broken\n", count, broken);
	return broken ? 1 : 0;
}
