/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The pageout daemon: its queues, what it takes, what it leaves, and that it ends.
 *
 * The daemon works when frames are few, so each test has few, and watches what
 * becomes of pages through the counters and, when all is quiet, the pages themselves.
 */

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kern/lock.h"
#include "kern/probe.h"
#include "physmem.h"
#include "suite.h"
#include "support.h"
#include "task.h"
#include "testpager.h"
#include "trap.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_object.h"
#include "vm_page.h"
#include "vm_pageout.h"
#include "vm_pdpolicy.h"

enum { FRAMES = 128, SLOW_MS = 50000 };

#define COUNT(name)	vm_meter_read(VMC_##name)

static char store[FRAMES * 2 * VMF_PAGE_SIZE];
static _Atomic unsigned nputs;
static _Atomic int put_error;
static _Atomic bool put_waits;		/* closed: put() does not return */

static int64_t
get(void *cookie, uint64_t offset, void *buf, size_t len)
{
	memcpy(buf, store + offset, len);
	return (int64_t)len;
}

static int64_t
put(void *cookie, uint64_t offset, const void *buf, size_t len)
{
	nputs++;
	while (put_waits)
		usleep(1000);
	if (put_error != 0)
		return put_error;
	memcpy(store + offset, buf, len);
	return (int64_t)len;
}

static vmf_pager_t pager;

static char *
map_store(size_t pages)
{
	struct vmf_pager_ops ops = { .size = sizeof(ops), .get = get, .put = put };
	void *p = NULL;

	fill_pages(store, pages, 3);
	expect(vmf_pager_create(&ops, NULL, pages * PG, put_waits ? 100 : 0, &pager), 0);
	expect(vmf_map(VMF_TASK_DEFAULT, &p, pages * PG, VMF_MAP_SHARED, pager, 0, VMF_PROT_DEFAULT), 0);
	expect(vmf_advise(p, pages * PG, VMF_ADVICE_RANDOM), 0);
	return p;
}

static void
begin(void)
{
	start(FRAMES * PG, 0);
	touch_install();
}

/* The page that is shown there, of the object itself. */
static struct vm_page *
page_at(const char *p)
{
	struct vm_map *map = task_at((vm_offset_t)p);
	struct vm_map_entry *e = vm_map_entry_at(map, (vm_offset_t)p);
	struct vm_object *o = e->map.object;
	struct vm_page *m;
	sys_sigset_t old;

	task_put(map);
	trap_enter(&old);
	vm_object_lock(o);
	m = vm_page_lookup(o, entry_pindex(e, (vm_offset_t)p));
	vm_object_unlock(o);
	trap_leave(&old);
	return m;
}

START_TEST(queues)
{
	char *p;

	begin();
	p = alloc(16);
	expect(vmf_advise(p, 16 * PG, VMF_ADVICE_RANDOM), 0);
	fill_pages(p, 16, 1);
	check(vm_page_active_count == 16 && vm_page_inactive_count == 0);
	expect(vmf_wire(p, 4 * PG), 0);
	check(vm_page_active_count == 12 && vm_page_wire_count == 4);
	for (size_t i = 0; i < 16; i++)
		check(page_at(p + i * PG)->queue == (i < 4 ? PQ_NONE : PQ_ACTIVE));
	expect(vmf_fault_in(p, PG, VMF_PROT_READ), 0);
	expect(vmf_unwire(p, 4 * PG), 0);
	check(page_at(p)->queue == PQ_NONE && vm_page_wire_count == 1);	/* held still */
	expect(vmf_fault_release(p, PG), 0);
	check(page_at(p)->queue == PQ_ACTIVE && vm_page_wire_count == 0);
	expect(vmf_unmap(p, 16 * PG), 0);
	check(vm_page_active_count == 0);
	stop();
}
END_TEST

