/* Random numbers, and those that devices do not like. */
#include "fuzz.h"

#define FAR_AWAY	(1ul << 46)
#define MMIO_HOLE	0xd0000000ul
#define LOCAL_APIC	0xfee00000ul
#define PAGE_SIZE	4096ul

/* SplitMix64. */
u64 draw(struct source *source)
{
	u64 z = source->state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

u64 draw_below(struct source *source, u64 limit)
{
	return draw(source) % limit;
}

bool draw_chance(struct source *source, u32 times)
{
	return draw_below(source, 100) < times;
}

u64 draw_value(struct source *source)
{
	switch (draw_below(source, 4)) {
	case 0:
		return draw_below(source, 16);
	case 1:
		return (1ul << draw_below(source, 64)) + draw_below(source, 3) - 1;
	case 2:
		return -draw_below(source, 0x1001);
	default:
		return draw(source);
	}
}

u64 draw_nowhere(struct source *source)
{
	static const u64 places[] = { FAR_AWAY, MMIO_HOLE, LOCAL_APIC, -PAGE_SIZE, -16ul };

	return places[draw_below(source, ARRAY_SIZE(places))];
}

u64 draw_address(struct source *source)
{
	u64 offset = draw_below(source, ARENA_SIZE);

	if (draw_chance(source, 5))
		return draw_nowhere(source);
	return ARENA + (draw_chance(source, 90) ? offset & -16ul : offset);
}
