/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Rolling back to one snapshot again and again: what is learnt, and that it is never wrong.
 *
 * test_api_snapshot.c says what users see of a rollback.  Here each thing that may happen to a page that
 * has become hot happens to it: a newer snapshot, another place to be written from, wiring,
 * paging out, a split entry, a copy that turns away.  The audit compares every page that is not on the
 * list of those that were written with the snapshot, and is called all the time.  Costs are counted: faults, and
 * calls that change mappings.
 */

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "kern/alone.h"
#include "suite.h"
#include "support.h"
#include "testpager.h"
#include "trap.h"
#include "vm_clean.h"
#include "vm_meter.h"
#include "vm_object.h"
#include "vm_page.h"

enum { PAGES = 64, IDLE = 7, ROUNDS = 5, STEPS = 1500 / (1 + 2 * SANITIZED) };

#define COUNT(name)	vm_meter_read(VMC_##name)

/* Pages that are written in each round, in no order. */
static const size_t place[] = { 40, 3, 17, 4, 63, 0, 18 };

static char *
filled(size_t pages)
{
	char *p = alloc(pages);

	/* Single pages: what is counted must not depend on neighbours. */
	expect(vmf_advise(p, pages * PG, VMF_ADVICE_RANDOM), 0);
	fill_pages(p, pages, 1);
	return p;
}

static void
write_places(char *p, uint64_t key)
{
	for (size_t i = 0; i < nitems(place); i++)
		fill(p + place[i] * PG, PG, mix(key, place[i]));
}

static void
check_places(const char *p, uint64_t key)
{
	for (size_t i = 0; i < nitems(place); i++)
		check_fill(p + place[i] * PG, PG, mix(key, place[i]));
}

static void
roll(vmf_snapshot_t s)
{
	expect(vmf_snapshot_rollback(s), 0);
	audit();
}

/* Write the places, see them written, roll back; so often.  Then they are hot. */
static void
rounds(char *p, vmf_snapshot_t s, unsigned n)
{
	for (unsigned r = 0; r < n; r++) {
		write_places(p, 100 + r);
		check_places(p, 100 + r);
		roll(s);
		check_pages(p, PAGES, 1);
	}
}

static bool
writable(char *p, size_t i)
{
	unsigned char bits;

	expect(vmf_page_info(p + i * PG, PG, &bits), 0);
	return bits & VMF_PAGE_WRITABLE;
}

static size_t
count_writable(char *p, size_t pages)
{
	size_t n = 0;

	for (size_t i = 0; i < pages; i++)
		n += writable(p, i);
	return n;
}

/* Pages that a rollback would look at.  => nobody else is in the library */
static size_t
listed(char *p)
{
	struct vm_object *o = object_at(p);
	vm_pindex_t i = o->written.first;
	size_t n = 0;

	if (o->written.snapshot == 0)
		return SIZE_MAX;
	for (; i != VM_WRITTEN_LAST; n++)
		i = ((struct vm_page *)radix_lookup(&o->pages, i))->written_next;
	return n;
}

static void
check_snapshot(vmf_snapshot_t s, size_t pages, uint64_t key)
{
	char buf[VMF_PAGE_SIZE];

	for (size_t i = 0; i < pages; i++) {
		expect(vmf_snapshot_read(s, 0, i * PG, buf, PG), 0);
		check_fill(buf, PG, mix(key, i));
	}
}

/* Another thread of the program's, which does nothing. */
static pthread_t idler;
static pthread_mutex_t idle = PTHREAD_MUTEX_INITIALIZER;

static void *
wait_idle(void *arg)
{
	pthread_mutex_lock(&idle);
	pthread_mutex_unlock(&idle);
	return arg;
}

static void
company(bool wanted)
{
	if (!wanted)
		return;
	pthread_mutex_lock(&idle);
	check(pthread_create(&idler, NULL, wait_idle, NULL) == 0);
	check(!alone());
}

