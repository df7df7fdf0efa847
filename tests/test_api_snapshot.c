/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What a snapshot means, through vmfault.h alone: its contents, views of it,
 * rollback, diff, and that the order of things never matters.
 */

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"
#include "support.h"

static void
setup(void)
{
	start(0, 0);
}

/* The bytes of a snapshot's range 0, by every way there is to see them. */
static void
check_snap(vmf_snapshot_t s, size_t pages, uint64_t key)
{
	char *v = view(s, pages, VMF_PROT_READ), *buf = malloc(pages * PG);

	check_pages(v, pages, key);
	expect(vmf_unmap(v, pages * PG), 0);
	expect(vmf_snapshot_read(s, 0, 0, buf, pages * PG), 0);
	check_pages(buf, pages, key);
	free(buf);
}

START_TEST(a_snapshot_keeps_what_was_and_the_live_memory_goes_on)
{
	char *p = alloc(32);
	vmf_snapshot_t s;

	fill_pages(p, 32, 1);
	s = snap(p, 32);
	check_snap(s, 32, 1);
	fill_pages(p, 32, 2);
	check_pages(p, 32, 2);
	check_snap(s, 32, 1);
	expect(vmf_snapshot_release(s), 0);
	expect(vmf_snapshot_release(s), -EBADF);
	check_pages(p, 32, 2);
}
END_TEST

START_TEST(a_snapshot_of_untouched_memory_is_zero)
{
	char *p = alloc(16), *v;
	vmf_snapshot_t s = snap(p, 16);

	fill_pages(p, 16, 1);
	v = view(s, 16, VMF_PROT_READ);
	check_zero(v, 16 * PG);
	expect(vmf_snapshot_rollback(s), 0);
	check_zero(p, 16 * PG);
}
END_TEST

START_TEST(a_sparse_range_is_kept_as_it_is)
{
	char *p = alloc(4096);
	vmf_snapshot_t s;
	char *v;

	for (size_t i = 0; i < 4096; i += 501)
		fill(p + i * PG, PG, mix(1, i));
	s = snap(p, 4096);
	for (size_t i = 0; i < 4096; i += 334)
		fill(p + i * PG, PG, mix(2, i));
	v = view(s, 4096, VMF_PROT_READ);
	for (size_t i = 0; i < 4096; i += 167) {
		if (i % 501 == 0)
			check_fill(v + i * PG, PG, mix(1, i));
		else
			check_zero(v + i * PG, PG);
	}
	expect(vmf_snapshot_rollback(s), 0);
	for (size_t i = 0; i < 4096; i += 167) {
		if (i % 501 == 0)
			check_fill(p + i * PG, PG, mix(1, i));
		else
			check_zero(p + i * PG, PG);
	}
}
END_TEST

START_TEST(two_hundred_snapshots_of_one_range_all_differ)
{
	vmf_snapshot_t s[200];
	char *p = alloc(8);

	fill_pages(p, 8, 0);
	for (size_t i = 0; i < nitems(s); i++) {
		fill(p + i % 8 * PG, PG, mix(7, i));
		s[i] = snap(p, 8);
	}
	for (size_t i = 0; i < nitems(s); i += 3) {
		char buf[VMF_PAGE_SIZE];

		for (size_t k = 0; k < 8; k++) {	/* page k was last written at step w */
			size_t back = (i + 8 - k) % 8;

			expect(vmf_snapshot_read(s[i], 0, k * PG, buf, PG), 0);
			check_fill(buf, PG, back <= i ? mix(7, i - back) : mix(0, k));
		}
	}
	for (size_t i = 0; i < nitems(s); i += 2)
		expect(vmf_snapshot_release(s[i]), 0);
	for (size_t i = nitems(s) - 1; i < nitems(s); i -= 2) {
		expect(vmf_snapshot_rollback(s[i]), 0);
		check_fill(p + i % 8 * PG, PG, mix(7, i));
		expect(vmf_snapshot_release(s[i]), 0);
	}
}
END_TEST

