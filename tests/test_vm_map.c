/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Maps: entries that are split and merged, places that are found, wirings, and who shares what.
 */

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pmap.h"
#include "suite.h"
#include "support.h"
#include "task.h"
#include "testpager.h"
#include "trap.h"
#include "vm_map.h"
#include "vm_meter.h"

enum { PAGES = 16, OLD = 1, NEW };

static struct vm_map *map;
static char *mem;

static void
setup(void)
{
	testpager_reset();
	start(0, 0);
	map = task_get(VMF_TASK_DEFAULT);
}

static void
teardown(void)
{
	at_end();
	task_put(map);
	stop();
	ck_assert_uint_eq(testpager_counts.pagers, 0);
}

static uint32_t
entries(void)
{
	audit();
	return map->nentries;
}

static unsigned
info(const void *addr)
{
	unsigned char bits;

	expect(vmf_page_info(addr, PG, &bits), 0);
	return bits;
}

static uint64_t
wired_pages(void)
{
	struct vmf_stats s = { .size = sizeof(s) };

	expect(vmf_statistics(&s), 0);
	return s.v_wire_count;
}

/*
 * Entries
 */

START_TEST(entries_are_split_where_they_differ_and_merged_when_alike)
{
	for (int touched = 0; touched < 2; touched++) {
		char *p = alloc(PAGES);

		if (touched)
			fill_pages(p, PAGES, OLD);
		ck_assert_uint_eq(entries(), 1);
		expect(vmf_protect(p + 4 * PG, 4 * PG, VMF_PROT_READ), 0);
		ck_assert_uint_eq(entries(), 3);
		expect(vmf_inherit(p + 6 * PG, 4 * PG, VMF_INHERIT_NONE), 0);
		ck_assert_uint_eq(entries(), 5);
		expect(vmf_advise(p, PG, VMF_ADVICE_RANDOM), 0);
		ck_assert_uint_eq(entries(), 6);
		if (touched) {
			expect(vmf_wire(p + 15 * PG, PG), 0);
			ck_assert_uint_eq(entries(), 7);
			check_pages(p, PAGES, OLD);
			expect(vmf_unwire(p + 15 * PG, PG), 0);
		}
		expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_NORMAL), 0);
		expect(vmf_inherit(p, PAGES * PG, VMF_INHERIT_COPY), 0);
		expect(vmf_protect(p, PAGES * PG, VMF_PROT_DEFAULT), 0);
		ck_assert_uint_eq(entries(), 1);
		if (touched)
			check_pages(p, PAGES, OLD);
		ck_assert_uint_eq(objects_alive(), touched);
		expect(vmf_unmap(p + 3 * PG, PG), 0);
		ck_assert_uint_eq(entries(), 2);
		expect_read(p + 3 * PG, SIGSEGV, SEGV_MAPERR);
		expect(vmf_unmap(p, PAGES * PG), 0);
		ck_assert_uint_eq(entries(), 0);
		ck_assert_uint_eq(objects_alive(), 0);
	}
}
END_TEST

START_TEST(the_first_place_that_fits_is_taken)
{
	char *a = alloc(4), *b = alloc(4), *c = alloc(4);
	void *at = a + PG;

	ck_assert_ptr_eq(a, (char *)map->base);
	ck_assert_ptr_eq(b, a + 4 * PG);
	expect(vmf_unmap(b, 4 * PG), 0);
	ck_assert_ptr_eq(alloc(8), c + 4 * PG);
	ck_assert_ptr_eq(alloc(3), b);
	ck_assert_ptr_eq(alloc(1), b + 3 * PG);
	expect(vmf_allocate(VMF_TASK_DEFAULT, &at, PG, VMF_FIXED), -EEXIST);
	expect(vmf_unmap(a, 2 * PG), 0);
	expect(vmf_allocate(VMF_TASK_DEFAULT, &at, 2 * PG, VMF_FIXED), -EEXIST);
	expect(vmf_allocate(VMF_TASK_DEFAULT, &at, PG, VMF_FIXED), 0);
	ck_assert_ptr_eq(alloc(1), a);
	audit();
}
END_TEST

