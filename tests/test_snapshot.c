/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Snapshots from the inside: which objects there are, what a copy covers, and what it costs.
 *
 * test_api_snapshot.c says what users see.  Here the structure is looked at: a copy object covers
 * what was snapshot of its object, a newer one at least as much as an older one;
 * an unmodified copy serves again; objects go when nobody needs them.
 */

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "suite.h"
#include "support.h"
#include "testpager.h"
#include "vm_meter.h"
#include "vm_object.h"
#include "vm_view.h"

enum { PAGES = 12, PARTS = 4, CHAIN = 100 };

static uint64_t
counter(enum vm_counter c)
{
	return vm_meter_read(c);
}
#define COUNT(name)	counter(VMC_##name)

static void
check_snapshot_page(vmf_snapshot_t s, size_t i, uint64_t key)
{
	char buf[VMF_PAGE_SIZE];

	expect(vmf_snapshot_read(s, 0, i * PG, buf, PG), 0);
	check_fill(buf, PG, key);
}

/*
 * Partial copies: snapshots of four subranges of one object, in every order, and a write of
 * the whole object after each.  Page i is written with key (generation, i).
 */

static const struct {
	size_t first, n;
} parts[PARTS] = { { 2, 3 }, { 7, 2 }, { 4, 5 }, { 0, 1 } };

/* The n-th permutation. */
static void
permute(unsigned n, unsigned *order)
{
	unsigned left[PARTS], k = PARTS;

	for (unsigned i = 0; i < PARTS; i++)
		left[i] = i;
	for (unsigned i = 0; i < PARTS; i++, k--) {
		unsigned at = n % k;

		n /= k;
		order[i] = left[at];
		memmove(left + at, left + at + 1, (k - at - 1) * sizeof(left[0]));
	}
}

START_TEST(partial_copies)
{
	vmf_snapshot_t s[PARTS];
	size_t lo = SIZE_MAX, hi = 0;
	unsigned order[PARTS];
	struct vm_object *o;
	char *p;

	start(0, 0);
	permute((unsigned)_i, order);
	p = alloc(PAGES);
	fill_pages(p, PAGES, 1);
	o = object_at(p);
	for (unsigned g = 0; g < PARTS; g++) {
		size_t first = parts[order[g]].first, n = parts[order[g]].n;
		uint64_t before = COUNT(v_pushes);
		struct vm_object *c;

		s[g] = snap(p + first * PG, n);
		audit();
		lo = first < lo ? first : lo;
		hi = first + n > hi ? first + n : hi;
		/* The hull of all; and that much is pushed, no more. */
		c = o->copy;
		check(object_at(p) == o && c != NULL && c->shadow == o);
		check(c->shadow_offset == lo && c->size == hi - lo);
		for (struct vm_object *older = LIST_FIRST(&c->children); older != NULL;
		    older = LIST_FIRST(&older->children))
			check(older->shadow_offset + older->size <= older->shadow->size);
		fill_pages(p, PAGES, g + 2);
		check(COUNT(v_pushes) - before == hi - lo);
		audit();
	}
	for (unsigned g = 0; g < PARTS; g++)
		for (size_t i = 0; i < parts[order[g]].n; i++)
			check_snapshot_page(s[g], i, mix(g + 1, parts[order[g]].first + i));
	check_pages(p, PAGES, PARTS + 1);
	/* Let them go in an order that has nothing to do with that in which they came. */
	for (unsigned g = 0; g < PARTS; g++) {
		expect(vmf_snapshot_release(s[order[g]]), 0);
		audit();
		for (unsigned h = g + 1; h < PARTS; h++)
			for (size_t i = 0; i < parts[order[order[h]]].n; i++)
				check_snapshot_page(s[order[h]], i,
				    mix(order[h] + 1, parts[order[order[h]]].first + i));
	}
	check_pages(p, PAGES, PARTS + 1);
	check(vm_object_count() == 1);
	stop();
}
END_TEST

/*
 * What it costs
 */

START_TEST(unmodified_copy_serves_again)
{
	vmf_snapshot_t s1, s2, s3;
	struct vm_object *c;
	uint64_t calls;
	char *p;

	start(0, 0);
	p = alloc(PAGES);
	fill_pages(p, PAGES, 1);
	s1 = snap(p, PAGES);
	c = object_at(p)->copy;
	calls = COUNT(v_map_calls);
	s2 = snap(p, PAGES);
	s3 = snap(p + PG, 2);
	check(object_at(p)->copy == c && vm_object_count() == 2);
	check(COUNT(v_map_calls) == calls);
	fill_pages(p, PAGES, 2);
	check_snapshot_page(s3, 0, mix(1, 1));
	expect(vmf_snapshot_release(s1), 0);
	check_snapshot_page(s2, 3, mix(1, 3));
	s1 = snap(p, PAGES);
	check(object_at(p)->copy != c);
	audit();
	stop();
}
END_TEST