/* All orders of four releases, checking those that are left after each. */
START_TEST(releases_in_any_order_leave_the_others)
{
	for (unsigned perm = 0; perm < 24; perm++) {
		unsigned left[4] = { 0, 1, 2, 3 }, n = 4, code = perm;
		char *p = alloc(8), *v[4];
		vmf_snapshot_t s[4];

		for (unsigned i = 0; i < 4; i++) {
			fill_pages(p, 8, i);
			s[i] = snap(p, 8);
			v[i] = view(s[i], 8, VMF_PROT_DEFAULT);
			fill(v[i], PG, mix(99, i));
		}
		fill_pages(p, 4, 4);
		while (n > 0) {
			unsigned k = code % n;

			code /= n;
			expect(vmf_snapshot_release(s[left[k]]), 0);
			left[k] = left[--n];
			for (unsigned i = 0; i < n; i++)
				check_snap(s[left[i]], 8, left[i]);
			for (unsigned i = 0; i < 4; i++) {
				check_fill(v[i], PG, mix(99, i));
				check_fill(v[i] + 7 * PG, PG, mix(i, 7));
			}
		}
		check_pages(p, 4, 4);
		for (unsigned i = 0; i < 4; i++)
			expect(vmf_unmap(v[i], 8 * PG), 0);
		expect(vmf_unmap(p, 8 * PG), 0);
	}
}
END_TEST

START_TEST(a_read_only_view_refuses_writes)
{
	char *p = alloc(4), *v;
	vmf_snapshot_t s;

	fill_pages(p, 4, 1);
	s = snap(p, 4);
	v = view(s, 4, VMF_PROT_READ);
	expect_write(v, SIGSEGV, SEGV_ACCERR);
	expect_write(v + 4 * PG - 1, SIGSEGV, SEGV_ACCERR);
	check_pages(v, 4, 1);
}
END_TEST

START_TEST(a_writable_view_is_private)
{
	char *p = alloc(4), *a, *b;
	vmf_snapshot_t s;

	fill_pages(p, 4, 1);
	s = snap(p, 4);
	a = view(s, 4, VMF_PROT_DEFAULT);
	b = view(s, 4, VMF_PROT_DEFAULT);
	fill_pages(a, 2, 2);
	fill(b + 3 * PG, PG, 3);
	check_pages(a, 2, 2);
	check_fill(a + 3 * PG, PG, mix(1, 3));
	check_pages(b, 3, 1);
	check_snap(s, 4, 1);
	check_pages(p, 4, 1);
}
END_TEST

START_TEST(a_view_of_a_part_starts_at_its_offset)
{
	char *p = alloc(16);
	vmf_snapshot_t s;
	void *at = NULL, *taken = p;

	fill_pages(p, 16, 1);
	s = snap(p, 16);
	expect(vmf_snapshot_map(s, 0, 5 * PG, 3 * PG, VMF_TASK_DEFAULT, &at, 0, VMF_PROT_READ), 0);
	for (size_t i = 0; i < 3; i++)
		check_fill((char *)at + i * PG, PG, mix(1, 5 + i));
	expect(vmf_snapshot_map(s, 0, 0, PG, VMF_TASK_DEFAULT, &taken, VMF_FIXED, VMF_PROT_READ),
	    -EEXIST);
	expect(vmf_unmap(at, 3 * PG), 0);
	expect(vmf_snapshot_map(s, 0, 9 * PG, PG, VMF_TASK_DEFAULT, &at, VMF_FIXED, VMF_PROT_READ),
	    0);
	check_fill(at, PG, mix(1, 9));
}
END_TEST

START_TEST(a_view_and_its_snapshot_outlive_the_range)
{
	char *p = alloc(8), *v;
	vmf_snapshot_t s;

	fill_pages(p, 8, 1);
	s = snap(p, 8);
	v = view(s, 8, VMF_PROT_READ);
	expect(vmf_unmap(p, 8 * PG), 0);
	check_pages(v, 8, 1);
	check_snap(s, 8, 1);
	expect(vmf_snapshot_release(s), 0);
	check_pages(v, 8, 1);
}
END_TEST