START_TEST(large_ranges_are_aligned)
{
	size_t m = (size_t)1 << 20, g = (size_t)1 << 30;
	size_t before = 2 * m / PG - 2;
	vmf_task_t small;
	char *p;

	(void)alloc(1);
	/* A small address space cannot spare much, but a page it can. */
	p = sizeof(void *) > 4 ? NULL : alloc(before);
	ck_assert_uint_eq((uintptr_t)alloc(2 * m / PG) % (2 * m), 0);
	if (p != NULL)
		expect(vmf_unmap(p, before * PG), 0);
	ck_assert_uint_ne((uintptr_t)alloc(2 * m / PG - 1) % (2 * m), 0);
	(void)alloc(1);
	if (sizeof(void *) > 4)
		ck_assert_uint_eq((uintptr_t)alloc(g / PG) % g, 0);
	audit();
	/* Where there is no room for that, a large range is better than none. */
	if (sizeof(void *) > 4) {
		expect(vmf_task_create(g + 2 * PG, &small), 0);
		(void)alloc_in(small, 1);
		p = alloc_in(small, g / PG);
		expect(vmf_unmap(p, g), 0);
		expect(vmf_task_destroy(small), 0);
	}
}
END_TEST

/* Wherever the task's range came to lie; 64 of them lie in every way that they can. */
START_TEST(alignment_leaves_room_for_the_rest)
{
	size_t m = (size_t)1 << 20, g = (size_t)1 << 30;
	vmf_task_t task[64];

	if (sizeof(void *) == 4)
		return;
	for (size_t i = 0; i < 64; i++) {
		expect(vmf_task_create(g + 80 * m, &task[i]), 0);
		(void)alloc_in(task[i], g / PG);
		(void)alloc_in(task[i], 64 * m / PG);
	}
	for (size_t i = 0; i < 64; i++)
		expect(vmf_task_destroy(task[i]), 0);
}
END_TEST

START_TEST(protection_stays_below_the_maximum)
{
	char *p = alloc(PAGES);

	fill_pages(p, PAGES, OLD);
	expect(vmf_protect_max(p + 4 * PG, 4 * PG, VMF_PROT_READ), 0);
	expect_write(p + 4 * PG, SIGSEGV, SEGV_ACCERR);
	expect(vmf_protect(p, PAGES * PG, VMF_PROT_DEFAULT), -EACCES);
	audit();
	expect(vmf_protect(p, PAGES * PG, VMF_PROT_NONE), 0);
	expect_read(p, SIGSEGV, SEGV_ACCERR);
	expect(vmf_protect(p, PAGES * PG, VMF_PROT_READ), 0);
	check_pages(p, PAGES, OLD);
	expect(vmf_protect_max(p + 4 * PG, 4 * PG, VMF_PROT_ALL), 0);	/* it never rises */
	expect(vmf_protect(p + 4 * PG, PG, VMF_PROT_DEFAULT), -EACCES);
	expect(vmf_protect(p, 4 * PG, VMF_PROT_DEFAULT), 0);
	fill_pages(p, 4, NEW);
	audit();
}
END_TEST

/*
 * Sharing
 */

static char *
in_task(vmf_task_t task, const char *p)
{
	void *from, *to;

	expect(vmf_task_range(VMF_TASK_DEFAULT, &from, NULL), 0);
	expect(vmf_task_range(task, &to, NULL), 0);
	return (char *)to + (p - (const char *)from);
}

/*
 * The graph of FreeBSD's shared_shadow_inval_test: A and C share a shadow, B has what is below
 * it, D copied later.  A and C may have mapped a page, read-only, out of what is below, when one of
 * them writes and makes the shadow's own: the other must not go on seeing the old one
 * (CVE-2021-29626).  Page i: who has touched it before, and who writes.
 */
