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
#include "physmem.h"
#include "suite.h"
#include "support.h"
#include "task.h"
#include "trap.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_object.h"
#include "vm_page.h"
#include "vm_pageout.h"

enum { FRAMES = 128, SLOW_MS = 10000 };

#define COUNT(name)	vm_meter_read(VMC_##name)

static char store[FRAMES * 2 * VMF_PAGE_SIZE];
static _Atomic unsigned nputs;
static _Atomic int put_error;
static _Atomic bool put_waits;

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
	expect(vmf_pager_create(&ops, NULL, pages * PG, 0, &pager), 0);
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

/* The queues hold what they say. */
static void
check_queues(void)
{
	uint64_t active = 0, inactive = 0;
	struct vm_page *m;
	sys_sigset_t old;

	trap_enter(&old);
	kmutex_lock(&vm_page_queue_lock);
	TAILQ_FOREACH(m, &vm_page_queue_active, pageq) {
		check(m->queue == PQ_ACTIVE && m->wire_count == 0);
		active++;
	}
	TAILQ_FOREACH(m, &vm_page_queue_inactive, pageq) {
		check(m->queue == PQ_INACTIVE && m->wire_count == 0);
		inactive++;
	}
	check(active == vm_page_active_count && inactive == vm_page_inactive_count);
	kmutex_unlock(&vm_page_queue_lock);
	trap_leave(&old);
}

/* Wait until the daemon has nothing to do. */
static void
quiet(void)
{
	uint64_t scanned, end = now_ms() + SLOW_MS;

	do {
		check(now_ms() < end);
		scanned = COUNT(v_scan);
		usleep(30000);
	} while (COUNT(v_scan) != scanned);
	check_queues();
}

START_TEST(queues)
{
	char *p;

	begin();
	p = alloc(16);
	expect(vmf_advise(p, 16 * PG, VMF_ADVICE_RANDOM), 0);
	fill_pages(p, 16, 1);
	check(vm_page_active_count == 16 && vm_page_inactive_count == 0);
	check_queues();
	expect(vmf_wire(p, 4 * PG), 0);
	check(vm_page_active_count == 12 && vm_page_wire_count == 4);
	for (size_t i = 0; i < 16; i++)
		check(page_at(p + i * PG)->queue == (i < 4 ? PQ_NONE : PQ_ACTIVE));
	check_queues();
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
	quiet();
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
	quiet();
	check(COUNT(v_reactivated) > 0);
	check(pageins < 4 * HOT);		/* once at first, and seldom again */
	check_pages(p, HOT, 3);
	stop();
}
END_TEST

/* What nobody maps any more, but a pager's handle keeps, is written out like anything else, and stays kept. */
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
		quiet();
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
	quiet();
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
	quiet();
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
	quiet();
	audit();
	stop();
}
END_TEST

/* Nothing can leave: the fault fails, soon; and what can be freed afterwards is used. */
START_TEST(bounded_end)
{
	uint64_t before;
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
	before = now_ms();
	if (_i != 2)
		for (i = FRAMES; i < FRAMES + 4; i++)
			expect_write(p + i * PG, SIGBUS, BUS_OBJERR);
	else
		expect(vmf_wire(p + FRAMES * PG, PG), -EAGAIN);
	check(now_ms() - before < 5000);
	for (i = 0; i < FRAMES / 2; i++)
		check(p[i * PG] == 1 || _i == 2);
	check_queues();
	put_error = 0;
	check_pages(q, 8, 2);
	expect(vmf_unmap(q, 8 * PG), 0);
	expect_write(p + FRAMES * PG, 0, 0);
	quiet();
	audit();
	stop();
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
	tcase_add_test(tc, others_are_waited_for);
	tcase_add_loop_test(tc, bounded_end, 0, 3);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