static void
no_company(bool wanted)
{
	if (!wanted)
		return;
	pthread_mutex_unlock(&idle);
	check(pthread_join(idler, NULL) == 0);
}

/*
 * What is learnt
 */

START_TEST(steady_state_takes_no_fault)
{
	uint64_t faults, calls;
	bool only;
	char *p;
	vmf_snapshot_t s;

	start(0, 0);
	company(_i);
	only = alone();
	p = filled(PAGES);
	s = snap(p, PAGES);
	rounds(p, s, 3);
	check(count_writable(p, PAGES) == nitems(place) && listed(p) == nitems(place));
	faults = COUNT(v_vm_faults);
	calls = COUNT(v_map_calls);
	for (unsigned r = 0; r < 20; r++) {
		write_places(p, 50 + r);
		expect(vmf_snapshot_rollback(s), 0);
		check_places(p, 1);
	}
	check(COUNT(v_vm_faults) == faults);
	/* With others about, the pages are taken away and given back. */
	check(only ? COUNT(v_map_calls) == calls : COUNT(v_map_calls) > calls);
	check_pages(p, PAGES, 1);
	check_snapshot(s, PAGES, 1);
	no_company(_i);
	stop();
}
END_TEST

/* What is written in turns is not hot, and costs a rollback nothing when it is not written. */
START_TEST(written_once_stays_cold)
{
	uint64_t calls;
	vmf_snapshot_t s;
	char *p;

	start(0, 0);
	p = filled(PAGES);
	s = snap(p, PAGES);
	for (size_t i = 0; i < PAGES; i++) {
		fill(p + i * PG, PG, 5);
		check(listed(p) == (i == 0 ? SIZE_MAX : 1));
		roll(s);
		check(count_writable(p, PAGES) == 0 && listed(p) == 0);
		check_pages(p, PAGES, 1);
	}
	check(object_at(p)->copy->pages.count == PAGES);
	calls = COUNT(v_map_calls);
	roll(s);
	check(COUNT(v_map_calls) == calls);
	check_pages(p, PAGES, 1);
	stop();
}
END_TEST

/* What was not written is not made writable by a mere look at it. */
START_TEST(a_look_lists_nothing)
{
	vmf_snapshot_t s;
	char *p;

	start(0, 0);
	p = filled(PAGES);
	s = snap(p, PAGES);
	rounds(p, s, 1);
	expect(vmf_advise(p, PAGES * PG, _i ? VMF_ADVICE_SEQUENTIAL : VMF_ADVICE_RANDOM), 0);
	expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_COLD), 0);	/* unmaps */
	check_pages(p, PAGES, 1);
	check(count_writable(p, PAGES) == 0 && listed(p) == 0);
	audit();
	/* A writer who goes on gets neighbours with it, and they are known to be writable. */
	p[2 * PG] ^= 1;
	check(listed(p) == count_writable(p, PAGES));
	audit();
	fill_pages(p, PAGES, 2);
	audit();
	roll(s);
	check_pages(p, PAGES, 1);
	stop();
}
END_TEST

START_TEST(hot_goes_cold_and_comes_back)
{
	vmf_snapshot_t s;
	uint64_t faults;
	char *p;

	start(0, 0);
	p = filled(PAGES);
	s = snap(p, PAGES);
	rounds(p, s, 3);
	/* One stays in use, one is used now and then, the others are left alone. */
	for (unsigned r = 0; r <= IDLE; r++) {
		check(count_writable(p, PAGES) == nitems(place));
		p[place[0] * PG] ^= 1;
		if (r == IDLE / 2)
			p[place[1] * PG + PG - 1] ^= 1;
		roll(s);
	}
	check(count_writable(p, PAGES) == 2 && writable(p, place[0]) && writable(p, place[1]));
	check(listed(p) == 2);
	check_pages(p, PAGES, 1);
	faults = COUNT(v_vm_faults);
	write_places(p, 7);
	check(COUNT(v_vm_faults) - faults == nitems(place) - 2);
	roll(s);
	rounds(p, s, 2);
	check(count_writable(p, PAGES) == nitems(place));
	check_snapshot(s, PAGES, 1);
	stop();
}
END_TEST

