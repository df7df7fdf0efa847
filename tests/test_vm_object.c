/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Objects: copies that stay copies when chains are shortened, chains that stay short, and the
 * cache of external objects.
 */

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"
#include "support.h"
#include "testpager.h"
#include "vm_meter.h"
#include "vm_object.h"

static void
setup(void)
{
	testpager_reset();
	start(0, 0);
	testpager_default();
}

static void
teardown(void)
{
	stop();
	ck_assert_uint_eq(testpager_counts.pagers, 0);
	ck_assert_uint_eq(testpager_counts.pages, 0);
}

/*
 * Copies
 */

/* O <- C <- T, where C is O's copy and only T needs it: T takes its place. */
START_TEST(what_merges_with_a_copy_becomes_the_copy)
{
	for (int paged_out = 0; paged_out < 2; paged_out++) {
		char *p = alloc(8), *v;
		struct vm_object *o, *c;
		vmf_snapshot_t s;

		fill_pages(p, 8, 1);
		o = object_at(p);
		s = snap(p, 8);
		v = view(s, 8, VMF_PROT_DEFAULT);
		fill(p, PG, 2);			/* pushed to C */
		fill(v + 7 * PG, PG, 3);	/* makes T */
		c = o->copy;
		ck_assert_ptr_nonnull(c);
		ck_assert_ptr_eq(object_at(v)->shadow, c);
		if (paged_out) {
			give_pager(c, 0);
			evict(c);
		}
		expect(vmf_snapshot_release(s), 0);
		audit();
		ck_assert_ptr_eq(o->copy, object_at(v));
		ck_assert_ptr_eq(object_at(v)->shadow, o);
		fill_pages(p, 8, 4);		/* pushed to T */
		audit();
		check_fill(v + 7 * PG, PG, 3);
		check_pages(v, 7, 1);
		check_pages(p, 8, 4);
		expect(vmf_unmap(p, 8 * PG), 0);
		check_pages(v, 7, 1);
		expect(vmf_unmap(v, 8 * PG), 0);
	}
}
END_TEST

/* C has no page, but what will be pushed to it must still reach T1 and T2. */
START_TEST(a_live_copy_is_not_bypassed)
{
	char *p = alloc(8), *v, *w;
	struct vm_object *c;
	vmf_snapshot_t s;

	fill_pages(p, 8, 1);
	s = snap(p, 8);
	v = view(s, 8, VMF_PROT_DEFAULT);
	w = view(s, 8, VMF_PROT_DEFAULT);
	fill(v, PG, 2);
	fill(w, PG, 3);
	expect(vmf_snapshot_release(s), 0);
	c = object_at(p)->copy;
	collapse(object_at(v));
	collapse(object_at(w));
	audit();
	ck_assert_ptr_eq(object_at(v)->shadow, c);
	ck_assert_ptr_eq(object_at(w)->shadow, c);
	fill_pages(p, 8, 4);
	audit();
	check_fill(v, PG, 2);
	check_fill(w, PG, 3);
	for (size_t i = 1; i < 8; i++) {
		check_fill(v + i * PG, PG, mix(1, i));
		check_fill(w + i * PG, PG, mix(1, i));
	}
}
END_TEST

/* T's copy has all that T had: it goes its own way, and T owes it nothing any more. */
START_TEST(a_copy_that_has_all_is_forgotten)
{
	char *p = alloc(8), *v;
	struct vm_object *t, *c;
	vmf_snapshot_t s, s2;

	fill_pages(p, 8, 1);
	s = snap(p, 8);
	v = view(s, 8, VMF_PROT_DEFAULT);
	fill_pages(v, 3, 2);
	t = object_at(v);
	s2 = snap(v, 8);
	c = t->copy;
	ck_assert_ptr_nonnull(c);
	fill_pages(v, 3, 3);			/* pushed */
	collapse(c);
	audit();
	ck_assert_ptr_null(t->copy);
	ck_assert_ptr_ne(c->shadow, t);
	fill_pages(v, 8, 4);
	fill_pages(p, 8, 5);
	audit();
	v = view(s2, 8, VMF_PROT_READ);
	check_pages(v, 3, 2);
	for (size_t i = 3; i < 8; i++)
		check_fill(v + i * PG, PG, mix(1, i));
	expect(vmf_snapshot_release(s), 0);
	audit();
	check_pages(v, 3, 2);
}
END_TEST

/*
 * Depth
 */