START_TEST(sharers_of_a_shadow_see_each_other_and_nobody_else_does)
{
	enum { WHO = 32 };
	char *p[4];
	vmf_task_t b, c, d;

	p[0] = alloc(WHO);
	fill_pages(p[0], WHO, OLD);
	expect(vmf_advise(p[0], WHO * PG, _i & 1 ? VMF_ADVICE_RANDOM : VMF_ADVICE_NORMAL), 0);
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &b), 0);
	expect(vmf_inherit(p[0], WHO * PG, VMF_INHERIT_SHARE), 0);
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &c), 0);
	p[1] = in_task(b, p[0]);
	p[2] = in_task(c, p[0]);
	expect(vmf_inherit(p[2], WHO * PG, VMF_INHERIT_COPY), 0);
	if ((_i & 2) && !(_i & 8))	/* the copy comes before the pages are mapped, or after */
		expect(vmf_task_fork(c, &d), 0);
	for (unsigned i = 0; i < WHO; i++)
		for (unsigned k = 0; k < 3; k++)
			if (i >> k & 1)
				check_fill(p[k] + i * PG, PG, mix(OLD, i));
	audit();
	if (!(_i & 2) && !(_i & 8))
		expect(vmf_task_fork(c, &d), 0);
	p[3] = _i & 8 ? p[1] : in_task(d, p[0]);
	for (unsigned i = 0; i < WHO; i++)
		if (i & 8)
			check_fill(p[3] + i * PG, PG, mix(OLD, i));
	audit();
	for (unsigned i = 0; i < WHO; i++) {
		fill((i & 16 ? p[2] : p[0]) + i * PG, PG, mix(NEW, i));
		audit();	/* before a fault enters fresh neighbours over stale ones */
		check_fill((i & 16 ? p[0] : p[2]) + i * PG, PG, mix(NEW, i));
	}
	audit();
	check_pages(p[0], WHO, NEW);
	check_pages(p[2], WHO, NEW);
	check_pages(p[1], WHO, OLD);
	check_pages(p[3], WHO, OLD);
	if (_i & 8) {	/* last, so that nothing kept the writes from going in clusters */
		expect(vmf_task_fork(c, &d), 0);
		p[3] = in_task(d, p[0]);
		check_pages(p[3], WHO, NEW);
	}
	fill_pages(p[3], WHO, 3);
	fill_pages(p[1], WHO, 4);
	audit();
	expect(vmf_task_destroy(_i & 4 ? c : b), 0);
	check_pages(p[0], WHO, NEW);
	check_pages(p[3], WHO, 3);
	expect(vmf_task_destroy(_i & 4 ? b : c), 0);
	fill_pages(p[0], WHO, 5);
	check_pages(p[3], WHO, 3);
	audit();
	expect(vmf_task_destroy(d), 0);
	expect(vmf_unmap(p[0], WHO * PG), 0);
	ck_assert_uint_eq(frames_used(), 0);
	ck_assert_uint_eq(objects_alive(), 0);
}
END_TEST

/*
 * Wiring
 */

START_TEST(wired_pages_take_no_fault_and_wirings_nest)
{
	char *p = alloc(PAGES), *q;
	struct vmf_region r;
	vmf_snapshot_t s;
	uint64_t faults;

	fill_pages(p, PAGES, OLD);
	expect(vmf_wire(p, PAGES * PG), 0);
	expect(vmf_wire(p + 4 * PG, 4 * PG), 0);
	ck_assert_uint_eq(wired_pages(), PAGES);
	s = snap(p, PAGES);
	q = alloc(PAGES);
	expect(vmf_copy(q, p, PAGES * PG), 0);
	audit();
	faults = vm_meter_read(VMC_v_vm_faults);
	fill_pages(p, PAGES, NEW);
	ck_assert_uint_eq(vm_meter_read(VMC_v_vm_faults), faults);
	audit();
	check_pages(q, PAGES, OLD);
	check_pages(view(s, PAGES, VMF_PROT_READ), PAGES, OLD);
	expect(vmf_unwire(p, PAGES * PG), 0);
	ck_assert_uint_eq(wired_pages(), 4);
	ck_assert_uint_ne(info(p + 5 * PG) & VMF_PAGE_WIRED, 0);
	ck_assert_uint_eq(info(p + 9 * PG) & VMF_PAGE_WIRED, 0);
	expect(vmf_unwire(p, PAGES * PG), -EINVAL);
	expect(vmf_unwire(p + 4 * PG, 4 * PG), 0);
	ck_assert_uint_eq(wired_pages(), 0);
	expect(vmf_region(p, &r), 0);
	ck_assert_uint_eq(r.size, PAGES * PG);	/* merged again */
	audit();
	check_pages(p, PAGES, NEW);
}
END_TEST