START_TEST(views_are_snapshotted_in_their_turn)
{
	vmf_snapshot_t s[6];
	char *v[6];

	v[0] = alloc(8);
	fill_pages(v[0], 8, 0);
	for (size_t i = 0; i < 6; i++) {
		s[i] = snap(v[i], 8);
		if (i + 1 < 6) {
			v[i + 1] = view(s[i], 8, VMF_PROT_DEFAULT);
			fill(v[i + 1] + i * PG, PG, mix(50, i));
		}
	}
	fill_pages(v[0], 8, 77);
	for (size_t i = 0; i < 6; i++) {
		char *w = view(s[i], 8, VMF_PROT_READ);

		for (size_t k = 0; k < 8; k++)
			check_fill(w + k * PG, PG, k < i ? mix(50, k) : mix(0, k));
	}
	for (size_t i = 0; i < 6; i += 2)
		expect(vmf_snapshot_release(s[i]), 0);
	fill_pages(v[3], 8, 78);
	expect(vmf_snapshot_rollback(s[3]), 0);
	for (size_t k = 0; k < 8; k++)
		check_fill(v[3] + k * PG, PG, k < 3 ? mix(50, k) : mix(0, k));
	for (size_t k = 0; k < 8; k++)
		check_fill(v[5] + k * PG, PG, k < 5 ? mix(50, k) : mix(0, k));
}
END_TEST

START_TEST(rollback_goes_back_and_forth_among_snapshots)
{
	static const unsigned way[] = { 2, 0, 4, 4, 1, 3, 0, 2 };
	vmf_snapshot_t s[5];
	char *p = alloc(16);

	for (unsigned i = 0; i < 5; i++) {
		fill_pages(p, 16, i);
		s[i] = snap(p, 16);
	}
	for (size_t i = 0; i < nitems(way); i++) {
		fill_pages(p + i % 3 * PG, 5, 1000 + i);
		expect(vmf_snapshot_rollback(s[way[i]]), 0);
		check_pages(p, 16, way[i]);
		for (unsigned k = 0; k < 5; k++)
			check_snap(s[k], 16, k);
	}
	fill_pages(p, 16, 9);
	check_pages(p, 16, 9);
	check_snap(s[2], 16, 2);
}
END_TEST

START_TEST(rollback_keeps_protection_and_inheritance)
{
	char *p = alloc(4);
	struct vmf_region r;
	vmf_snapshot_t s;

	fill_pages(p, 4, 1);
	s = snap(p, 4);
	fill_pages(p, 4, 2);
	expect(vmf_protect(p, 4 * PG, VMF_PROT_READ), 0);
	expect(vmf_inherit(p, 4 * PG, VMF_INHERIT_NONE), 0);
	expect(vmf_snapshot_rollback(s), 0);
	check_pages(p, 4, 1);
	expect_write(p, SIGSEGV, SEGV_ACCERR);
	expect(vmf_region(p, &r), 0);
	ck_assert_int_eq(r.inheritance, VMF_INHERIT_NONE);
	expect(vmf_protect(p, 4 * PG, VMF_PROT_DEFAULT), 0);
	expect_write(p, 0, 0);
	check_snap(s, 4, 1);
}
END_TEST

START_TEST(rollback_of_a_partly_unmapped_range_changes_nothing)
{
	char *p = alloc(8), *q = alloc(4);
	struct vmf_range r[2] = { { q, 4 * PG }, { p, 8 * PG } };
	vmf_snapshot_t s;

	fill_pages(p, 8, 1);
	fill_pages(q, 4, 2);
	expect(vmf_snapshot_create(r, 2, &s), 0);
	fill_pages(p, 8, 3);
	fill_pages(q, 4, 4);
	expect(vmf_unmap(p + 4 * PG, PG), 0);
	expect(vmf_snapshot_rollback(s), -EFAULT);
	check_pages(p, 4, 3);
	check_fill(p + 5 * PG, PG, mix(3, 5));
	check_pages(q, 4, 4);
	expect_read(p + 4 * PG, SIGSEGV, SEGV_MAPERR);
	check_pages(view(s, 4, VMF_PROT_READ), 4, 2);
}
END_TEST

