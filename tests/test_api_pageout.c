/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * More memory than frames, as a user sees it: what stays when something large passes through, and a budget
 * that changes while the program runs.
 */

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support.h"

enum { BUDGET = 1024, HOT = BUDGET / 4, SCAN = 4 * BUDGET, KEY = 5 };

static struct vmf_stats
stats(void)
{
	struct vmf_stats s = { .size = sizeof(s) };

	expect(vmf_statistics(&s), 0);
	return s;
}

static uint64_t
used(void)
{
	struct vmf_stats s = stats();

	return s.v_page_count - s.v_free_count;
}

static void
begin(uint64_t budget)
{
	struct vmf_config config = VMF_CONFIG_INIT;

	config.memory = budget * PG;
	config.swap_size = 16 * BUDGET * PG;
	config.flags = VMF_CONFIG_QUIET;
	expect(vmf_init(&config), 0);
	touch_install();
}

/*
 * A file, by a pager of ours: page i holds mix(KEY, i)
 */

static _Atomic unsigned asked_for;	/* pages */

static int64_t
get(void *cookie, uint64_t offset, void *buf, size_t len)
{
	asked_for += (unsigned)(len / PG);
	for (size_t i = 0; i < len / PG; i++)
		fill((char *)buf + i * PG, PG, mix(KEY, offset / PG + i));
	return (int64_t)len;
}

static int64_t
put(void *cookie, uint64_t offset, const void *buf, size_t len)
{
	return -EIO;
}

static char *
map_file(size_t pages, unsigned flags)
{
	struct vmf_pager_ops ops = { .size = sizeof(ops), .get = get, .put = put };
	vmf_pager_t pager;
	void *p = NULL;

	expect(vmf_pager_create(&ops, NULL, pages * PG, 0, &pager), 0);
	expect(vmf_map(VMF_TASK_DEFAULT, &p, pages * PG, flags, pager, 0, VMF_PROT_DEFAULT), 0);
	expect(vmf_pager_release(pager), 0);
	return p;
}

static void
touch_all(const char *p, size_t pages)
{
	for (size_t i = 0; i < pages; i++)
		(void)*(const volatile char *)(p + i * PG);
}

static size_t
resident(const char *p, size_t pages)
{
	static unsigned char vec[SCAN];
	size_t n = 0;

	expect(vmf_page_info(p, pages * PG, vec), 0);
	for (size_t i = 0; i < pages; i++)
		n += (vec[i] & VMF_PAGE_RESIDENT) != 0;
	return n;
}

/*
 * A hot set of a quarter of the budget, then a file of four budgets is read once: less than a tenth of
 * the hot set may be lost by that.  Hot pages are a file's or anonymous, and were in use
 * while memory was short, or only before.
 */
START_TEST(a_scan_leaves_the_hot_set_alone)
{
	bool anonymous = _i & 1, warmed = _i & 2;
	char *hot, *other, *scan;
	size_t before;

	begin(BUDGET);
	hot = anonymous ? alloc(HOT) : map_file(HOT, VMF_MAP_SHARED);
	if (anonymous)
		fill_pages(hot, HOT, KEY);
	other = map_file(BUDGET, VMF_MAP_SHARED);
	for (size_t i = 0; i < BUDGET && warmed; i += 64) {
		touch_all(hot, HOT);
		touch_all(other + i * PG, 64);
	}
	touch_all(hot, HOT);
	before = resident(hot, HOT);
	ck_assert_uint_ge(before, HOT * 9 / 10);

	scan = map_file(SCAN, VMF_MAP_SHARED);
	touch_all(scan, SCAN);
	ck_assert_uint_gt(resident(hot, HOT), before - HOT / 10);
	ck_assert_uint_ge(resident(scan, SCAN), BUDGET / 16);
	check_pages(hot, HOT, KEY);
	stop();
}
END_TEST

/* The same, while the hot set is used: what is read again of it is counted. */
START_TEST(a_scan_leaves_the_hot_set_in_use_alone)
{
	enum { OFTEN = 16 };
	unsigned again = 0;
	char *hot, *scan;

	begin(BUDGET);
	hot = map_file(HOT, VMF_MAP_SHARED);
	expect(vmf_advise(hot, HOT * PG, VMF_ADVICE_RANDOM), 0);
	touch_all(hot, HOT);
	scan = map_file(SCAN, VMF_MAP_SHARED);
	for (size_t i = 0; i < SCAN; i++) {
		touch_all(scan + i * PG, 1);
		if (i % OFTEN == 0) {
			unsigned was = asked_for;

			touch_all(hot + i / OFTEN % HOT * PG, 1);
			again += asked_for - was;
		}
	}
	ck_assert_uint_lt(again, HOT / 10);
	check_pages(hot, HOT, KEY);
	stop();
}
END_TEST

/* When the program turns to something else, that becomes the hot set. */
START_TEST(what_is_used_next_becomes_hot)
{
	enum { NEXT = BUDGET / 2, ROUNDS = 12 };
	char *old, *next;
	unsigned was = 0;

	begin(BUDGET);
	old = map_file(BUDGET, VMF_MAP_SHARED);
	for (int round = 0; round < 4; round++)
		touch_all(old, BUDGET);
	next = map_file(NEXT, VMF_MAP_SHARED);
	for (int round = 0; round < ROUNDS; round++) {
		was = asked_for;
		touch_all(next, NEXT);
	}
	ck_assert_uint_lt(asked_for - was, NEXT / 10);
	check_pages(next, NEXT, KEY);
	stop();
}
END_TEST