/* Wired, held, both: the page stays until the last of them is gone. */
START_TEST(holds_and_wirings_do_not_undo_each_other)
{
	char *p = alloc(2);

	p[0] = 1;
	expect(vmf_fault_in(p + 10, 5, VMF_PROT_WRITE), 0);
	expect(vmf_wire(p, 2 * PG), 0);
	expect(vmf_fault_release(p + 10, 5), 0);
	ck_assert_uint_ne(info(p) & VMF_PAGE_WIRED, 0);
	expect(vmf_fault_in(p + 10, 5, VMF_PROT_READ), 0);
	expect(vmf_unwire(p, 2 * PG), 0);
	ck_assert_uint_ne(info(p) & VMF_PAGE_WIRED, 0);
	ck_assert_uint_eq(info(p + PG) & VMF_PAGE_WIRED, 0);
	expect(vmf_unmap(p, 2 * PG), -EBUSY);
	audit();
	expect(vmf_fault_release(p + 10, 5), 0);
	ck_assert_uint_eq(wired_pages(), 0);
	audit();
}
END_TEST

/* A sharer wired it read-only, out of what lies below; another one writes and gets a new page. */
START_TEST(a_wired_page_that_is_replaced_stays_wired)
{
	char *p = alloc(PAGES), *v, *q;
	vmf_snapshot_t s;
	vmf_task_t child;

	fill_pages(p, PAGES, OLD);
	s = snap(p, PAGES);
	v = view(s, PAGES, VMF_PROT_DEFAULT);
	expect(vmf_inherit(v, PAGES * PG, VMF_INHERIT_SHARE), 0);
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &child), 0);
	q = in_task(child, v);
	expect(vmf_protect(q, PAGES * PG, VMF_PROT_READ), 0);
	expect(vmf_wire(q, PAGES * PG), 0);
	ck_assert_uint_ne(info(q) & VMF_PAGE_SHADOWED, 0);
	audit();
	fill_pages(v, 4, NEW);
	audit();
	ck_assert_uint_eq(wired_pages(), PAGES);
	ck_assert_uint_eq(info(q) & (VMF_PAGE_WIRED | VMF_PAGE_MAPPED | VMF_PAGE_SHADOWED),
	    VMF_PAGE_WIRED | VMF_PAGE_MAPPED);
	check_pages(q, 4, NEW);
	check_fill(q + 5 * PG, PG, mix(OLD, 5));
	check_pages(p, PAGES, OLD);
	fill_pages(p, PAGES, 3);		/* pushed; the wired ones are replaced, too */
	audit();
	check_fill(q + 5 * PG, PG, mix(OLD, 5));
	expect(vmf_unwire(q, PAGES * PG), 0);
	ck_assert_uint_eq(wired_pages(), 0);
	audit();
}
END_TEST

START_TEST(a_wiring_that_fails_leaves_nothing_wired)
{
	struct testpager *t;
	vmf_pager_t pager = testpager_create(PAGES, OLD, &t);
	void *at_ = NULL;
	char *p, *low;

	expect(vmf_map(VMF_TASK_DEFAULT, &at_, PAGES * PG, VMF_MAP_PRIVATE, pager, 0,
	    VMF_PROT_DEFAULT), 0);
	p = at_;
	expect(vmf_wire(p + 3 * PG, PG), 0);
	testpager.end = 10;
	expect(vmf_wire(p, PAGES * PG), -EIO);
	ck_assert_uint_eq(wired_pages(), 1);
	audit();
	testpager.end = 0;
	testpager.get_error = -1;
	expect(vmf_wire(p, PAGES * PG), -EIO);
	ck_assert_uint_eq(wired_pages(), 1);
	testpager.get_error = 0;
	low = alloc(2);
	expect(vmf_protect(low + PG, PG, VMF_PROT_NONE), 0);
	expect(vmf_wire(low, 2 * PG), -EACCES);
	ck_assert_uint_eq(wired_pages(), 1);
	audit();
	expect(vmf_wire(p, PAGES * PG), 0);
	check_pages(p, PAGES, OLD);
	expect(vmf_unwire(p, PAGES * PG), 0);
	expect(vmf_unwire(p + 3 * PG, PG), 0);
	expect(vmf_unwire(p + 3 * PG, PG), -EINVAL);
	ck_assert_uint_eq(wired_pages(), 0);
	audit();
}
END_TEST

