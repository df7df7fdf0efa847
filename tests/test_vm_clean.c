/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Cleaning: which pages go together, how many transfers are under way, and what becomes of pages that
 * their pager refuses or takes in part.
 */

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "kern/event.h"
#include "kern/sys.h"
#include "support.h"
#include "testpager.h"
#include "trap.h"
#include "vm_clean.h"
#include "vm_meter.h"
#include "vm_page.h"

enum { N = 400, SLOW_MS = 10000, KEY = 7 };

static volatile char *vol;
static char *mem;
static struct vm_object *object;
static sys_sigset_t mask;

static void
setup(void)
{
	testpager_reset();
	start(0, 0);
	vol = mem = alloc(N);
	expect(vmf_advise(mem, N * PG, VMF_ADVICE_RANDOM), 0);
	fill_pages(mem, N, KEY);
	object = object_at(mem);
	give_pager(object, 3);
}

static void
teardown(void)
{
	testpager.stuck = NULL;
	testpager_reset();
	stop();
}

static struct testpager *
pager(void)
{
	return container_of(object->pager, struct testpager, pager);
}

static void
check_stored(vm_pindex_t lo, vm_pindex_t hi)
{
	for (vm_pindex_t i = lo; i < hi; i++) {
		check(testpager_has(pager(), i + 3));
		check_fill(pager()->page[i + 3], PG, mix(KEY, i));
	}
}

/* Pages [lo, hi) as the daemon finds its victims: unmapped, watched. */
static void
let_rest(vm_pindex_t lo, vm_pindex_t hi)
{
	trap_enter(&mask);
	vm_object_lock(object);
	for (vm_pindex_t i = lo; i < hi; i++) {
		struct vm_page *m = vm_page_lookup(object, i);

		vm_object_page_protect(m, VM_PROT_NONE);
		m->flags &= (uint16_t)~PG_REFERENCED;
		vm_page_deactivate(m);
	}
	vm_object_unlock(object);
	trap_leave(&mask);
}

static void
set_flag(vm_pindex_t i, uint16_t flag, bool on)
{
	struct vm_page *m;

	trap_enter(&mask);
	vm_object_lock(object);
	m = vm_page_lookup(object, i);
	m->flags = (uint16_t)(on ? m->flags | flag : m->flags & ~flag);
	vm_object_unlock(object);
	trap_leave(&mask);
}

static bool
has_flag(vm_pindex_t i, uint16_t flag)
{
	bool has;

	trap_enter(&mask);
	vm_object_lock(object);
	has = vm_page_lookup(object, i)->flags & flag;
	vm_object_unlock(object);
	trap_leave(&mask);
	return has;
}

/*
 * Clusters
 */

static bool
stay(struct vm_page *m)
{
	return false;
}

/* Launder page i; the pages that went. */
static unsigned
launder(vm_pindex_t i)
{
	struct vm_wash washes[2] = { 0 };
	struct vm_laundry l = { .wash = washes, .nwashes = 2, .evict = stay };
	unsigned before = testpager_counts.put_pages;

	trap_enter(&mask);
	vm_object_lock(object);
	vm_object_launder(&l, vm_page_lookup(object, i));
	while (atomic_load(&l.sent) != 0)
		usleep(100);
	trap_leave(&mask);
	return testpager_counts.put_pages - before;
}

START_TEST(neighbours_on_both_sides_go_together)
{
	testpager.async = _i;
	let_rest(10, 40);
	ck_assert_uint_eq(launder(25), 30);
	ck_assert_uint_eq(testpager_counts.puts, 1);
	check_stored(10, 40);
	check(!testpager_has(pager(), 9 + 3) && !testpager_has(pager(), 40 + 3));
	for (vm_pindex_t i = 9; i <= 40; i++) {
		check(has_flag(i, PG_MODIFIED) == (i < 10 || i >= 40));
		check(!has_flag(i, PG_BUSY | PG_LAUNDRY));
	}
	/* At both ends of the object, and no more than a transfer holds. */
	let_rest(0, 5);
	ck_assert_uint_eq(launder(0), 5);
	let_rest(N - 100, N);
	ck_assert_uint_eq(launder(N - 1), VM_PAGER_IO_MAX);
	check_stored(N - VM_PAGER_IO_MAX, N);
}
END_TEST

