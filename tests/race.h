/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RACE_H
#define RACE_H

/*
 * Races, one at a time and on purpose: what the tests of them share.
 *
 * The library announces the places where it holds no lock that matters (kern/probe.h).  A
 * test makes one thread stop at such a place, runs the other half of the race there,
 * lets the first one go, and looks at every byte.  So each race happens at each run, on
 * any machine.
 *
 *	go(&a, fn, arg, place)	a thread that will stop at the place, the first time it is there
 *	meet(&a)		it has stopped there
 *	release(&a)		it goes on
 *	release_to(&a, place)	it goes on, and will stop there
 *	finish(&a)		it has ended
 *
 * An actor that must wait for another one is seen waiting: it stops at the probe of that
 * wait, or is observed not to end.
 */

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kern/probe.h"
#include "suite.h"
#include "support.h"

enum { PAGES = 16, SLOW_MS = 50000, QUIET_MS = 30 };

/*
 * Actors
 */

struct actor {
	pthread_t thread;
	void (*fn)(void *);
	void *arg;
	const char *place;
	_Atomic bool stopped, go, again, ended;
};

static _Thread_local struct actor *self;

static inline void
stop_here(const char *place)
{
	if (self == NULL || self->stopped || strcmp(place, self->place) != 0)
		return;
	self->stopped = true;
	while (!self->go)
		usleep(200);
	if (self->again) {
		self->go = self->stopped = false;
		self->again = false;
	}
}

static inline void *
act(void *arg)
{
	self = arg;
	self->fn(self->arg);
	self->ended = true;
	return NULL;
}

static inline void
go(struct actor *a, void (*fn)(void *), void *arg, const char *place)
{
	*a = (struct actor){ .fn = fn, .arg = arg, .place = place };
	probe_hook = stop_here;
	check(pthread_create(&a->thread, NULL, act, a) == 0);
}

static inline void
meet(struct actor *a)
{
	uint64_t end = now_ms() + SLOW_MS;

	while (!a->stopped) {
		if (a->ended || now_ms() > end)
			die("never came to \"%s\"", a->place);
		usleep(200);
	}
}

static inline void
release(struct actor *a)
{
	a->go = true;
}

/* => it has stopped */
static inline void
release_to(struct actor *a, const char *place)
{
	a->place = place;
	a->again = true;
	a->go = true;
	while (a->again)
		usleep(200);
}

static inline void
finish(struct actor *a)
{
	uint64_t end = now_ms() + SLOW_MS;

	while (!a->ended) {
		if (now_ms() > end)
			die("stuck after \"%s\"", a->place);
		usleep(200);
	}
	check(pthread_join(a->thread, NULL) == 0);
}

static inline void
let(struct actor *a)
{
	release(a);
	finish(a);
}

/* It is waiting, and not at its place. */
static inline void
check_waits(struct actor *a)
{
	usleep(QUIET_MS * 1000);
	check(!a->ended);
}

/* What actors do. */
struct act {
	char *p, *q;
	int byte;			/* to write; or that was read */
	struct touch touch;
	vmf_snapshot_t snapshot;
	vmf_pager_t pager;
	int result;
};

static inline void
do_write(void *arg)
{
	struct act *x = arg;

	*(volatile char *)x->p = (char)x->byte;
}

/* The same without mapping the page: nothing would come back to a page that may not be written. */
static inline void
do_call_write(void *arg)
{
	struct act *x = arg;
	char byte = (char)x->byte;

	x->result = vmf_write(x->p, &byte, 1);
}

static inline void
do_read(void *arg)
{
	struct act *x = arg;

	x->byte = *(volatile char *)x->p;
}

static inline void
do_touch_write(void *arg)
{
	struct act *x = arg;

	x->touch = touch_write(x->p);
}

static inline void
do_snapshot(void *arg)
{
	struct act *x = arg;

	x->snapshot = snap(x->p, PAGES);
}

static inline void
do_snapshot_two(void *arg)
{
	struct act *x = arg;
	struct vmf_range both[2] = { { x->p, PAGES * PG }, { x->q, PAGES * PG } };

	expect(vmf_snapshot_create(both, 2, &x->snapshot), 0);
}