/* More than memory, through a pager, several times: every byte survives, and the budget holds. */
START_TEST(larger_than_memory)
{
	struct physmem_counts c;
	char *p;

	begin();
	p = map_store(2 * FRAMES);
	for (uint64_t round = 0; round < 3; round++) {
		check_pages(p, 2 * FRAMES, 3 + round);
		fill_pages(p, 2 * FRAMES, 4 + round);
		physmem_counts(&c);
		check(c.used + c.dirty <= FRAMES);
	}
	check(COUNT(v_pageouts) > 0 && COUNT(v_pageins) > FRAMES && COUNT(v_scan) > 0);
	audit();
	stop();
	check_pages(store, 2 * FRAMES, 6);
}
END_TEST

/* Pages that are touched again and again stay, by reactivation, while others pass through. */
START_TEST(touched_pages_come_back)
{
	enum { HOT = 8 };
	uint64_t pageins = 0;
	char *p;

	vm_page_policy = &vm_pdpolicy_clock;
	begin();
	p = map_store(2 * FRAMES);
	for (size_t i = HOT; i < 2 * FRAMES; i++) {
		(void)*(volatile char *)(p + i * PG);
		for (size_t k = 0; k < HOT; k++) {
			uint64_t before = COUNT(v_pageins);

			(void)*(volatile char *)(p + k * PG);
			pageins += COUNT(v_pageins) - before;
		}
	}
	daemon_rest();
	check(COUNT(v_reactivated) > 0);
	check(pageins < 4 * HOT);		/* once at first, and seldom again */
	check_pages(p, HOT, 3);
	stop();
}
END_TEST

/*
 * What nobody maps any more, but a pager's handle keeps, is written out like anything else, and
 * stays kept.
 */
START_TEST(cached_objects)
{
	enum { PAGES = FRAMES / 4 * 3 };
	char *p, *q;

	begin();
	p = map_store(PAGES);
	for (uint64_t round = 0; round < 3; round++) {
		void *again = NULL;

		fill_pages(p, PAGES, 4 + round);
		expect(vmf_unmap(p, PAGES * PG), 0);
		q = alloc(FRAMES / 2);
		fill_pages(q, FRAMES / 2, 2);
		daemon_rest();
		check(nputs > 0);
		check_pages(q, FRAMES / 2, 2);
		expect(vmf_unmap(q, FRAMES / 2 * PG), 0);
		expect(vmf_map(VMF_TASK_DEFAULT, &again, PAGES * PG, VMF_MAP_SHARED, pager, 0,
		    VMF_PROT_DEFAULT), 0);
		p = again;
		check_pages(p, PAGES, 4 + round);
	}
	expect(vmf_unmap(p, PAGES * PG), 0);
	expect(vmf_pager_release(pager), 0);
	audit();
	stop();
	check_pages(store, PAGES, 6);
}
END_TEST

/* Wired pages are left alone, whatever the need. */
START_TEST(wired_pages_stay)
{
	char *p, *q;

	begin();
	p = map_store(2 * FRAMES);
	expect(vmf_wire(p, 32 * PG), 0);
	q = alloc(8);
	fill_pages(q, 8, 2);
	for (size_t i = 32; i < 2 * FRAMES; i++)
		p[i * PG] = 1;
	daemon_rest();
	for (size_t i = 0; i < 32; i++) {
		struct vm_page *m = page_at(p + i * PG);

		check(m != NULL && m->wire_count == 1 && m->queue == PQ_NONE);
	}
	check(vm_page_wire_count == 32);
	check_pages(q, 8, 2);
	check_pages(p, 32, 3);
	audit();
	stop();
}
END_TEST

/*
 * Zero pages that came beside another, which nobody touched: the kernel holds no memory for
 * them, so they go although there is nowhere to write them.
 */
START_TEST(untouched_zeros_go)
{
	size_t touched = 0;
	char *p;

	begin();
	p = alloc(8 * FRAMES);
	expect(vmf_advise(p, 8 * FRAMES * PG, VMF_ADVICE_SEQUENTIAL), 0);
	/* One page in each 16: half of the frames in the end, eight times as many entered. */
	for (size_t i = 0; i < 8 * FRAMES; i += 16, touched++)
		p[i * PG] = (char)(i / 16 + 1);
	check(touched == FRAMES / 2);
	check(COUNT(v_zfod) + COUNT(v_clustered) > FRAMES);
	for (size_t i = 0; i < 8 * FRAMES; i += 16) {
		check(p[i * PG] == (char)(i / 16 + 1));
		check_zero(p + i * PG + 1, PG - 1);
	}
	audit();
	stop();
}
END_TEST