START_TEST(what_is_in_use_does_not_go_with_its_neighbours)
{
	static const uint16_t flags[] = { PG_BUSY, PG_REFERENCED };

	let_rest(10, 40);
	if (_i < 2)
		set_flag(20, flags[_i], true);
	else if (_i == 2)
		set_flag(20, PG_MODIFIED, false);
	else if (_i == 3)
		expect(vmf_wire(mem + 20 * PG, PG), 0);
	else
		(void)vol[20 * PG];			/* active again */
	if (_i == 5)
		set_flag(20, PG_REFERENCED, false);
	ck_assert_uint_eq(launder(25), 19);
	ck_assert_uint_eq(launder(15), 10);
	check(!testpager_has(pager(), 20 + 3));
	if (_i < 2)
		set_flag(20, flags[_i], false);
	set_flag(20, PG_MODIFIED, true);
	check_pages(mem, N, KEY);
}
END_TEST

/*
 * Everything in a range
 */

static _Atomic int cleaned;
static uint32_t lost;

static void *
clean_all(void *arg)
{
	sys_sigset_t old;

	trap_enter(&old);
	cleaned = 1 + (int)vm_object_clean(object, 0, object->size, &lost);
	trap_leave(&old);
	return arg;
}

static void
await(bool (*so)(void))
{
	uint64_t end = now_ms() + SLOW_MS;

	while (!so()) {
		check(now_ms() < end);
		usleep(500);
	}
}

static bool
all_fly(void)
{
	return testpager_counts.flying == (N + VM_PAGER_IO_MAX - 1) / VM_PAGER_IO_MAX;
}

START_TEST(transfers_overlap_and_end_in_any_order)
{
	pthread_t t;

	testpager.async = true;
	testpager.stuck = testpager_all;
	check(pthread_create(&t, NULL, clean_all, NULL) == 0);
	await(all_fly);
	check(cleaned == 0);
	testpager.stuck = NULL;
	check(pthread_join(t, NULL) == 0);
	ck_assert_int_eq(cleaned, 1 + KERN_SUCCESS);
	check_stored(0, N);
	ck_assert_uint_eq(testpager_counts.put_pages, N);
	check_pages(mem, N, KEY);
}
END_TEST

/* A pager may take as little as it likes, one page at a time, of which one is wired. */
START_TEST(what_was_taken_in_part_is_sent_on)
{
	testpager.async = _i & 1;
	testpager.done_max = _i & 2 ? 1 : 7;
	expect(vmf_wire(mem + 50 * PG, PG), 0);
	(void)clean_all(NULL);
	ck_assert_int_eq(cleaned, 1 + KERN_SUCCESS);
	check_stored(0, N);
	for (vm_pindex_t i = 0; i < N; i++)
		check(has_flag(i, PG_MODIFIED) == (i == 50));
	ck_assert_uint_eq(vm_meter_read(VMC_v_refused), 0);
}
END_TEST

START_TEST(what_is_refused_stays_as_it_was)
{
	testpager.async = _i;
	testpager.put_error = 1;
	(void)clean_all(NULL);
	ck_assert_int_eq(cleaned, 1 + KERN_MEMORY_ERROR);
	ck_assert_uint_ge(lost, 1);
	ck_assert_uint_le(lost, VM_PAGER_IO_MAX);
	ck_assert_uint_eq(vm_meter_read(VMC_v_refused), lost);
	for (vm_pindex_t i = 0; i < N; i++)
		check(has_flag(i, PG_MODIFIED) != testpager_has(pager(), i + 3));
	check_pages(mem, N, KEY);
	/* Who asks is served at once, however the daemon feels about the pager. */
	testpager.put_error = 0;
	(void)clean_all(NULL);
	ck_assert_int_eq(cleaned, 1 + KERN_SUCCESS);
	check_stored(0, N);
}
END_TEST

/* A write behind the transfer's back waits for it, and is not lost. */
START_TEST(what_is_written_meanwhile_is_modified)
{
	pthread_t t;

	testpager.async = true;
	(void)clean_all(NULL);
	fill_pages(mem, 10, KEY + 1);
	testpager.stuck = testpager_all;
	cleaned = 0;
	check(pthread_create(&t, NULL, clean_all, NULL) == 0);
	while (testpager_counts.flying == 0)
		usleep(500);
	check(has_flag(0, PG_BUSY) && !has_flag(0, PG_MODIFIED));
	testpager.stuck = NULL;
	mem[0]++;
	check(pthread_join(t, NULL) == 0);
	check(has_flag(0, PG_MODIFIED) && !has_flag(1, PG_MODIFIED));
	mem[0]--;
	check_pages(mem, 10, KEY + 1);
}
END_TEST