static pthread_t other;
static _Atomic int other_done;

static void *
change(void *arg)
{
	expect(vmf_protect(mem, 4 * PG, VMF_PROT_READ), 0);
	other_done = 1;
	return arg;
}

static void
start_change(void)
{
	check(pthread_create(&other, NULL, change, NULL) == 0);
	usleep(50000);
	check(other_done == 0);		/* it waits for the wiring */
	mem[9 * PG] = 5;		/* and a fault does not */
}

/* The hook runs inside the call, where a touch is a mistake: another thread touches. */
static void *
run_start_change(void *arg)
{
	start_change();
	return arg;
}

static void
between_the_passes(void)
{
	pthread_t thread;

	check(pthread_create(&thread, NULL, run_start_change, NULL) == 0);
	pthread_join(thread, NULL);
}

START_TEST(who_changes_what_is_being_wired_waits)
{
	mem = alloc(PAGES);
	at("vm_map_wire: between the passes", 1, between_the_passes);
	expect(vmf_wire(mem, PAGES * PG), 0);
	ck_assert_uint_eq(at_passed(), 1);
	pthread_join(other, NULL);
	ck_assert_int_eq(other_done, 1);
	audit();
	ck_assert_uint_eq(wired_pages(), PAGES);
	ck_assert_int_eq(mem[9 * PG], 5);
	expect_write(mem, SIGSEGV, SEGV_ACCERR);
	expect(vmf_unwire(mem, PAGES * PG), 0);
	audit();
}
END_TEST

/*
 * Lookup: many threads meet an entry that needs a shadow, or has no object yet.
 */

static void *
write_one(void *arg)
{
	size_t i = (size_t)(uintptr_t)arg;

	fill(mem + i * PG, PG, mix(NEW, i));
	return NULL;
}

START_TEST(the_shadow_is_made_once)
{
	for (int round = 0; round < 50; round++) {
		pthread_t thread[PAGES];
		vmf_task_t child = 0;

		mem = alloc(PAGES);
		if (round % 2) {
			fill_pages(mem, PAGES, OLD);
			expect(vmf_task_fork(VMF_TASK_DEFAULT, &child), 0);
		}
		for (size_t i = 0; i < PAGES; i++)
			ck_assert_int_eq(pthread_create(&thread[i], NULL, write_one,
			    (void *)(uintptr_t)i), 0);
		for (size_t i = 0; i < PAGES; i++)
			pthread_join(thread[i], NULL);
		check_pages(mem, PAGES, NEW);
		ck_assert_uint_le(depth_at(mem), 2);
		if (child != 0) {
			check_pages(in_task(child, mem), PAGES, OLD);
			expect(vmf_task_destroy(child), 0);
		}
		audit();
		expect(vmf_unmap(mem, PAGES * PG), 0);
		ck_assert_uint_eq(objects_alive(), 0);
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("vm_map");
	TCase *t = tcase_create("entries"), *u = tcase_create("sharing"), *v = tcase_create("wiring");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, entries_are_split_where_they_differ_and_merged_when_alike);
	tcase_add_test(t, the_first_place_that_fits_is_taken);
	tcase_add_test(t, large_ranges_are_aligned);
	tcase_add_test(t, alignment_leaves_room_for_the_rest);
	tcase_add_test(t, protection_stays_below_the_maximum);
	tcase_add_test(t, the_shadow_is_made_once);
	suite_add_tcase(s, t);
	tcase_add_checked_fixture(u, setup, teardown);
	tcase_add_loop_test(u, sharers_of_a_shadow_see_each_other_and_nobody_else_does, 0, 16);
	suite_add_tcase(s, u);
	tcase_add_checked_fixture(v, setup, teardown);
	tcase_add_test(v, wired_pages_take_no_fault_and_wirings_nest);
	tcase_add_test(v, holds_and_wirings_do_not_undo_each_other);
	tcase_add_test(v, a_wired_page_that_is_replaced_stays_wired);
	tcase_add_test(v, a_wiring_that_fails_leaves_nothing_wired);
	tcase_add_test(v, who_changes_what_is_being_wired_waits);
	suite_add_tcase(s, v);
	return run_suite(s);
}