/* So do pages that were touched, and hold nothing but zeros all the same. */
START_TEST(zeros_go)
{
	char *p;

	begin();
	p = alloc(4 * FRAMES);
	for (size_t i = 0; i < 4 * FRAMES; i++)
		p[i * PG + i % PG] = i % 16 == 0 ? 1 : 0;
	for (size_t i = 0; i < 4 * FRAMES; i++)
		check(p[i * PG + i % PG] == (i % 16 == 0));
	audit();
	stop();
}
END_TEST

/* All that could leave is being written by somebody else: that is worth waiting for. */
static void *
do_sync(void *arg)
{
	expect(vmf_pager_sync(pager, 0, 16 * PG), 0);
	return NULL;
}

static void *
do_fill(void *arg)
{
	fill_pages(arg, FRAMES - 8, 2);
	return NULL;
}

START_TEST(others_are_waited_for)
{
	pthread_t syncer, filler;
	char *p, *q;

	begin();
	p = map_store(16);
	fill_pages(p, 16, 4);
	q = alloc(FRAMES - 8);
	put_waits = true;
	check(pthread_create(&syncer, NULL, do_sync, NULL) == 0);
	for (uint64_t end = now_ms() + SLOW_MS; nputs == 0;)
		check(now_ms() < end);
	check(pthread_create(&filler, NULL, do_fill, q) == 0);
	for (uint64_t end = now_ms() + SLOW_MS; COUNT(v_frame_waits) == 0;)
		check(now_ms() < end);
	usleep(100000);
	put_waits = false;
	check(pthread_join(syncer, NULL) == 0);
	check(pthread_join(filler, NULL) == 0);
	check_pages(q, FRAMES - 8, 2);
	check_pages(p, 16, 4);
	audit();
	stop();
}
END_TEST

/* Nothing can leave: the fault fails, soon; and what can be freed afterwards is used. */
START_TEST(bounded_end)
{
	size_t i;
	char *p, *q;

	begin();
	q = alloc(8);
	fill_pages(q, 8, 2);
	if (_i == 0) {			/* anonymous, and no swap */
		p = alloc(2 * FRAMES);
	} else {			/* a pager that takes nothing; or wired pages */
		p = map_store(2 * FRAMES);
		put_error = _i == 1 ? -EIO : 0;
	}
	for (i = 0; i < FRAMES; i++) {
		if (_i == 2 && vmf_wire(p + i * PG, PG) != 0)
			break;
		if (touch_write(p + i * PG).signo != 0)
			break;
	}
	check(i > FRAMES * 3 / 4);
	if (_i != 2)
		for (i = FRAMES; i < FRAMES + 4; i++)
			expect_write(p + i * PG, SIGBUS, BUS_OBJERR);
	else
		expect(vmf_wire(p + FRAMES * PG, PG), -EAGAIN);
	for (i = 0; i < FRAMES / 2; i++)
		check(p[i * PG] == 1 || _i == 2);
	put_error = 0;
	check_pages(q, 8, 2);
	expect(vmf_unmap(q, 8 * PG), 0);
	expect_write(p + FRAMES * PG, 0, 0);
	audit();
	stop();
}
END_TEST

/*
 * Writes in flight, with the test pager for swap
 */

enum { BUDGET = 256 };

static void
begin_swap(void)
{
	testpager_reset();
	start(BUDGET * PG, 0);
	touch_install();
	testpager_default();
	testpager.async = true;
}

static void
end_swap(void)
{
	testpager.stuck = NULL;
	daemon_rest();
	testpager_reset();
	stop();
}

static _Atomic unsigned freed_when_written;

static void
count_freed(const char *place)
{
	freed_when_written += strcmp(place, "vm_pageout: written and freed") == 0;
}