/*
 * The budget
 */

START_TEST(the_budget_shrinks_and_grows)
{
	struct vmf_stats s;
	char *p;

	begin(BUDGET);
	p = alloc(2 * BUDGET);
	fill_pages(p, 2 * BUDGET, KEY);
	ck_assert_uint_gt(used(), BUDGET / 2);
	for (uint64_t n = BUDGET; n >= 64; n /= 2) {
		expect(vmf_set_memory(n * PG), 0);
		s = stats();
		ck_assert_uint_eq(s.v_page_count, n);
		ck_assert_uint_le(s.v_page_count - s.v_free_count + s.v_dirty_free_count, n);
		check_pages(p, 2 * BUDGET, KEY);
		ck_assert_uint_le(used(), n);
	}
	expect(vmf_set_memory(3 * BUDGET * PG), 0);
	check_pages(p, 2 * BUDGET, KEY);
	ck_assert_uint_ge(used(), 2 * BUDGET);
	check_pages(p, 2 * BUDGET, KEY);
	expect(vmf_set_memory(0), 0);			/* what the machine has */
	ck_assert_uint_gt(stats().v_page_count, 3 * BUDGET);
	stop();
}
END_TEST

START_TEST(a_budget_that_cannot_be_reached_is_refused)
{
	struct vmf_stats s;
	char *p, *q;

	begin(BUDGET);
	p = alloc(BUDGET / 2);
	fill_pages(p, BUDGET / 2, KEY);
	expect(vmf_wire(p, BUDGET / 2 * PG), 0);
	q = alloc(BUDGET);
	fill_pages(q, BUDGET, KEY);
	expect(vmf_set_memory(BUDGET / 4 * PG), -ENOMEM);
	s = stats();
	ck_assert_uint_eq(s.v_page_count, BUDGET);
	ck_assert_uint_eq(s.v_wire_count, BUDGET / 2);
	check_pages(q, BUDGET, KEY);
	check_pages(p, BUDGET / 2, KEY);
	expect(vmf_unwire(p, BUDGET / 2 * PG), 0);
	expect(vmf_set_memory(BUDGET / 4 * PG), 0);
	check_pages(p, BUDGET / 2, KEY);
	check_pages(q, BUDGET, KEY);
	stop();
}
END_TEST

struct toucher {
	pthread_t thread;
	char *p;
	uint64_t seed;
};

static _Atomic bool stopping;

static void *
touch_on(void *arg)
{
	struct toucher *t = arg;

	while (!stopping) {
		size_t i = rng_next(&t->seed) % (BUDGET / 2);

		check_fill(t->p + i * PG, PG, mix(KEY, i));
		if (t->seed % 2 == 0)
			fill(t->p + i * PG, PG, mix(KEY, i));
	}
	return NULL;
}

/* Threads that need frames all the while notice nothing, whether the new budget can be reached or not. */
START_TEST(a_budget_changes_under_the_feet_of_threads)
{
	static struct toucher touchers[4];
	char *wired;

	begin(BUDGET);
	wired = alloc(BUDGET / 4);
	expect(vmf_wire(wired, BUDGET / 4 * PG), 0);
	for (size_t i = 0; i < 4; i++) {
		touchers[i] = (struct toucher){ .p = alloc(BUDGET / 2), .seed = i };
		fill_pages(touchers[i].p, BUDGET / 2, KEY);
		check(pthread_create(&touchers[i].thread, NULL, touch_on, &touchers[i]) == 0);
	}
	for (unsigned n = 0; n < 6; n++) {
		expect(vmf_set_memory(BUDGET / 2 * PG), 0);
		ck_assert_uint_le(used(), BUDGET / 2);
		expect(vmf_set_memory(BUDGET / 8 * PG), -ENOMEM);
		ck_assert_uint_eq(stats().v_page_count, BUDGET / 2);
		expect(vmf_set_memory(BUDGET * PG), 0);
	}
	stopping = true;
	for (size_t i = 0; i < 4; i++) {
		check(pthread_join(touchers[i].thread, NULL) == 0);
		check_pages(touchers[i].p, BUDGET / 2, KEY);
	}
	stop();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("api/pageout");
	TCase *tc = tcase_create("policy"), *tb = tcase_create("budget");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_set_timeout(tb, 60);
	tcase_add_loop_test(tc, a_scan_leaves_the_hot_set_alone, 0, 4);
	tcase_add_test(tc, a_scan_leaves_the_hot_set_in_use_alone);
	tcase_add_test(tc, what_is_used_next_becomes_hot);
	tcase_add_test(tb, the_budget_shrinks_and_grows);
	tcase_add_test(tb, a_budget_that_cannot_be_reached_is_refused);
	tcase_add_test(tb, a_budget_changes_under_the_feet_of_threads);
	suite_add_tcase(s, tc);
	suite_add_tcase(s, tb);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