static bool
none_fly(void)
{
	return testpager_counts.flying == 0 && vm_meter_read(VMC_v_pageouts) >= N;
}

START_TEST(a_range_is_begun_without_waiting)
{
	sys_sigset_t old;

	testpager.async = true;
	testpager.stuck = testpager_all;
	trap_enter(&old);
	ck_assert_uint_eq(vm_object_clean_begin(object, 0, N, false), N);
	trap_leave(&old);
	check(testpager_counts.flying > 1);
	for (vm_pindex_t i = 0; i < N; i++)
		check(has_flag(i, PG_BUSY));
	/* What is busy is left out. */
	trap_enter(&old);
	ck_assert_uint_eq(vm_object_clean_begin(object, 0, N, false), N);
	trap_leave(&old);
	testpager.stuck = NULL;
	await(none_fly);
	check_stored(0, N);
	ck_assert_uint_eq(testpager_counts.put_pages, N);
	/* One page in two: each is a transfer, and there are not so many. */
	testpager.stuck = testpager_all;
	for (size_t i = 0; i < N; i += 2)
		vol[i * PG] = vol[i * PG];
	trap_enter(&old);
	ck_assert_uint_lt(vm_object_clean_begin(object, 0, N, false), N);
	trap_leave(&old);
	testpager.stuck = NULL;
	check_pages(mem, N, KEY);
}
END_TEST

static bool
is_there(vm_pindex_t i)
{
	bool there;

	trap_enter(&mask);
	vm_object_lock(object);
	there = vm_page_lookup(object, i) != NULL;
	vm_object_unlock(object);
	trap_leave(&mask);
	return there;
}

static void *
write_first(void *arg)
{
	mem[0]++;
	return NULL;
}

/* Who is passed by a sequential writer goes once it is written, unless somebody wants it, or it could not be. */
START_TEST(what_is_to_leave_goes_when_it_is_written)
{
	sys_sigset_t old;
	pthread_t t;

	let_rest(0, N);
	testpager.async = true;
	testpager.stuck = testpager_all;
	trap_enter(&old);
	ck_assert_uint_eq(vm_object_clean_begin(object, 0, N / 2, true), N / 2);
	trap_leave(&old);
	check(pthread_create(&t, NULL, write_first, NULL) == 0);
	while (!has_flag(0, PG_WANTED))
		usleep(500);
	set_flag(1, PG_REFERENCED, true);
	testpager.stuck = NULL;
	check(pthread_join(t, NULL) == 0);
	while (testpager_counts.flying != 0)
		usleep(500);
	check(is_there(0) && has_flag(0, PG_MODIFIED));
	check(is_there(1) && !has_flag(1, PG_BUSY));
	for (vm_pindex_t i = 2; i < N; i++)
		check(is_there(i) == (i >= N / 2));
	ck_assert_uint_eq(vm_meter_read(VMC_v_drop_behind), N / 2 - 2);
	mem[0]--;
	check_pages(mem, N, KEY);
	/* What the pager does not take stays. */
	let_rest(0, N);
	testpager.put_error = -1;
	trap_enter(&old);
	(void)vm_object_clean_begin(object, N / 2, N, true);
	trap_leave(&old);
	while (testpager_counts.flying != 0)
		usleep(500);
	for (vm_pindex_t i = N / 2; i < N; i++)
		check(is_there(i) && has_flag(i, PG_MODIFIED));
	testpager.put_error = 0;
	check_pages(mem, N, KEY);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("vm_clean");
	TCase *tc = tcase_create("cleaning");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, neighbours_on_both_sides_go_together, 0, 2);
	tcase_add_loop_test(tc, what_is_in_use_does_not_go_with_its_neighbours, 0, 6);
	tcase_add_test(tc, transfers_overlap_and_end_in_any_order);
	tcase_add_loop_test(tc, what_was_taken_in_part_is_sent_on, 0, 4);
	tcase_add_loop_test(tc, what_is_refused_stays_as_it_was, 0, 2);
	tcase_add_test(tc, what_is_written_meanwhile_is_modified);
	tcase_add_test(tc, a_range_is_begun_without_waiting);
	tcase_add_test(tc, what_is_to_leave_goes_when_it_is_written);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
