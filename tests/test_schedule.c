/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Random schedules.
 *
 * Four threads do random things to the same memory, and at every probe of the library
 * (kern/probe.h), where no lock that matters is held, a thread goes straight on, yields, or
 * sleeps for a moment, as the seed says.  So the gaps that races need are wide.
 *
 * What can be said about such memory while all four write to it: each thread has a cell of
 * its own in every page, in which it counts up.
 *
 *	a cell of mine		is what I wrote last
 *	a cell of another's	never goes back
 *	in a snapshot or fork	mine: what I had written at the call; and it never changes
 *
 * Each thread also has memory of its own, which it unmaps, copies over and rolls back; and
 * at the end, when all is quiet, the library audits itself.
 */

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kern/probe.h"
#include "suite.h"
#include "support.h"

enum { THREADS = 4, PAGES = 24, OWN = 8, SEEDS = 6, STEPS = 400 };

struct worker {
	pthread_t thread;
	unsigned id;
	uint64_t seed;
	uint32_t mine[PAGES];			/* what I wrote last */
	uint32_t seen[PAGES][THREADS];		/* what I last saw of the others */
	vmf_task_t task;
	char *own;				/* all of it: page i is fill(key[i]) */
	uint64_t key[OWN];			/* 0: zeros */
};

static char *shared;
static _Thread_local uint64_t dice;		/* 0: a thread of the library's */
static uint64_t seed_of_hook;

static void
say_seed(void)
{
	fprintf(stderr, "seed %llu\n", (unsigned long long)seed_of_hook);
}

static void
hook(const char *place)
{
	static _Atomic uint64_t others;		/* threads of the library's own */
	struct timespec ts = { 0, 0 };
	uint64_t state = others++, r;

	r = rng_next(dice != 0 ? &dice : &state);
	if (r % 8 == 0) {
		ts.tv_nsec = (long)(r >> 8) % 200000;
		nanosleep(&ts, NULL);
	} else if (r % 8 < 4) {
		sched_yield();
	}
}

static _Atomic uint32_t *
cell_in(char *base, unsigned page, unsigned thread)
{
	/* Cells are far apart, the last one at the end of the page. */
	return (_Atomic uint32_t *)(void *)(base + page * PG + (thread + 1) * (PG / THREADS) -
	    sizeof(uint32_t));
}

static void
look(struct worker *w, unsigned page)
{
	for (unsigned t = 0; t < THREADS; t++) {
		uint32_t now = *cell_in(shared, page, t);

		if (t == w->id ? now != w->mine[page] : now < w->seen[page][t])
			die("thread %u, page %u, cell %u: %u after %u", w->id, page, t, now,
			    t == w->id ? w->mine[page] : w->seen[page][t]);
		w->seen[page][t] = now;
	}
}

static void
write_cell(struct worker *w, unsigned page)
{
	*cell_in(shared, page, w->id) = ++w->mine[page];
}

/* Memory that holds the cells of some instant since the call: mine are known, the others' bounded. */
static void
check_instant(struct worker *w, char *base, unsigned first, unsigned n, const uint32_t (*low)[THREADS])
{
	for (unsigned i = 0; i < n; i++)
		for (unsigned t = 0; t < THREADS; t++) {
			uint32_t then = *cell_in(base, i, t), now = *cell_in(shared, first + i, t);

			if (t == w->id ? then != w->mine[first + i] : then < low[i][t] || then > now)
				die("thread %u, page %u, cell %u: %u in the snapshot; %u before, %u now",
				    w->id, first + i, t, then, low[i][t], now);
		}
}

static void
op_snapshot(struct worker *w, unsigned first, unsigned n)
{
	uint32_t low[PAGES][THREADS];
	vmf_snapshot_t s;
	bool write = rng_next(&w->seed) % 2;
	char *v;

	for (unsigned i = 0; i < n; i++) {
		look(w, first + i);
		memcpy(low[i], w->seen[first + i], sizeof(low[i]));
	}
	s = snap(shared + first * PG, n);
	v = view(s, n, write ? VMF_PROT_DEFAULT : VMF_PROT_READ);
	check_instant(w, v, first, n, low);
	for (unsigned i = 0; i < n; i++)
		write_cell(w, first + i);
	for (unsigned i = 0; i < n; i++)
		if (*cell_in(v, i, w->id) != w->mine[first + i] - 1)
			die("thread %u: a write shows in a snapshot", w->id);
	if (write) {
		for (unsigned i = 0; i < n; i += 2)
			*cell_in(v, i, w->id) = UINT32_MAX;
		for (unsigned i = 0; i < n; i++)
			look(w, first + i);
	}
	if (rng_next(&w->seed) % 2) {
		expect(vmf_snapshot_release(s), 0);
		expect(vmf_unmap(v, n * PG), 0);
	} else {
		expect(vmf_unmap(v, n * PG), 0);
		expect(vmf_snapshot_release(s), 0);
	}
}