/*
 * What happens to hot pages
 */

/* A newer snapshot is owed what the hot pages hold when it is taken, before they go back, and after. */
START_TEST(newer_snapshots_keep_what_they_have)
{
	vmf_snapshot_t s, t, u;
	char *p;

	start(0, 0);
	p = filled(PAGES);
	s = snap(p, PAGES);
	rounds(p, s, ROUNDS);
	write_places(p, 2);
	t = snap(p, PAGES);
	audit();
	roll(s);
	check_pages(p, PAGES, 1);
	u = snap(p, PAGES);
	rounds(p, s, ROUNDS);
	roll(t);
	check_places(p, 2);
	check_fill(p + PG, PG, mix(1, 1));
	/* To and fro. */
	for (unsigned r = 0; r < ROUNDS; r++) {
		write_places(p, 30 + r);
		roll(r % 2 ? t : s);
		check_places(p, r % 2 ? 2 : 1);
	}
	fill_pages(p, PAGES, 9);
	roll(u);
	check_pages(p, PAGES, 1);
	expect(vmf_snapshot_release(_i ? s : t), 0);
	audit();
	rounds(p, _i ? u : s, ROUNDS);
	if (_i) {
		roll(t);
		check_places(p, 2);
	}
	stop();
}
END_TEST

START_TEST(a_released_snapshot_is_followed_no_more)
{
	vmf_snapshot_t s, t;
	struct vm_object *o;
	char *p;

	start(0, 0);
	p = filled(PAGES);
	s = snap(p, PAGES);
	rounds(p, s, ROUNDS);
	o = object_at(p);
	check(o->written.snapshot != 0);
	expect(vmf_snapshot_release(s), 0);
	check(object_at(p) == o && o->written.snapshot == 0 && !o->written.stale);
	audit();
	write_places(p, 2);
	t = snap(p, PAGES);		/* its copy may well lie where the other one lay */
	write_places(p, 3);
	p[PG] ^= 1;
	roll(t);
	check_places(p, 2);
	check_fill(p + PG, PG, mix(1, 1));
	stop();
}
END_TEST

/* Both the page and what it is to become can be out. */
START_TEST(hot_pages_are_paged_out)
{
	vmf_snapshot_t s;
	char *p;

	testpager_reset();
	start(0, 0);
	testpager_default();
	p = filled(PAGES);
	s = snap(p, PAGES);
	give_pager(object_at(p), 0);
	give_pager(object_at(p)->copy, 0);
	rounds(p, s, ROUNDS);
	write_places(p, 2);
	if (_i & 1)
		evict(object_at(p));
	if (_i & 2)
		evict(object_at(p)->copy);
	audit();
	if (_i & 4)
		p[PG] ^= 1;
	roll(s);
	check_pages(p, PAGES, 1);
	rounds(p, s, ROUNDS);
	check(count_writable(p, PAGES) == nitems(place));
	check_snapshot(s, PAGES, 1);
	stop();
	testpager_reset();
}
END_TEST

static void
clean(struct vm_object *o)
{
	sys_sigset_t old;
	uint32_t lost;

	trap_enter(&old);
	check(vm_object_clean(o, 0, o->size, &lost) == KERN_SUCCESS);
	trap_leave(&old);
}

/* A page that was written out is as its pager has it no more when it goes back. */
START_TEST(hot_pages_are_written_out)
{
	vmf_snapshot_t s;
	char *p;

	testpager_reset();
	start(0, 0);
	testpager_default();
	p = filled(PAGES);
	s = snap(p, PAGES);
	give_pager(object_at(p), 0);
	rounds(p, s, ROUNDS);
	write_places(p, 2);
	clean(object_at(p));
	audit();
	roll(s);
	evict(object_at(p));
	check_pages(p, PAGES, 1);
	rounds(p, s, ROUNDS);
	stop();
	testpager_reset();
}
END_TEST

