/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * VMFAULT_CHAOS, for tests: a thread that takes so many pages a second from the program, at random.
 *
 * What it takes is the mapping, as the pageout daemon does before it lets a page go: the next touch faults,
 * and a system call that nobody prepared would fail.  With a memory limit those pages are the first to leave
 * altogether.
 */

#include <pthread.h>

#include "kern/alone.h"
#include "kern/sys.h"
#include "shim.h"
#include "stats.h"
#include "vmfault.h"

#define TICK_NS		1000000
#define TICKS		1000u		/* in a second */
#define TRIES		16		/* to find a page that is mapped */
#define LOOK		32u		/* pages that are looked at from there on */

static uint64_t
random_number(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* The address of byte n of what is there, and how many follow it in its region; 0: there are but so many bytes. */
static uintptr_t
byte_at(uint64_t n, uint64_t *rest)
{
	struct vmf_region r;
	uint64_t bytes = 0;

	for (uintptr_t a = shim_lo; a < shim_hi && vmf_region((void *)a, &r) == 0; a = (uintptr_t)r.addr + r.size) {
		if (n - bytes < r.size) {
			*rest = r.size - (n - bytes);
			return (uintptr_t)r.addr + (n - bytes);
		}
		bytes += r.size;
	}
	*rest = bytes;
	return 0;
}

static void
evict_one(uint64_t *state)
{
	/* The thread's: how much there was when somebody last came to its end. */
	static uint64_t bytes = VMF_PAGE_SIZE;

	for (int i = 0; i < TRIES; i++) {
		unsigned char info[LOOK];
		uint64_t rest;
		uintptr_t at = byte_at(random_number(state) % (2 * bytes), &rest);
		size_t n;

		if (at == 0) {
			bytes = rest != 0 ? rest : VMF_PAGE_SIZE;
			continue;
		}
		at &= ~(uintptr_t)(VMF_PAGE_SIZE - 1);
		n = (size_t)(rest / VMF_PAGE_SIZE < LOOK ? rest / VMF_PAGE_SIZE : LOOK);
		/* It may have been unmapped meanwhile. */
		if (n == 0 || vmf_page_info((void *)at, n * VMF_PAGE_SIZE, info) != 0)
			continue;
		for (size_t k = 0; k < n; k++) {
			if (info[k] & VMF_PAGE_MAPPED) {
				(void)vmf_advise((void *)(at + k * VMF_PAGE_SIZE), VMF_PAGE_SIZE, VMF_ADVICE_COLD);
				stats_count(chaos_evictions);
				return;
			}
		}
	}
}

static void *
run(void *arg)
{
	static const _Atomic uint32_t never;
	uint64_t state = (uint64_t)(uintptr_t)&state, owed = 0;

	(void)arg;
	for (;;) {
		for (owed += shim_config.chaos; owed >= TICKS; owed -= TICKS)
			evict_one(&state);
		/* Past libc, and the gate in it, whose traps this thread is deaf to. */
		(void)sys_futex_wait(&never, 0, TICK_NS);
	}
	return NULL;
}

int
chaos_start(void)
{
	pthread_t thread;
	int error = alone_thread(&thread, run);

	if (error == 0)
		(void)pthread_detach(thread);
	return error;
}
