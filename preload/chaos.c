/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * VMFAULT_CHAOS, for tests: a thread that takes so many pages a second from the program, at random.
 *
 * What it takes is the mapping, as the pageout daemon does before it lets a page go: the next touch faults,
 * and a system call that nobody prepared would fail.  With a memory limit those pages are the first to leave
 * altogether.
 */

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "kern/alone.h"
#include "shim.h"
#include "stats.h"
#include "vmfault.h"

#define TICK_NS		1000000
#define TICKS		1000u		/* in a second */
#define TRIES		16		/* to find a page that is mapped */

static uint64_t
random_number(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* Bytes that are mapped; and the address of byte n of them, or 0. */
static uint64_t
survey(uint64_t n, uintptr_t *at)
{
	struct vmf_region r;
	uint64_t bytes = 0;

	*at = 0;
	for (uintptr_t a = shim_lo; a < shim_hi && vmf_region((void *)a, &r) == 0; a = (uintptr_t)r.addr + r.size) {
		if (*at == 0 && n - bytes < r.size)
			*at = (uintptr_t)r.addr + (n - bytes);
		bytes += r.size;
	}
	return bytes;
}

static void
evict_one(uint64_t *state)
{
	uintptr_t at;
	uint64_t bytes = survey(UINT64_MAX, &at);
	unsigned char info;

	for (int i = 0; bytes != 0 && i < TRIES; i++) {
		(void)survey(random_number(state) % bytes, &at);
		at &= ~(uintptr_t)(VMF_PAGE_SIZE - 1);
		/* It may have been unmapped meanwhile. */
		if (at != 0 && vmf_page_info((void *)at, VMF_PAGE_SIZE, &info) == 0 && (info & VMF_PAGE_MAPPED)) {
			(void)vmf_advise((void *)at, VMF_PAGE_SIZE, VMF_ADVICE_COLD);
			stats_count(chaos_evictions);
			return;
		}
	}
}

static void *
run(void *arg)
{
	static const struct timespec tick = { .tv_nsec = TICK_NS };
	uint64_t state = (uint64_t)(uintptr_t)&state, owed = 0;

	(void)arg;
	for (;;) {
		for (owed += shim_config.chaos; owed >= TICKS; owed -= TICKS)
			evict_one(&state);
		(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &tick, NULL);
	}
	return NULL;
}

int
chaos_start(void)
{
	sigset_t all, old;
	pthread_t thread;
	int error;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&thread, NULL, run, NULL);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error == 0) {
		alone_ours(1);
		(void)pthread_detach(thread);
	}
	return -error;
}