/* One hot page goes, the others stay: the list is broken, and made again. */
START_TEST(one_hot_page_is_paged_out)
{
	struct vm_object *o;
	struct vm_page *m;
	sys_sigset_t old;
	vmf_snapshot_t s;
	char *p;

	testpager_reset();
	start(0, 0);
	testpager_default();
	p = filled(PAGES);
	s = snap(p, PAGES);
	o = object_at(p);
	give_pager(o, 0);
	rounds(p, s, ROUNDS);
	write_places(p, 2);
	clean(o);
	trap_enter(&old);
	vm_object_lock(o);
	m = vm_page_lookup(o, (vm_pindex_t)place[_i]);
	vm_object_page_protect(m, VM_PROT_NONE);
	vm_page_free(m);
	vm_object_unlock(o);
	trap_leave(&old);
	check(o->written.snapshot == 0 && o->written.stale);
	audit();
	p[PG] ^= 1;
	if (_i % 2 == 0)
		p[place[_i] * PG] ^= 1;		/* it is back before it is missed */
	roll(s);
	check_pages(p, PAGES, 1);
	rounds(p, s, ROUNDS);
	check(count_writable(p, PAGES) == nitems(place));
	stop();
	testpager_reset();
}
END_TEST

/* What this snapshot has is paged out; what a newer one has of the same pages is in memory. */
START_TEST(an_older_copy_is_paged_out)
{
	struct vm_object *older;
	vmf_snapshot_t s, t;
	char *p;

	testpager_reset();
	start(0, 0);
	testpager_default();
	p = filled(PAGES);
	s = snap(p, PAGES);
	rounds(p, s, ROUNDS);
	write_places(p, 2);
	t = snap(p, PAGES);
	write_places(p, 3);
	older = LIST_FIRST(&object_at(p)->copy->children);
	give_pager(older, 0);
	evict(older);
	audit();
	roll(s);
	check_pages(p, PAGES, 1);
	roll(t);
	check_places(p, 2);
	stop();
	testpager_reset();
}
END_TEST

/* The pages that hot ones are copied from are touched by nobody else, and yet wanted. */
START_TEST(what_is_copied_from_stays_warm)
{
	vmf_snapshot_t s;
	struct vm_page *m;
	char *p;

	start(0, 0);
	p = filled(PAGES);
	s = snap(p, PAGES);
	rounds(p, s, ROUNDS);
	m = radix_lookup(&object_at(p)->copy->pages, (vm_pindex_t)place[0]);
	m->flags &= (uint16_t)~PG_REFERENCED;
	roll(s);
	check(m->flags & PG_REFERENCED);
	stop();
}
END_TEST

/* The memory goes, a view stays: a snapshot takes the pages over, and follows nobody. */
START_TEST(the_memory_goes)
{
	vmf_snapshot_t s, t;
	char *p, *v;

	start(0, 0);
	p = filled(PAGES);
	s = snap(p, PAGES);
	rounds(p, s, ROUNDS);
	write_places(p, 2);
	t = snap(p, PAGES);
	v = view(_i ? t : s, PAGES, VMF_PROT_DEFAULT);
	expect(vmf_unmap(p, PAGES * PG), 0);
	audit();
	if (_i)
		check_places(v, 2);
	else
		check_pages(v, PAGES, 1);
	expect(vmf_snapshot_rollback(s), -EFAULT);
	expect(vmf_snapshot_release(s), 0);
	audit();
	fill_pages(v, PAGES, 1);
	s = snap(v, PAGES);
	rounds(v, s, ROUNDS);
	stop();
}
END_TEST