START_TEST(a_snapshot_after_a_partial_unmap_has_what_is_left)
{
	char *p = alloc(8);
	struct vmf_range whole = { p, 8 * PG }, r[2] = { { p, 3 * PG }, { p + 4 * PG, 4 * PG } };
	vmf_snapshot_t s = 5;
	char buf[VMF_PAGE_SIZE];

	fill_pages(p, 8, 1);
	expect(vmf_unmap(p + 3 * PG, PG), 0);
	expect(vmf_snapshot_create(&whole, 1, &s), -EFAULT);
	ck_assert_uint_eq(s, 5);
	expect(vmf_snapshot_create(r, 2, &s), 0);
	fill_pages(p, 3, 2);
	check_snap(s, 3, 1);
	for (size_t i = 0; i < 4; i++) {
		expect(vmf_snapshot_read(s, 1, i * PG, buf, PG), 0);
		check_fill(buf, PG, mix(1, 4 + i));
	}
	expect(vmf_snapshot_rollback(s), 0);
	check_pages(p, 3, 1);
}
END_TEST

START_TEST(ranges_of_several_tasks_are_one_snapshot)
{
	struct vmf_range r[3];
	vmf_snapshot_t s;
	vmf_task_t task;
	char *v;
	void *at;

	for (size_t i = 0; i < 3; i++) {
		expect(vmf_task_create(64 * PG, &task), 0);
		r[i] = (struct vmf_range){ alloc_in(task, 4 + i), (4 + i) * PG };
		fill_pages(r[i].addr, 4 + i, i);
	}
	expect(vmf_snapshot_create(r, 3, &s), 0);
	for (size_t i = 0; i < 3; i++)
		fill_pages(r[i].addr, 4 + i, 10 + i);
	for (size_t i = 0; i < 3; i++) {	/* each viewed in the last task */
		expect(vmf_snapshot_map(s, i, 0, r[i].size, task, &at, 0, VMF_PROT_READ), 0);
		check_pages(at, 4 + i, i);
	}
	expect(vmf_snapshot_rollback(s), 0);
	for (size_t i = 0; i < 3; i++)
		check_pages(r[i].addr, 4 + i, i);
	v = view(s, 4, VMF_PROT_READ);
	expect(vmf_task_destroy(task), 0);
	expect(vmf_snapshot_rollback(s), -EFAULT);
	check_pages(v, 4, 0);
}
END_TEST

START_TEST(a_snapshot_of_wired_memory_is_a_copy_at_once)
{
	char *p = alloc(8);
	unsigned char vec[8];
	vmf_snapshot_t s;

	fill_pages(p, 8, 1);
	expect(vmf_wire(p, 8 * PG), 0);
	s = snap(p, 8);
	expect(vmf_page_info(p, 8 * PG, vec), 0);
	for (size_t i = 0; i < 8; i++)
		ck_assert(vec[i] & VMF_PAGE_WRITABLE);
	fill_pages(p, 8, 2);
	check_snap(s, 8, 1);
	expect(vmf_snapshot_rollback(s), 0);
	check_pages(p, 8, 1);
	expect(vmf_unwire(p, 8 * PG), 0);
}
END_TEST

/*
 * The second snapshot makes two copy objects of one object, one for each range, and copies the
 * held page to both: the hold must end up at the one that its view reads through.
 */
START_TEST(a_held_view_survives_a_snapshot_of_adjoining_ranges)
{
	char *p = alloc(3), *v;
	struct vmf_range r[2] = { { p, 2 * PG }, { p + 2 * PG, PG } };
	vmf_snapshot_t s;

	fill_pages(p, 3, 1);
	s = snap(p, 2);
	v = view(s, 2, VMF_PROT_READ);
	expect(vmf_fault_in(v, PG, VMF_PROT_READ), 0);
	fill(p + PG, PG, 7);		/* the first copy object is not empty: it is not taken again */
	expect(vmf_snapshot_create(r, 2, &s), 0);
	audit();
	fill_pages(p, 3, 2);
	check_pages(v, 2, 1);
	expect(vmf_fault_release(v, PG), 0);
	check_pages(v, 2, 1);
}
END_TEST