START_TEST(released_in_any_order_snapshots_leave_nothing_behind)
{
	enum { SNAPS = 200, PAGES = 16 };
	static vmf_snapshot_t s[SNAPS];
	static size_t order[SNAPS];
	uint64_t seed = (uint64_t)_i + 1, used, objs;
	char *p = alloc(PAGES), buf[VMF_PAGE_SIZE];

	fill_pages(p, PAGES, 1000);
	used = frames_used();
	objs = objects_alive();
	for (size_t i = 0; i < SNAPS; i++) {
		s[i] = snap(p, PAGES);
		order[i] = i;
		fill(p + (i % PAGES) * PG, PG, i);
		ck_assert_uint_le(depth_at(p), 1);
	}
	for (size_t i = SNAPS; i > 1; i--) {
		size_t k = rng_next(&seed) % i, t = order[k];

		order[k] = order[i - 1];
		order[i - 1] = t;
	}
	audit();
	for (size_t i = 0; i < SNAPS; i++) {
		size_t k = order[i], page = rng_next(&seed) % PAGES;
		/* Before snapshot k came turns 0 to k - 1; which of them wrote the page last? */
		size_t turns = (k + PAGES - 1 - page) / PAGES;

		expect(vmf_snapshot_read(s[k], 0, page * PG, buf, PG), 0);
		check_fill(buf, PG, turns == 0 ? mix(1000, page) : (turns - 1) * PAGES + page);
		expect(vmf_snapshot_release(s[k]), 0);
		if (i % 20 == 0)
			audit();
	}
	audit();
	ck_assert_uint_eq(frames_used(), used);
	ck_assert_uint_eq(objects_alive(), objs);
	ck_assert_uint_eq(depth_at(p), 1);
}
END_TEST

START_TEST(copies_back_and_forth_do_not_pile_up)
{
	char *a = alloc(8), *b = alloc(8);
	uint64_t want[8];

	fill_pages(a, 8, 1);
	for (size_t i = 0; i < 8; i++)
		want[i] = mix(1, i);
	for (uint64_t i = 0; i < 1000; i++) {
		char *from = i % 2 == 0 ? a : b, *to = i % 2 == 0 ? b : a;

		expect(vmf_copy(to, from, 8 * PG), 0);
		want[i * 5 % 8] = i + 10;
		fill(to + (i * 5 % 8) * PG, PG, i + 10);
		fill(from + (i * 3 % 8) * PG, PG, 7);	/* must not be seen in `to' */
		ck_assert_uint_le(depth_at(to), 4);
		if (i % 50 == 0) {
			for (size_t k = 0; k < 8; k++)
				check_fill(to + k * PG, PG, want[k]);
			audit();
		}
	}
	ck_assert_uint_le(objects_alive(), 8);
}
END_TEST

START_TEST(generations_of_tasks_do_not_pile_up)
{
	uint64_t used = frames_used(), objs = objects_alive();
	char *p;
	vmf_task_t task, child;
	void *base, *next;

	expect(vmf_task_create(64 * PG, &task), 0);
	p = alloc_in(task, 16);
	fill_pages(p, 16, 1);
	for (uint64_t n = 2; n < 102; n++) {
		expect(vmf_task_fork(task, &child), 0);
		expect(vmf_task_range(task, &base, NULL), 0);
		expect(vmf_task_range(child, &next, NULL), 0);
		p = (char *)next + (p - (char *)base);
		fill(p + (n % 8) * PG, PG, n);
		expect(vmf_task_destroy(task), 0);
		task = child;
		ck_assert_uint_le(depth_at(p), 3);
		check_fill(p + (n % 8) * PG, PG, n);
		check_fill(p + 12 * PG, PG, mix(1, 12));
		if (n % 10 == 0)
			audit();
	}
	ck_assert_uint_le(frames_used() - used, 2 * 16);
	expect(vmf_task_destroy(task), 0);
	ck_assert_uint_eq(frames_used(), used);
	ck_assert_uint_eq(objects_alive(), objs);
}
END_TEST

/*
 * Pages that nobody can see any more
 */