START_TEST(wired_pages_are_never_hot)
{
	vmf_snapshot_t s;
	char *p;

	start(0, 0);
	p = filled(PAGES);
	s = snap(p, PAGES);
	rounds(p, s, ROUNDS);
	expect(vmf_wire(p + 3 * PG, 3 * PG), 0);	/* two hot ones, one that is not */
	audit();
	rounds(p, s, ROUNDS);
	write_places(p, 2);
	expect(vmf_unwire(p + 3 * PG, 3 * PG), 0);
	p[5 * PG] ^= 1;
	p[4 * PG] ^= 1;			/* it is writable still */
	audit();
	roll(s);
	check_pages(p, PAGES, 1);
	rounds(p, s, ROUNDS);
	expect(vmf_fault_in(p, PG, VMF_PROT_WRITE), 0);
	expect(vmf_snapshot_rollback(s), -EBUSY);
	expect(vmf_fault_release(p, PG), 0);
	p[0] ^= 1;
	roll(s);
	check_pages(p, PAGES, 1);
	stop();
}
END_TEST

/* The same memory in another task: what is written there goes back as well, and is seen there. */
START_TEST(written_from_elsewhere)
{
	char *p, *q;
	void *base, *child;
	vmf_snapshot_t s;
	vmf_task_t task;

	start(0, 0);
	p = filled(PAGES);
	expect(vmf_inherit(p, PAGES * PG, VMF_INHERIT_SHARE), 0);
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &task), 0);
	expect(vmf_task_range(VMF_TASK_DEFAULT, &base, NULL), 0);
	expect(vmf_task_range(task, &child, NULL), 0);
	q = (char *)child + (p - (char *)base);
	company(_i);
	s = snap(p, PAGES);
	rounds(p, s, ROUNDS);
	rounds(q, s, ROUNDS);
	for (unsigned r = 0; r < ROUNDS; r++) {
		q[5 * PG] ^= 1;
		p[6 * PG] ^= 1;
		roll(s);
		check_pages(p, PAGES, 1);
		check_pages(q, PAGES, 1);
	}
	expect(vmf_wire(q + 5 * PG, PG), 0);
	rounds(p, s, 2);
	rounds(q, s, 2);
	expect(vmf_unwire(q + 5 * PG, PG), 0);
	q[5 * PG] ^= 1;
	roll(s);
	check_pages(p, PAGES, 1);
	no_company(_i);
	expect(vmf_task_destroy(task), 0);
	rounds(p, s, ROUNDS);
	stop();
}
END_TEST

/* One object in many entries, two ranges with a gap, which is nobody's to roll back. */
START_TEST(split_entries_and_gaps)
{
	struct vmf_range r[2];
	vmf_snapshot_t s;
	char *p;

	start(0, 0);
	p = filled(PAGES);
	expect(vmf_protect(p + 8 * PG, PG, VMF_PROT_READ), 0);
	r[_i & 1] = (struct vmf_range){ p, 16 * PG };
	r[1 - (_i & 1)] = (struct vmf_range){ p + 20 * PG, (PAGES - 20) * PG };
	expect(vmf_snapshot_create(r, 2, &s), 0);
	company(_i & 2);
	for (unsigned n = 0; n < ROUNDS; n++) {
		write_places(p, 10 + n);	/* 17 and 18 lie in the gap */
		if (n == 2)
			expect(vmf_protect(p + 30 * PG, 2 * PG, VMF_PROT_READ), 0);
		if (n == 3)
			expect(vmf_protect(p + 40 * PG, PG, VMF_PROT_READ), 0);	/* a hot one */
		roll(s);
		check_fill(p + 17 * PG, PG, mix(10 + n, 17));
		check_fill(p + 18 * PG, PG, mix(10 + n, 18));
		fill(p + 17 * PG, PG, mix(1, 17));
		fill(p + 18 * PG, PG, mix(1, 18));
		check_pages(p, PAGES, 1);
		if (n == 3)
			expect(vmf_protect(p + 40 * PG, PG, VMF_PROT_DEFAULT), 0);
	}
	check(writable(p, 40) && writable(p, 3) && !writable(p, 31));
	no_company(_i & 2);
	stop();
}
END_TEST