/* In clusters, several at a time, and most pages need no second look: they go when they are written. */
START_TEST(writes_overlap_and_free_when_they_end)
{
	char *p;

	begin_swap();
	testpager.delay = 1000;
	probe_hook = count_freed;
	p = alloc(8 * BUDGET);
	fill_pages(p, 8 * BUDGET, 1);
	probe_hook = NULL;
	ck_assert_uint_gt(testpager_counts.started, 0);
	ck_assert_uint_gt(testpager_counts.flying_max, 1);
	ck_assert_uint_gt(testpager_counts.put_pages, 3 * testpager_counts.puts);
	ck_assert_uint_gt(COUNT(v_dfree), 6 * BUDGET);
	ck_assert_uint_gt(freed_when_written, BUDGET);
	daemon_rest();
	check(vm_pageout_laundry() == 0);
	audit();
	testpager.delay = 0;
	check_pages(p, 8 * BUDGET, 1);
	end_swap();
}
END_TEST

static char *filled;
static _Atomic bool filled_all;

static void *
fill_on(void *arg)
{
	fill_pages(filled, 4 * BUDGET, 2);
	filled_all = true;
	return arg;
}

/* As long as writes are in flight a thread without a frame waits, however long. */
START_TEST(nobody_gives_up_while_writes_are_in_flight)
{
	pthread_t t;

	begin_swap();
	testpager.stuck = testpager_all;
	filled = alloc(4 * BUDGET);
	check(pthread_create(&t, NULL, fill_on, NULL) == 0);
	while (testpager_counts.flying == 0 || COUNT(v_frame_waits) == 0)
		usleep(1000);
	usleep(400000);			/* many futile looks */
	check(!filled_all && vm_pageout_laundry() != 0);
	testpager.stuck = NULL;
	check(pthread_join(t, NULL) == 0);
	check_pages(filled, 4 * BUDGET, 2);
	end_swap();
}
END_TEST

/* A pager that does not answer keeps its own pages, and nobody else's. */
START_TEST(a_stuck_pager_is_not_in_the_way_of_others)
{
	struct testpager *stuck, *other;
	void *p = NULL, *q = NULL;
	char *r;

	vm_page_policy = &vm_pdpolicy_clock;	/* first in, first out: the stuck ones come first */
	begin_swap();
	expect(vmf_map(VMF_TASK_DEFAULT, &p, BUDGET * PG, VMF_MAP_SHARED,
	    testpager_create(BUDGET, 0, &stuck), 0, VMF_PROT_DEFAULT), 0);
	expect(vmf_map(VMF_TASK_DEFAULT, &q, 4 * BUDGET * PG, VMF_MAP_SHARED,
	    testpager_create(4 * BUDGET, 0, &other), 0, VMF_PROT_DEFAULT), 0);
	testpager.stuck = stuck;
	fill_pages(p, BUDGET / 4, 3);
	fill_pages(q, 4 * BUDGET, 4);
	r = alloc(4 * BUDGET);
	fill_pages(r, 4 * BUDGET, 5);
	check(testpager_counts.flying > 0);
	check_pages(q, 4 * BUDGET, 4);
	check_pages(r, 4 * BUDGET, 5);
	testpager.stuck = NULL;
	check_pages(p, BUDGET / 4, 3);
	end_swap();
}
END_TEST

/*
 * A pager that refuses everything: no page is lost, it is not asked all the time, threads
 * get their signal; and it is asked again, so that all is well when it works again.
 */
START_TEST(refusals_back_off_and_are_told)
{
	struct vmf_stats s = { .size = sizeof(s) };
	size_t n = 0;
	char *p;

	begin_swap();
	testpager.async = _i & 1;
	if (_i & 2)
		testpager.put_again = -1;
	else
		testpager.put_error = -1;
	p = alloc(2 * BUDGET);
	expect(vmf_advise(p, 2 * BUDGET * PG, VMF_ADVICE_RANDOM), 0);
	for (; touch_write(p + n * PG).signo == 0; n++)
		p[n * PG] = (char)(n + 1);
	ck_assert_uint_ge(n, BUDGET - BUDGET / 16);
	ck_assert_uint_le(n, BUDGET);
	for (size_t i = 0; i < 3; i++)
		expect_write(p + n * PG, SIGBUS, BUS_OBJERR);
	expect(vmf_statistics(&s), 0);
	ck_assert_uint_gt(s.v_refused, 0);
	check((s.v_pager_errors != 0) == !(_i & 2));
	/* Eleven at a time, 32 times, and now and then once more. */
	ck_assert_uint_lt(testpager_counts.puts, 11 * 40);
	for (size_t i = 0; i < n; i++)
		check(p[i * PG] == (char)(i + 1));
	testpager.put_error = testpager.put_again = 0;
	while (touch_write(p + n * PG).signo != 0)
		;
	fill_pages(p, 2 * BUDGET, 6);
	check_pages(p, 2 * BUDGET, 6);
	end_swap();
}
END_TEST