/*
 * A writable view gets an object of its own, still without a page, when it is shared; when the
 * snapshot goes, the copy is merged with that.  The next snapshot must not take it for an unmodified copy.
 */
START_TEST(a_shared_view_is_not_taken_for_a_later_snapshot)
{
	char *p = alloc(4), *v;
	vmf_snapshot_t s;
	vmf_task_t child;

	fill_pages(p, 4, 1);
	s = snap(p, 4);
	v = view(s, 4, VMF_PROT_DEFAULT);
	expect(vmf_inherit(v, 4 * PG, VMF_INHERIT_SHARE), 0);
	expect(vmf_inherit(p, 4 * PG, VMF_INHERIT_NONE), 0);
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &child), 0);
	expect(vmf_snapshot_release(s), 0);
	s = snap(p, 4);
	fill_pages(v, 4, 2);
	check_snap(s, 4, 1);
	check_pages(p, 4, 1);
	expect(vmf_task_destroy(child), 0);
}
END_TEST

START_TEST(a_copy_over_snapshotted_memory_spares_the_snapshot)
{
	char *p = alloc(8), *q = alloc(8), *v;
	vmf_snapshot_t s;

	fill_pages(p, 8, 1);
	fill_pages(q, 8, 2);
	s = snap(p, 8);
	expect(vmf_copy(p, q, 8 * PG), 0);
	check_pages(p, 8, 2);
	check_snap(s, 8, 1);
	v = view(s, 8, VMF_PROT_READ);
	expect(vmf_copy(q, v, 8 * PG), 0);
	check_pages(q, 8, 1);
	fill_pages(q, 8, 3);
	check_snap(s, 8, 1);
	expect(vmf_snapshot_rollback(s), 0);
	check_pages(p, 8, 1);
}
END_TEST

/* Compare what diff says with a string of one letter a page, n extents a call. */
static void
check_diff(vmf_snapshot_t a, vmf_snapshot_t b, const char *want, size_t n)
{
	struct vmf_extent e[4];
	size_t cursor = 0, pages = strlen(want), last = 0;
	char got[65] = "";
	int r;

	memset(got, '.', pages);
	while ((r = vmf_snapshot_diff(a, b, 0, &cursor, e, n)) > 0) {
		ck_assert_int_le(r, (int)n);
		for (int i = 0; i < r; i++) {
			ck_assert(e[i].size > 0 && e[i].offset >= last);
			last = e[i].offset + e[i].size;
			ck_assert(last <= pages * PG);
			memset(got + e[i].offset / PG, '#', e[i].size / PG);
		}
	}
	ck_assert_int_eq(r, 0);
	ck_assert_str_eq(got, want);
}

START_TEST(diff_reports_the_pages_whose_bytes_differ)
{
	char *p = alloc(12);
	vmf_snapshot_t a, b;

	fill_pages(p, 8, 1);		/* the last four are never touched before a */
	a = snap(p, 12);
	check_diff(a, 0, "............", 4);
	fill_pages(p + 2 * PG, 2, 2);
	p[7 * PG + 100] ^= 1;
	p[10 * PG] = 1;
	b = snap(p, 12);
	for (size_t n = 1; n <= 4; n++) {
		check_diff(a, b, "..##...#..#.", n);
		check_diff(b, a, "..##...#..#.", n);
		check_diff(a, 0, "..##...#..#.", n);
	}
	check_diff(b, 0, "............", 1);
	check_diff(a, a, "............", 1);
	p[7 * PG + 100] ^= 1;		/* written, but the same again */
	p[9 * PG] = 0;
	check_diff(a, 0, "..##......#.", 2);
	check_diff(b, 0, ".......#....", 2);
	expect(vmf_snapshot_rollback(a), 0);
	check_diff(a, 0, "............", 2);
	check_diff(b, 0, "..##...#..#.", 2);
	expect(vmf_snapshot_release(a), 0);
	check_diff(b, 0, "..##...#..#.", 2);
}
END_TEST