/* 1 % is written: the next snapshot revokes that, with a call for each page at most. */
START_TEST(revokes_what_was_written)
{
	enum { MANY = 1000, EVERY = 100 };
	uint64_t calls;
	char *p;

	start(0, 0);
	p = alloc(MANY);
	expect(vmf_advise(p, MANY * PG, VMF_ADVICE_RANDOM), 0);
	for (size_t i = 0; i < MANY; i++)
		p[i * PG] = 1;
	(void)snap(p, MANY);
	/* Calls of the keeper's, which brings views home, are others. */
	vm_view_hold();
	for (size_t i = 0; i < MANY; i += EVERY)
		p[i * PG] = 2;
	calls = COUNT(v_map_calls);
	(void)snap(p, MANY);
	calls = COUNT(v_map_calls) - calls;
	check(calls >= 1 && calls <= MANY / EVERY);
	calls = COUNT(v_map_calls);
	(void)snap(p, MANY);
	check(COUNT(v_map_calls) == calls);
	vm_view_go_on();
	stop();
}
END_TEST

START_TEST(chain_collapses)
{
	vmf_snapshot_t s[CHAIN];
	unsigned generation[CHAIN], left = CHAIN;
	uint64_t state = (uint64_t)_i + 1;
	char *p;

	start(0, 0);
	p = alloc(PAGES);
	fill_pages(p, PAGES, 0);
	for (unsigned g = 0; g < CHAIN; g++) {
		generation[g] = g;
		s[g] = snap(p, PAGES);
		fill(p + g % PAGES * PG, PG, mix(g + 1, g % PAGES));
	}
	check(vm_object_count() == CHAIN + 1);
	while (left > 0) {
		unsigned k = (unsigned)(rng_next(&state) % left);

		expect(vmf_snapshot_release(s[k]), 0);
		left--;
		s[k] = s[left];
		generation[k] = generation[left];
		/* What no snapshot needs stays only where two others part. */
		check(vm_object_count() <= 2 * left + 1);
		if (left % 10 != 0 || left == 0)
			continue;
		audit();
		k = (unsigned)(rng_next(&state) % left);
		for (unsigned i = 0; i < PAGES; i++) {
			/* Page i was written last before snapshot g by generation i + 12 k < g. */
			unsigned g = generation[k], w = 0;

			if (g > i)
				w = (g - 1 - i) / PAGES * PAGES + i + 1;
			check_snapshot_page(s[k], i, mix(w, i));
		}
	}
	check(vm_object_count() == 1 && COUNT(v_collapses) > 0);
	check(object_at(p)->shadow == NULL && object_at(p)->copy == NULL);
	stop();
}
END_TEST

/*
 * Wired pages stay writable, and are yet of one instant: a writer counts up in one, then in the
 * other, far away, so that it often does while those between are being copied.  The second is
 * never ahead of the first, nor behind by more than one.  But pages that never hold still are
 * taken as they come, and on a busy machine a writer may seem to be so: rarely.
 */

/* Where the window onto frames is small a look takes long: with fewer pages it ends between two writes. */
enum { APART = sizeof(void *) == 8 ? 400 : 8, TIMES = 300 };

static _Atomic uint64_t *first, *second;
static _Atomic bool enough;

static void *
count_up(void *arg)
{
	for (uint64_t n = 1; !enough; n++) {
		*first = n;
		*second = n;
		usleep(500);
	}
	return NULL;
}

START_TEST(wired_pages_of_one_instant)
{
	unsigned moved = 0, torn = 0, n = 0;
	uint64_t last = 0;
	pthread_t t;
	char *p;

	start(0, 0);
	p = alloc(APART + 1);
	/* The page that is written last is copied first, or the other way round. */
	first = (_Atomic uint64_t *)(void *)(p + (_i ? APART : 0) * PG);
	second = (_Atomic uint64_t *)(void *)(p + (_i ? 0 : APART) * PG);
	expect(vmf_wire(p, (APART + 1) * PG), 0);
	check(pthread_create(&t, NULL, count_up, NULL) == 0);
	for (; n < TIMES || moved <= TIMES / 10; n++) {
		vmf_snapshot_t s = snap(p, APART + 1);
		uint64_t a, b;

		expect(vmf_snapshot_read(s, 0, (size_t)((char *)first - p), &a, sizeof(a)), 0);
		expect(vmf_snapshot_read(s, 0, (size_t)((char *)second - p), &b, sizeof(b)), 0);
		torn += a != b && a != b + 1;
		check(a >= last);
		moved += a != last;
		last = a;
		expect(vmf_snapshot_release(s), 0);
	}
	enough = true;
	check(pthread_join(t, NULL) == 0);
	if (torn > n / 100)
		die("%u of %u are of no instant", torn, n);
	expect(vmf_unwire(p, (APART + 1) * PG), 0);
	stop();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("snapshot");
	TCase *tc = tcase_create("objects");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, partial_copies, 0, 24);
	tcase_add_test(tc, unmodified_copy_serves_again);
	tcase_add_test(tc, revokes_what_was_written);
	tcase_add_loop_test(tc, chain_collapses, 0, 3);
	tcase_add_loop_test(tc, wired_pages_of_one_instant, 0, 2);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