/* A part of the memory was never touched, a part is a copy of something: they are replaced, others stay hot. */
START_TEST(parts_of_all_kinds)
{
	char *p, *q, *n;
	struct vmf_range r[3];
	vmf_snapshot_t s;
	uint64_t faults;

	start(0, 0);
	p = filled(PAGES);
	q = filled(PAGES);
	n = alloc(4);
	expect(vmf_copy(q, p, PAGES * PG), 0);
	r[0] = (struct vmf_range){ n, 4 * PG };
	r[1] = (struct vmf_range){ p, PAGES * PG };
	r[2] = (struct vmf_range){ q, PAGES * PG };
	expect(vmf_snapshot_create(r, 3, &s), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		write_places(q, 4);
		n[PG] = 1;
		rounds(p, s, 1);
		check_pages(q, PAGES, 1);
		check_zero(n, 4 * PG);
	}
	if (object_at(p)->written.snapshot != 0) {
		faults = COUNT(v_vm_faults);
		write_places(p, 4);
		check(COUNT(v_vm_faults) == faults);
	}
	roll(s);
	check_pages(p, PAGES, 1);
	stop();
}
END_TEST

/* A copy that has all of its pages needs its object no more, and turns away from it. */
START_TEST(a_copy_that_has_all)
{
	vmf_snapshot_t s;
	char *p;

	start(0, 0);
	p = filled(PAGES);
	s = snap(p, PAGES);
	rounds(p, s, ROUNDS);
	fill_pages(p, PAGES, 2);
	roll(s);
	collapse(object_at(p)->copy);
	audit();
	check(object_at(p)->copy == NULL && object_at(p)->written.snapshot == 0);
	write_places(p, 3);
	p[PG] ^= 1;
	roll(s);
	check_pages(p, PAGES, 1);
	rounds(p, s, ROUNDS);
	check_snapshot(s, PAGES, 1);
	stop();
}
END_TEST

/* If other snapshots cannot be given what they are owed, nothing goes back: hot pages no more than others. */
START_TEST(all_or_nothing)
{
	uint64_t frames = 128;
	vmf_snapshot_t s, t;
	char *p, *q, page[VMF_PAGE_SIZE];

	start(frames * PG, 0);
	p = filled(PAGES / 2);
	s = snap(p, PAGES / 2);
	for (unsigned r = 0; r < ROUNDS; r++) {
		p[0] ^= 1;
		p[PG] ^= 1;
		roll(s);
	}
	p[PG] ^= 1;
	p[3 * PG] ^= 1;
	t = snap(p, PAGES / 2);
	p[0] ^= 1;
	/* No frame is left for pages 1 and 3, which t is owed; page 0 comes before them. */
	q = alloc(frames);
	for (size_t i = 0; i < frames && vmf_fault_in(q + i * PG, PG, VMF_PROT_WRITE) == 0; i++)
		continue;
	expect(vmf_snapshot_rollback(s), -ENOMEM);
	for (size_t i = 0; i < PAGES / 2; i++) {
		memcpy(page, p + i * PG, PG);
		page[0] ^= i == 0 || i == 1 || i == 3;
		check_fill(page, PG, mix(1, i));
	}
	audit();
	expect(vmf_snapshot_release(t), 0);
	for (size_t i = 0; i < frames && vmf_fault_release(q + i * PG, PG) == 0; i++)
		continue;
	expect(vmf_unmap(q, frames * PG), 0);
	roll(s);
	check_pages(p, PAGES / 2, 1);
	stop();
}
END_TEST

/*
 * All of it at random, against plain arrays
 */

enum { KEPT = 4, SMALL = 24 };