static void
op_fork(struct worker *w)
{
	uint32_t low[PAGES][THREADS];
	vmf_task_t task;
	void *base, *child;

	for (unsigned i = 0; i < PAGES; i++) {
		look(w, i);
		memcpy(low[i], w->seen[i], sizeof(low[i]));
	}
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &task), 0);
	expect(vmf_task_range(VMF_TASK_DEFAULT, &base, NULL), 0);
	expect(vmf_task_range(task, &child, NULL), 0);
	check_instant(w, (char *)child + (shared - (char *)base), 0, PAGES, low);
	expect(vmf_task_destroy(task), 0);
}

static void
check_own(struct worker *w)
{
	for (unsigned i = 0; i < OWN; i++)
		if (w->key[i] != 0)
			check_fill(w->own + i * PG, PG, w->key[i]);
		else
			check_zero(w->own + i * PG, PG);
}

static void
op_own(struct worker *w)
{
	unsigned i = (unsigned)(rng_next(&w->seed) % OWN);
	uint64_t old[OWN];
	vmf_snapshot_t s;
	void *at;

	switch (rng_next(&w->seed) % 4) {
	case 0:
		w->key[i] = rng_next(&w->seed) | 1;
		fill(w->own + i * PG, PG, w->key[i]);
		break;
	case 1:
		at = w->own + i * PG;
		expect(vmf_unmap(at, PG), 0);
		expect(vmf_allocate(w->task, &at, PG, VMF_FIXED), 0);
		w->key[i] = 0;
		break;
	case 2:
		expect(vmf_copy(w->own, w->own + OWN / 2 * PG, OWN / 2 * PG), 0);
		memcpy(w->key, w->key + OWN / 2, OWN / 2 * sizeof(w->key[0]));
		break;
	default:
		s = snap(w->own, OWN);
		memcpy(old, w->key, sizeof(old));
		for (unsigned k = 0; k < 3; k++, i = (i + 3) % OWN) {
			w->key[i] = rng_next(&w->seed) | 1;
			fill(w->own + i * PG, PG, w->key[i]);
		}
		check_own(w);
		expect(vmf_snapshot_rollback(s), 0);
		memcpy(w->key, old, sizeof(old));
		expect(vmf_snapshot_release(s), 0);
	}
	check_own(w);
}

static void
one_step(struct worker *w)
{
	unsigned first = (unsigned)(rng_next(&w->seed) % PAGES);
	unsigned n = 1 + (unsigned)(rng_next(&w->seed) % (PAGES - first));
	uint32_t value;

	switch (rng_next(&w->seed) % 10) {
	case 0: case 1: case 2:
		for (unsigned i = 0; i < n; i++)
			write_cell(w, first + i);
		break;
	case 3: case 4:
		for (unsigned i = 0; i < n; i++)
			look(w, first + i);
		break;
	case 5:
		op_snapshot(w, first, n);
		break;
	case 6:
		expect(vmf_wire(shared + first * PG, n * PG), 0);
		write_cell(w, first);
		look(w, first);
		expect(vmf_unwire(shared + first * PG, n * PG), 0);
		break;
	case 7:
		value = ++w->mine[first];
		expect(vmf_write(cell_in(shared, first, w->id), &value, sizeof(value)), 0);
		expect(vmf_fault_in(shared + first * PG, n * PG, VMF_PROT_WRITE), 0);
		write_cell(w, first + n - 1);
		look(w, first);
		expect(vmf_fault_release(shared + first * PG, n * PG), 0);
		break;
	case 8:
		if (rng_next(&w->seed) % 4 == 0)
			op_fork(w);
		break;
	default:
		op_own(w);
	}
}

static void *
work(void *arg)
{
	struct worker *w = arg;

	dice = mix(w->seed, 1);
	for (int i = 0; i < STEPS; i++)
		one_step(w);
	return NULL;
}

/* Every other seed has few kernel mappings, so that the pmap forgets. */
START_TEST(any_schedule)
{
	static struct worker workers[THREADS];

	on_die = say_seed;
	seed_of_hook = (uint64_t)_i + 1;
	start(0, _i % 2 ? 64 : 0);
	shared = alloc(PAGES);
	for (unsigned t = 0; t < THREADS; t++) {
		workers[t] = (struct worker){ .id = t, .seed = mix(seed_of_hook, t) };
		/* In a task of its own: nobody else takes what is unmapped for a moment. */
		expect(vmf_task_create(OWN * PG, &workers[t].task), 0);
		workers[t].own = alloc_in(workers[t].task, OWN);
	}
	probe_hook = hook;
	for (unsigned t = 0; t < THREADS; t++)
		check(pthread_create(&workers[t].thread, NULL, work, &workers[t]) == 0);
	for (unsigned t = 0; t < THREADS; t++)
		check(pthread_join(workers[t].thread, NULL) == 0);
	probe_hook = NULL;
	audit();
	for (unsigned t = 0; t < THREADS; t++) {
		check_own(&workers[t]);
		for (unsigned i = 0; i < PAGES; i++)
			check(*cell_in(shared, i, t) == workers[t].mine[i]);
	}
	stop();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("schedule");
	TCase *tc = tcase_create("random schedules");

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, any_schedule, 0, SEEDS);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