START_TEST(diff_needs_one_range_and_live_memory)
{
	char *p = alloc(8);
	vmf_snapshot_t a, b;
	struct vmf_extent e;
	size_t cursor = 0;

	a = snap(p, 8);
	b = snap(p, 7);
	expect(vmf_snapshot_diff(a, b, 0, &cursor, &e, 1), -EINVAL);
	expect(vmf_unmap(p + 3 * PG, PG), 0);
	expect(vmf_snapshot_diff(a, 0, 0, &cursor, &e, 1), -EFAULT);
	ck_assert_uint_eq(cursor, 0);
}
END_TEST

START_TEST(snapshot_read_takes_any_alignment)
{
	char *p = alloc(4), want[3 * VMF_PAGE_SIZE], got[3 * VMF_PAGE_SIZE];
	vmf_snapshot_t s;

	fill_pages(p, 4, 1);
	memcpy(want, p + 123, sizeof(want));
	s = snap(p, 4);
	fill_pages(p, 4, 2);
	expect(vmf_snapshot_read(s, 0, 123, got, sizeof(got)), 0);
	ck_assert_mem_eq(got, want, sizeof(got));
	expect(vmf_snapshot_read(s, 0, 4 * PG, got, 0), 0);
}
END_TEST

START_TEST(releasing_gives_the_frames_back)
{
	struct vmf_stats before = { .size = sizeof(before) }, after = before;
	char *p = alloc(64);

	fill_pages(p, 64, 0);
	expect(vmf_statistics(&before), 0);
	for (uint64_t i = 1; i <= 20; i++) {
		vmf_snapshot_t s = snap(p, 64);
		char *v = view(s, 64, VMF_PROT_DEFAULT);

		fill_pages(p, 64, i);
		fill_pages(v, 32, 100 + i);
		expect(vmf_unmap(v, 64 * PG), 0);
		expect(vmf_snapshot_release(s), 0);
	}
	check_pages(p, 64, 20);
	expect(vmf_statistics(&after), 0);
	ck_assert_uint_eq(after.snapshots, 0);
	ck_assert_uint_eq(after.entries, before.entries);
	ck_assert_uint_le(after.objects, before.objects + 1);
	ck_assert_uint_le(before.v_free_count, after.v_free_count);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("api snapshot");
	TCase *t = tcase_create("snapshot");

	tcase_add_checked_fixture(t, setup, stop);
	tcase_add_test(t, a_snapshot_keeps_what_was_and_the_live_memory_goes_on);
	tcase_add_test(t, a_snapshot_of_untouched_memory_is_zero);
	tcase_add_test(t, a_sparse_range_is_kept_as_it_is);
	tcase_add_test(t, two_hundred_snapshots_of_one_range_all_differ);
	tcase_add_test(t, releases_in_any_order_leave_the_others);
	tcase_add_test(t, a_read_only_view_refuses_writes);
	tcase_add_test(t, a_writable_view_is_private);
	tcase_add_test(t, a_view_of_a_part_starts_at_its_offset);
	tcase_add_test(t, a_view_and_its_snapshot_outlive_the_range);
	tcase_add_test(t, views_are_snapshotted_in_their_turn);
	tcase_add_test(t, rollback_goes_back_and_forth_among_snapshots);
	tcase_add_test(t, rollback_keeps_protection_and_inheritance);
	tcase_add_test(t, rollback_of_a_partly_unmapped_range_changes_nothing);
	tcase_add_test(t, a_snapshot_after_a_partial_unmap_has_what_is_left);
	tcase_add_test(t, ranges_of_several_tasks_are_one_snapshot);
	tcase_add_test(t, a_snapshot_of_wired_memory_is_a_copy_at_once);
	tcase_add_test(t, a_held_view_survives_a_snapshot_of_adjoining_ranges);
	tcase_add_test(t, a_shared_view_is_not_taken_for_a_later_snapshot);
	tcase_add_test(t, a_copy_over_snapshotted_memory_spares_the_snapshot);
	tcase_add_test(t, diff_reports_the_pages_whose_bytes_differ);
	tcase_add_test(t, diff_needs_one_range_and_live_memory);
	tcase_add_test(t, snapshot_read_takes_any_alignment);
	tcase_add_test(t, releasing_gives_the_frames_back);
	suite_add_tcase(s, t);
	return run_suite(s);
}