/* While an object is frozen or part of a cut its pages are spared, as long as others will do. */
START_TEST(frozen_objects_are_spared)
{
	static const uint16_t flags[] = { OBJ_CUT, OBJ_FROZEN };
	struct vm_object *o;
	sys_sigset_t old;
	char *p, *q;

	vm_page_policy = &vm_pdpolicy_clock;
	begin_swap();
	p = alloc(BUDGET / 4);
	fill_pages(p, BUDGET / 4, 1);
	o = object_at(p);
	trap_enter(&old);
	vm_object_lock(o);
	o->flags |= flags[_i];
	vm_object_unlock(o);
	trap_leave(&old);
	q = alloc(4 * BUDGET);
	fill_pages(q, 4 * BUDGET, 2);
	daemon_rest();
	for (size_t i = 0; i < BUDGET / 4; i++)
		check(page_at(p + i * PG) != NULL);
	trap_enter(&old);
	vm_object_lock(o);
	o->flags &= (uint16_t)~flags[_i];
	vm_object_unlock(o);
	trap_leave(&old);
	fill_pages(q, 4 * BUDGET, 3);
	check_pages(p, BUDGET / 4, 1);
	end_swap();
}
END_TEST

/* On a slow machine a deadline so short passes where nobody wanted it to: once more, then. */
static bool
was_late(int signo, int code, const void *addr)
{
	return signo == SIGBUS && code == BUS_ADRERR;
}

/* A callback that does not return: its deadline ends the transfer, and the pages stay as they are. */
START_TEST(a_late_callback_is_a_refusal)
{
	char *p;

	vm_page_policy = &vm_pdpolicy_clock;
	put_waits = true;
	on_stray = was_late;
	begin_swap();
	p = map_store(BUDGET / 4);
	fill_pages(p, BUDGET / 4, 8);
	filled = alloc(4 * BUDGET);
	(void)fill_on(NULL);
	while (COUNT(v_refused) == 0)
		usleep(1000);
	ck_assert_uint_gt(nputs, 0);
	for (size_t i = 0; i < BUDGET / 4; i++)
		check(page_at(p + i * PG) != NULL);
	check_pages(p, BUDGET / 4, 8);
	put_waits = false;
	check_pages(filled, 4 * BUDGET, 2);
	check_pages(p, BUDGET / 4, 8);
	end_swap();
	check_pages(store, BUDGET / 4, 8);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("vm_pageout");
	TCase *tc = tcase_create("daemon");

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, queues);
	tcase_add_test(tc, larger_than_memory);
	tcase_add_test(tc, touched_pages_come_back);
	tcase_add_test(tc, cached_objects);
	tcase_add_test(tc, wired_pages_stay);
	tcase_add_test(tc, untouched_zeros_go);
	tcase_add_test(tc, zeros_go);
	tcase_add_test(tc, others_are_waited_for);
	tcase_add_loop_test(tc, bounded_end, 0, 3);
	tcase_add_test(tc, writes_overlap_and_free_when_they_end);
	tcase_add_test(tc, nobody_gives_up_while_writes_are_in_flight);
	tcase_add_test(tc, a_stuck_pager_is_not_in_the_way_of_others);
	tcase_add_loop_test(tc, refusals_back_off_and_are_told, 0, 4);
	tcase_add_loop_test(tc, frozen_objects_are_spared, 0, 2);
	tcase_add_test(tc, a_late_callback_is_a_refusal);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
