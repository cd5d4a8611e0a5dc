/* A lock between CPUs. Not for use in interrupt handlers. */
#pragma once

#include "io.h"

struct spinlock {
	bool locked;
};

static inline void spin_lock(struct spinlock *lock)
{
	while (__atomic_test_and_set(&lock->locked, __ATOMIC_ACQUIRE))
		pause();
}

static inline void spin_unlock(struct spinlock *lock)
{
	__atomic_clear(&lock->locked, __ATOMIC_RELEASE);
}