START_TEST(random_rounds)
{
	static unsigned char now[SMALL], then[KEPT][SMALL];
	uint64_t state = (uint64_t)_i + 1;
	vmf_snapshot_t s[KEPT] = { 0 };
	unsigned favourite = 0;
	char *p;

	testpager_reset();
	start(0, 0);
	testpager_default();
	p = alloc(SMALL);
	company(_i & 1);
	memset(now, 0, sizeof(now));
	for (unsigned step = 0; step < STEPS; step++) {
		unsigned k = (unsigned)(rng_next(&state) % KEPT), what = (unsigned)(rng_next(&state) % 32);
		struct vm_object *o = object_at(p);

		if (rng_next(&state) % 4 != 0)
			k = favourite;		/* or nothing would ever be hot */
		for (unsigned n = (unsigned)(rng_next(&state) % 4); n > 0; n--) {
			size_t i = (size_t)(rng_next(&state) % SMALL);

			if (rng_next(&state) % 2 != 0)
				i = i % 4 * 5;
			p[i * PG + i] = (char)++now[i];
		}
		if (what == 0 || s[k] == 0) {
			if (s[k] != 0)
				expect(vmf_snapshot_release(s[k]), 0);
			s[k] = snap(p, SMALL);
			memcpy(then[k], now, sizeof(now));
		} else if (what == 1) {
			favourite = k;
		} else if (what == 2 && o != NULL) {
			if (o->pager == NULL)
				give_pager(o, 0);
			evict(o);
		} else if (what == 3 && o != NULL && o->copy != NULL) {
			if (o->copy->pager == NULL)
				give_pager(o->copy, 0);
			evict(o->copy);
		} else if (what == 4) {
			expect(vmf_advise(p, SMALL * PG,
			    rng_next(&state) % 2 ? VMF_ADVICE_COLD : VMF_ADVICE_RANDOM), 0);
		} else if (what == 5) {
			expect(vmf_advise(p, SMALL * PG, VMF_ADVICE_NORMAL), 0);
		} else {
			expect(vmf_snapshot_rollback(s[k]), 0);
			memcpy(now, then[k], sizeof(now));
		}
		if (step % 4 == 0)
			audit();
		for (size_t i = 0; i < SMALL; i++)
			if ((rng_next(&state) % 8 == 0 || step == STEPS - 1) &&
			    (unsigned char)p[i * PG + i] != now[i])
				die("seed %d, step %u: page %zu is %d, not %d", _i + 1, step, i,
				    p[i * PG + i], now[i]);
	}
	for (unsigned k = 0; k < KEPT; k++)
		for (size_t i = 0; s[k] != 0 && i < SMALL; i++) {
			unsigned char byte;

			expect(vmf_snapshot_read(s[k], 0, i * PG + i, &byte, 1), 0);
			check(byte == then[k][i]);
		}
	no_company(_i & 1);
	stop();
	testpager_reset();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("rollback");
	TCase *tc = tcase_create("learning");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, steady_state_takes_no_fault, 0, 2);
	tcase_add_test(tc, written_once_stays_cold);
	tcase_add_loop_test(tc, a_look_lists_nothing, 0, 2);
	tcase_add_test(tc, hot_goes_cold_and_comes_back);
	suite_add_tcase(s, tc);
	tc = tcase_create("events");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, newer_snapshots_keep_what_they_have, 0, 2);
	tcase_add_test(tc, a_released_snapshot_is_followed_no_more);
	tcase_add_loop_test(tc, hot_pages_are_paged_out, 0, 8);
	tcase_add_test(tc, hot_pages_are_written_out);
	tcase_add_loop_test(tc, one_hot_page_is_paged_out, 0, nitems(place));
	tcase_add_test(tc, an_older_copy_is_paged_out);
	tcase_add_test(tc, what_is_copied_from_stays_warm);
	tcase_add_loop_test(tc, the_memory_goes, 0, 2);
	tcase_add_test(tc, wired_pages_are_never_hot);
	tcase_add_loop_test(tc, written_from_elsewhere, 0, 2);
	tcase_add_loop_test(tc, split_entries_and_gaps, 0, 4);
	tcase_add_test(tc, parts_of_all_kinds);
	tcase_add_test(tc, a_copy_that_has_all);
	tcase_add_test(tc, all_or_nothing);
	suite_add_tcase(s, tc);
	tc = tcase_create("random");
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, random_rounds, 0, 8);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