static inline void
do_unmap(void *arg)
{
	struct act *x = arg;

	x->result = vmf_unmap(x->p, PAGES * PG);
}

static inline void
do_wire(void *arg)
{
	struct act *x = arg;

	x->result = vmf_wire(x->p, PAGES * PG);
}

static inline void
do_rollback(void *arg)
{
	struct act *x = arg;

	x->result = vmf_snapshot_rollback(x->snapshot);
}

static inline void
do_sync(void *arg)
{
	struct act *x = arg;

	x->result = vmf_pager_sync(x->pager, 0, PAGES * PG);
}

/*
 * A pager whose pages hold mix(9, page)
 */

static char store[PAGES * VMF_PAGE_SIZE];
static _Atomic unsigned ngets, nputs;

static inline int64_t
get(void *cookie, uint64_t offset, void *buf, size_t len)
{
	ngets++;
	memcpy(buf, store + offset, len);
	return (int64_t)len;
}

static inline int64_t
put(void *cookie, uint64_t offset, const void *buf, size_t len)
{
	nputs++;
	memcpy(store + offset, buf, len);
	return (int64_t)len;
}

static inline char *
map_pager(unsigned how, vmf_pager_t *pager)
{
	struct vmf_pager_ops ops = { .size = sizeof(ops), .get = get, .put = put };
	void *p = NULL;

	fill_pages(store, PAGES, 9);
	expect(vmf_pager_create(&ops, NULL, PAGES * PG, 0, pager), 0);
	expect(vmf_map(VMF_TASK_DEFAULT, &p, PAGES * PG, how, *pager, 0, VMF_PROT_DEFAULT), 0);
	expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_RANDOM), 0);
	return p;
}

/* Page i of what holds pages of key 9, but for its first byte. */
static inline void
check_changed(const char *p, size_t i, int first)
{
	char want[VMF_PAGE_SIZE];

	fill(want, PG, mix(9, i));
	want[0] = (char)first;
	if (memcmp(p + i * PG, want, PG) != 0)
		die("page %zu begins with %d, not %d", i, p[i * PG], first);
}

static inline void
check_snapshot(vmf_snapshot_t s, size_t range)
{
	char buf[VMF_PAGE_SIZE];

	for (size_t i = 0; i < PAGES; i++) {
		expect(vmf_snapshot_read(s, range, i * PG, buf, PG), 0);
		check_fill(buf, PG, mix(9, i));
	}
}

static inline uint64_t
stat_of(size_t offset)
{
	struct vmf_stats stats = { .size = sizeof(stats) };

	expect(vmf_statistics(&stats), 0);
	return *(uint64_t *)(void *)((char *)&stats + offset);
}
#define STAT(name)	stat_of(offsetof(struct vmf_stats, name))

/* Anonymous memory, filled with key 9. */
static inline char *
filled(void)
{
	char *p = alloc(PAGES);

	fill_pages(p, PAGES, 9);
	return p;
}

/* The same memory, seen through another task, whose map nobody locks. */
static inline char *
other_view(char *p, vmf_task_t *task)
{
	void *base, *child;

	expect(vmf_inherit(p, PAGES * PG, VMF_INHERIT_SHARE), 0);
	expect(vmf_task_fork(VMF_TASK_DEFAULT, task), 0);
	expect(vmf_task_range(VMF_TASK_DEFAULT, &base, NULL), 0);
	expect(vmf_task_range(*task, &child, NULL), 0);
	return (char *)child + (p - (char *)base);
}

static inline void
begin(void)
{
	start(0, 0);
	touch_install();
}

static inline void
end(void)
{
	probe_hook = NULL;
	stop();
}

/* The suite's main(): tests, each with the number of times that it loops. */
struct race {
	const char *name;
	const TTest *test;
	int loops;
};

static inline int
run_races(const char *name, const struct race *races, size_t n)
{
	Suite *s = suite_create(name);

	for (size_t i = 0; i < n; i++) {
		TCase *tc = tcase_create(races[i].name);

		tcase_set_timeout(tc, 60);
		tcase_add_loop_test(tc, races[i].test, 0, races[i].loops);
		suite_add_tcase(s, tc);
	}
	return run_suite(s);
}

#endif