START_TEST(what_is_unmapped_in_part_gives_its_frames_back)
{
	char *p = alloc(16), *v;
	vmf_snapshot_t s;

	fill_pages(p, 16, 1);
	expect(vmf_unmap(p + 4 * PG, 4 * PG), 0);
	audit();
	ck_assert_uint_eq(frames_used(), 12);
	give_pager(object_at(p), 1);
	evict(object_at(p));
	ck_assert_uint_eq(testpager_counts.pages, 12);
	expect(vmf_unmap(p, 2 * PG), 0);
	ck_assert_uint_eq(testpager_counts.pages, 10);
	check_fill(p + 2 * PG, PG, mix(1, 2));
	/* But what a snapshot holds stays. */
	s = snap(p + 8 * PG, 8);
	expect(vmf_unmap(p + 8 * PG, 4 * PG), 0);
	v = view(s, 8, VMF_PROT_READ);
	for (size_t i = 0; i < 8; i++)
		check_fill(v + i * PG, PG, mix(1, 8 + i));
	audit();
	expect(vmf_unmap(v, 8 * PG), 0);
	expect(vmf_snapshot_release(s), 0);
	check_fill(p + 12 * PG, PG, mix(1, 12));
	audit();
	expect(vmf_unmap(p, 16 * PG), 0);
	ck_assert_uint_eq(frames_used(), 0);
}
END_TEST

/*
 * The cache
 */

START_TEST(an_external_object_is_found_in_the_cache_until_the_handle_goes)
{
	struct testpager *t;
	vmf_pager_t pager = testpager_create(8, 1, &t);
	struct vm_object *o;
	void *p = NULL;

	expect(vmf_map(VMF_TASK_DEFAULT, &p, 8 * PG, VMF_MAP_SHARED, pager, 0, VMF_PROT_DEFAULT), 0);
	check_pages(p, 8, 1);
	fill(p, PG, 2);
	o = object_at(p);
	expect(vmf_unmap(p, 8 * PG), 0);
	audit();
	ck_assert_ptr_eq(t->pager.object, o);
	ck_assert_uint_eq(o->ref_count, 0);
	ck_assert_uint_ne(o->flags & OBJ_CACHED, 0);
	testpager_counts.gets = 0;
	expect(vmf_map(VMF_TASK_DEFAULT, &p, 4 * PG, VMF_MAP_SHARED, pager, 0, VMF_PROT_READ), 0);
	ck_assert_ptr_eq(object_at(p), o);
	check_fill(p, PG, 2);
	ck_assert_uint_eq(testpager_counts.gets, 0);
	expect(vmf_unmap(p, 4 * PG), 0);
	expect(vmf_pager_release(pager), 0);
	ck_assert_uint_eq(testpager_counts.pagers, 0);
	ck_assert_uint_eq(objects_alive(), 0);
	ck_assert_uint_eq(frames_used(), 0);
}
END_TEST

START_TEST(the_cache_is_bounded_and_writes_out_what_it_drops)
{
	enum { PAGERS = 130 };
	static vmf_pager_t pager[PAGERS];
	static struct testpager *t[PAGERS];
	char want[VMF_PAGE_SIZE];
	unsigned cached = 0;

	for (size_t i = 0; i < PAGERS; i++) {
		void *p = NULL;

		pager[i] = testpager_create(2, 1, &t[i]);
		expect(vmf_map(VMF_TASK_DEFAULT, &p, 2 * PG, VMF_MAP_SHARED, pager[i], 0,
		    VMF_PROT_DEFAULT), 0);
		fill(p, PG, 100 + i);
		expect(vmf_unmap(p, 2 * PG), 0);
	}
	audit();
	for (size_t i = 0; i < PAGERS; i++) {
		cached += t[i]->pager.object != NULL;
		fill(want, PG, 100 + i);
		if (t[i]->pager.object == NULL)
			ck_assert_mem_eq(t[i]->page[0], want, PG);
	}
	ck_assert_uint_eq(cached, 100);
	ck_assert_uint_eq(objects_alive(), 100);
	for (size_t i = 0; i < PAGERS; i++)
		expect(vmf_pager_release(pager[i]), 0);
	ck_assert_uint_eq(objects_alive(), 0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("vm_object");
	TCase *t = tcase_create("objects");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, what_merges_with_a_copy_becomes_the_copy);
	tcase_add_test(t, a_live_copy_is_not_bypassed);
	tcase_add_test(t, a_copy_that_has_all_is_forgotten);
	tcase_add_loop_test(t, released_in_any_order_snapshots_leave_nothing_behind, 0, 4);
	tcase_add_test(t, copies_back_and_forth_do_not_pile_up);
	tcase_add_test(t, generations_of_tasks_do_not_pile_up);
	tcase_add_test(t, what_is_unmapped_in_part_gives_its_frames_back);
	tcase_add_test(t, an_external_object_is_found_in_the_cache_until_the_handle_goes);
	tcase_add_test(t, the_cache_is_bounded_and_writes_out_what_it_drops);
	suite_add_tcase(s, t);
	return run_suite(s);
}
