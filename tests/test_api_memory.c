/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What memory means, through vmfault.h alone: allocate, unmap, protect,
 * inherit is elsewhere (test_api_task.c); copy, read and write, wire, holds for
 * system calls, regions, pages, budgets, the lifecycle.
 */

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "suite.h"
#include "support.h"

static void
setup(void)
{
	start(0, 0);
}

START_TEST(fresh_memory_is_zero_and_keeps_what_is_written)
{
	char *p = alloc(64);

	check_zero(p, 64 * PG);
	fill_pages(p, 64, 1);
	check_pages(p, 64, 1);
}
END_TEST

START_TEST(memory_allocated_again_is_zero)
{
	for (int i = 0; i < 50; i++) {
		char *p = alloc(16);

		check_zero(p, 16 * PG);
		fill_pages(p, 16, (uint64_t)i);
		expect(vmf_unmap(p, 16 * PG), 0);
	}
}
END_TEST

START_TEST(allocations_do_not_overlap)
{
	char *p[32];

	for (size_t i = 0; i < nitems(p); i++) {
		p[i] = alloc(1 + i % 5);
		fill_pages(p[i], 1 + i % 5, i);
	}
	for (size_t i = 0; i < nitems(p); i++)
		check_pages(p[i], 1 + i % 5, i);
}
END_TEST

START_TEST(fixed_takes_the_place_or_says_it_is_taken)
{
	char *p = alloc(8);
	void *at = p + 2 * PG;

	fill_pages(p, 8, 1);
	expect(vmf_allocate(VMF_TASK_DEFAULT, &at, PG, VMF_FIXED), -EEXIST);
	ck_assert_ptr_eq(at, p + 2 * PG);
	check_pages(p, 8, 1);
	expect(vmf_unmap(at, 2 * PG), 0);
	expect(vmf_allocate(VMF_TASK_DEFAULT, &at, 3 * PG, VMF_FIXED), -EEXIST);
	expect(vmf_allocate(VMF_TASK_DEFAULT, &at, 2 * PG, VMF_FIXED), 0);
	ck_assert_ptr_eq(at, p + 2 * PG);
	check_pages(p, 2, 1);
	check_zero(at, 2 * PG);
}
END_TEST

START_TEST(fixed_outside_of_the_task_is_a_fault)
{
	vmf_task_t task;
	void *base, *at;
	size_t size;

	expect(vmf_task_create(64 * PG, &task), 0);
	expect(vmf_task_range(task, &base, &size), 0);
	at = (char *)base + size - PG;
	expect(vmf_allocate(task, &at, 2 * PG, VMF_FIXED), -EFAULT);
	expect(vmf_allocate(VMF_TASK_DEFAULT, &at, PG, VMF_FIXED), -EFAULT);
	expect(vmf_allocate(task, &at, PG, VMF_FIXED), 0);
}
END_TEST

START_TEST(a_task_is_filled_to_its_last_page_and_no_further)
{
	vmf_task_t task;
	size_t size;
	void *p;

	expect(vmf_task_create(32 * PG, &task), 0);
	expect(vmf_task_range(task, NULL, &size), 0);
	p = alloc_in(task, size / PG);
	fill_pages(p, size / PG, 5);
	check_pages(p, size / PG, 5);
	expect(vmf_allocate(task, &p, PG, 0), -ENOMEM);
	expect(vmf_unmap((char *)p + 7 * PG, PG), 0);
	expect(vmf_allocate(task, &p, 2 * PG, 0), -ENOMEM);
	expect(vmf_allocate(task, &p, PG, 0), 0);
}
END_TEST

START_TEST(unmapping_a_part_leaves_the_rest)
{
	char *p = alloc(16);

	fill_pages(p, 16, 3);
	expect(vmf_unmap(p + 5 * PG, 3 * PG), 0);
	check_pages(p, 5, 3);
	for (size_t i = 5; i < 8; i++)
		expect_read(p + i * PG + i, SIGSEGV, SEGV_MAPERR);
	for (size_t i = 8; i < 16; i++)
		check_fill(p + i * PG, PG, mix(3, i));
	expect(vmf_unmap(p + 5 * PG, 3 * PG), 0);	/* holes are allowed */
	expect(vmf_unmap(p, 16 * PG), 0);
	expect_write(p, SIGSEGV, SEGV_MAPERR);
}
END_TEST

START_TEST(protection_is_obeyed_and_comes_back)
{
	char *p = alloc(4);

	fill_pages(p, 4, 9);
	expect(vmf_protect(p + PG, 2 * PG, VMF_PROT_READ), 0);
	check_pages(p, 4, 9);
	expect_write(p + PG + 17, SIGSEGV, SEGV_ACCERR);
	expect_write(p + 3 * PG - 1, SIGSEGV, SEGV_ACCERR);
	expect_write(p + PG - 1, 0, 0);
	expect_write(p + 3 * PG, 0, 0);
	expect(vmf_protect(p + PG, PG, VMF_PROT_NONE), 0);
	expect_read(p + PG, SIGSEGV, SEGV_ACCERR);
	check_fill(p + 2 * PG, PG, mix(9, 2));
	expect(vmf_protect(p, 4 * PG, VMF_PROT_WRITE), 0);	/* implies READ */
	check_fill(p + PG, PG, mix(9, 1));
	fill_pages(p, 4, 10);
	check_pages(p, 4, 10);
}
END_TEST

START_TEST(protection_before_the_first_touch_is_obeyed)
{
	char *p = alloc(2);

	expect(vmf_protect(p, PG, VMF_PROT_READ), 0);
	expect(vmf_protect(p + PG, PG, VMF_PROT_NONE), 0);
	expect_write(p, SIGSEGV, SEGV_ACCERR);
	expect_read(p + PG, SIGSEGV, SEGV_ACCERR);
	check_zero(p, PG);
}
END_TEST

START_TEST(the_maximum_protection_only_falls)
{
	char *p = alloc(2);
	struct vmf_region r;

	expect(vmf_protect_max(p, PG, VMF_PROT_READ), 0);
	expect_write(p, SIGSEGV, SEGV_ACCERR);
	expect(vmf_protect(p, PG, VMF_PROT_DEFAULT), -EACCES);
	expect(vmf_protect(p, 2 * PG, VMF_PROT_DEFAULT), -EACCES);
	expect(vmf_protect_max(p, PG, VMF_PROT_ALL), 0);
	expect(vmf_protect(p, PG, VMF_PROT_DEFAULT), -EACCES);
	expect(vmf_region(p, &r), 0);
	ck_assert_int_eq(r.prot, VMF_PROT_READ);
	ck_assert_int_eq(r.max_prot, VMF_PROT_READ);
	expect_write(p + PG, 0, 0);
}
END_TEST

START_TEST(a_copy_is_independent_of_its_source)
{
	char *src = alloc(32), *dst = alloc(32);

	fill_pages(src, 32, 1);
	fill_pages(dst, 32, 2);
	expect(vmf_copy(dst + 4 * PG, src + 4 * PG, 24 * PG), 0);
	check_pages(dst, 4, 2);
	for (size_t i = 4; i < 28; i++)
		check_fill(dst + i * PG, PG, mix(1, i));
	for (size_t i = 28; i < 32; i++)
		check_fill(dst + i * PG, PG, mix(2, i));
	for (size_t i = 4; i < 28; i += 2)
		fill(src + i * PG, PG, mix(3, i));
	for (size_t i = 5; i < 28; i += 2)
		fill(dst + i * PG, PG, mix(4, i));
	for (size_t i = 4; i < 28; i++) {
		check_fill(src + i * PG, PG, mix(i % 2 ? 1 : 3, i));
		check_fill(dst + i * PG, PG, mix(i % 2 ? 4 : 1, i));
	}
}
END_TEST

START_TEST(copies_of_copies_survive_their_sources)
{
	char *p[8];

	p[0] = alloc(8);
	fill_pages(p[0], 8, 0);
	for (size_t i = 1; i < nitems(p); i++) {
		p[i] = alloc(8);
		expect(vmf_copy(p[i], p[i - 1], 8 * PG), 0);
		fill(p[i] + i * PG, PG, mix(100, i));
	}
	for (size_t i = 0; i < nitems(p); i += 2)
		expect(vmf_unmap(p[i], 8 * PG), 0);
	for (size_t i = 1; i < nitems(p); i += 2) {
		for (size_t k = 0; k < 8; k++)
			check_fill(p[i] + k * PG, PG, k >= 1 && k <= i ? mix(100, k) : mix(0, k));
	}
}
END_TEST

START_TEST(a_copy_of_untouched_memory_is_zero)
{
	char *src = alloc(4), *dst = alloc(4);

	fill_pages(dst, 4, 1);
	expect(vmf_copy(dst, src, 4 * PG), 0);
	check_zero(dst, 4 * PG);
	fill_pages(src, 4, 2);
	check_zero(dst, 4 * PG);
}
END_TEST

START_TEST(a_copy_keeps_the_destination_s_protection)
{
	char *src = alloc(2), *dst = alloc(2);
	struct vmf_region r;

	fill_pages(src, 2, 1);
	expect(vmf_protect(src, 2 * PG, VMF_PROT_READ), 0);
	expect(vmf_inherit(dst, 2 * PG, VMF_INHERIT_NONE), 0);
	expect(vmf_copy(dst, src, 2 * PG), 0);
	check_pages(dst, 2, 1);
	expect_write(dst, 0, 0);
	expect(vmf_region(dst, &r), 0);
	ck_assert_int_eq(r.prot, VMF_PROT_DEFAULT);
	ck_assert_int_eq(r.inheritance, VMF_INHERIT_NONE);
	expect(vmf_copy(src, dst, 2 * PG), -EACCES);
	expect(vmf_protect(src, 2 * PG, VMF_PROT_NONE), 0);
	expect(vmf_copy(dst, src, 2 * PG), -EACCES);
	check_fill(dst + PG, PG, mix(1, 1));
}
END_TEST

START_TEST(a_copy_to_or_from_wired_memory_is_right)
{
	char *wired = alloc(4), *other = alloc(4);

	fill_pages(wired, 4, 1);
	fill_pages(other, 4, 2);
	expect(vmf_wire(wired, 4 * PG), 0);
	expect(vmf_copy(wired, other, 4 * PG), 0);
	check_pages(wired, 4, 2);
	fill_pages(other, 4, 3);
	check_pages(wired, 4, 2);
	expect(vmf_copy(other, wired, 4 * PG), 0);
	fill_pages(wired, 4, 4);
	check_pages(other, 4, 2);
	expect(vmf_unwire(wired, 4 * PG), 0);
	check_pages(wired, 4, 4);
}
END_TEST

START_TEST(read_and_write_move_bytes_at_any_alignment)
{
	static const size_t at[] = { 0, 1, PG - 1, PG, 2 * PG + 77 }, len[] = { 0, 1, 2, 4095, 4096,
	    9000 };
	char *p = alloc(8), buf[9000], got[9000];

	for (size_t i = 0; i < nitems(at); i++) {
		for (size_t k = 0; k < nitems(len); k++) {
			fill(buf, len[k], mix(i, k));
			expect(vmf_write(p + at[i], buf, len[k]), 0);
			check_fill(p + at[i], len[k], mix(i, k));
			expect(vmf_read(p + at[i], got, len[k]), 0);
			ck_assert_mem_eq(got, buf, len[k]);
		}
	}
}
END_TEST

START_TEST(read_and_write_return_errors_where_a_touch_would_signal)
{
	char *p = alloc(4), buf[16] = "";

	fill_pages(p, 4, 1);
	expect(vmf_protect(p, PG, VMF_PROT_NONE), 0);
	expect(vmf_protect(p + PG, PG, VMF_PROT_READ), 0);
	expect(vmf_unmap(p + 3 * PG, PG), 0);
	expect(vmf_read(p + 8, buf, 8), -EACCES);
	expect(vmf_write(p + 8, buf, 8), -EACCES);
	expect(vmf_read(p + PG, buf, 8), 0);
	expect(vmf_write(p + PG, buf, 8), -EACCES);
	expect(vmf_read(p + 3 * PG, buf, 1), -EFAULT);
	expect(vmf_write(p + 3 * PG + 5, buf, 1), -EFAULT);
	expect(vmf_read(p + 3 * PG - 4, buf, 8), -EFAULT);
	check_fill(p + PG, PG, mix(1, 1));
}
END_TEST

START_TEST(the_buffer_of_read_and_write_may_be_managed)
{
	char *p = alloc(4), *q = alloc(4);

	fill_pages(p, 4, 1);
	expect(vmf_write(q, p, 4 * PG), 0);
	check_pages(q, 4, 1);
	fill_pages(q, 4, 2);
	expect(vmf_read(q, p, 4 * PG), 0);
	check_pages(p, 4, 2);
}
END_TEST

START_TEST(wired_pages_are_mapped_and_wirings_nest)
{
	char *p = alloc(4);
	unsigned char vec[4];

	expect(vmf_wire(p, 4 * PG), 0);
	expect(vmf_wire(p + PG, PG), 0);
	expect(vmf_page_info(p, 4 * PG, vec), 0);
	for (size_t i = 0; i < 4; i++) {
		unsigned want = VMF_PAGE_RESIDENT | VMF_PAGE_MAPPED | VMF_PAGE_WRITABLE |
		    VMF_PAGE_WIRED;

		ck_assert_uint_eq(vec[i] & want, want);
	}
	fill_pages(p, 4, 1);
	expect(vmf_unwire(p, 4 * PG), 0);
	expect(vmf_page_info(p, 4 * PG, vec), 0);
	ck_assert(!(vec[0] & VMF_PAGE_WIRED) && (vec[1] & VMF_PAGE_WIRED));
	expect(vmf_unwire(p, 2 * PG), -EINVAL);
	expect(vmf_unwire(p + PG, PG), 0);
	expect(vmf_unwire(p + PG, PG), -EINVAL);
	check_pages(p, 4, 1);
}
END_TEST

START_TEST(wiring_memory_without_access_is_refused_whole)
{
	char *p = alloc(4);
	unsigned char vec[4];

	expect(vmf_protect(p + 2 * PG, PG, VMF_PROT_NONE), 0);
	expect(vmf_wire(p, 4 * PG), -EACCES);
	expect(vmf_page_info(p, 4 * PG, vec), 0);
	for (size_t i = 0; i < 4; i++)
		ck_assert(!(vec[i] & VMF_PAGE_WIRED));
	expect(vmf_unwire(p, PG), -EINVAL);
}
END_TEST

START_TEST(a_held_range_takes_a_real_system_call)
{
	char *p = alloc(8);
	int fd = memfd_create("held", MFD_CLOEXEC);
	char buf[5 * VMF_PAGE_SIZE];

	fill(buf, sizeof(buf), 4);
	ck_assert_int_eq(write(fd, buf, sizeof(buf)), sizeof(buf));
	expect(vmf_fault_in(p + 100, sizeof(buf), VMF_PROT_WRITE), 0);
	ck_assert_int_eq(pread(fd, p + 100, sizeof(buf), 0), sizeof(buf));
	expect(vmf_unmap(p, 8 * PG), -EBUSY);
	expect(vmf_unmap(p + 3 * PG, PG), -EBUSY);
	expect(vmf_fault_release(p + 100, sizeof(buf)), 0);
	check_zero(p, 100);
	check_fill(p + 100, sizeof(buf), 4);
	expect(vmf_fault_release(p + 100, sizeof(buf)), -EINVAL);
	expect(vmf_unmap(p, 8 * PG), 0);
	close(fd);
}
END_TEST

START_TEST(a_hold_outlasts_snapshots_and_copies)
{
	char *p = alloc(4), *q = alloc(4), buf[64];
	vmf_snapshot_t s;
	int fd[2];

	ck_assert_int_eq(pipe(fd), 0);
	fill_pages(p, 4, 1);
	expect(vmf_fault_in(p, 4 * PG, VMF_PROT_WRITE), 0);
	s = snap(p, 4);
	expect(vmf_copy(q, p, 4 * PG), 0);
	fill(buf, sizeof(buf), 2);
	ck_assert_int_eq(write(fd[1], buf, sizeof(buf)), sizeof(buf));
	ck_assert_int_eq(read(fd[0], p + 2 * PG, sizeof(buf)), sizeof(buf));
	expect(vmf_snapshot_rollback(s), -EBUSY);
	expect(vmf_fault_release(p, 4 * PG), 0);
	check_fill(p + 2 * PG, sizeof(buf), 2);
	check_pages(q, 4, 1);
	check_pages(view(s, 4, VMF_PROT_READ), 4, 1);
	expect(vmf_snapshot_rollback(s), 0);
	check_pages(p, 4, 1);
}
END_TEST

START_TEST(a_hold_needs_the_protection_it_asks_for)
{
	char *p = alloc(3);

	expect(vmf_protect(p + PG, PG, VMF_PROT_READ), 0);
	expect(vmf_unmap(p + 2 * PG, PG), 0);
	expect(vmf_fault_in(p, 2 * PG, VMF_PROT_WRITE), -EACCES);
	expect(vmf_fault_release(p, PG), -EINVAL);
	expect(vmf_fault_in(p, 2 * PG, VMF_PROT_READ), 0);
	expect(vmf_fault_release(p, 2 * PG), 0);
	expect(vmf_fault_in(p + 2 * PG - 1, 2, VMF_PROT_READ), -EFAULT);
	expect(vmf_unmap(p, 2 * PG), 0);
}
END_TEST

START_TEST(region_describes_and_finds_the_next)
{
	char *p = alloc(8);
	struct vmf_region r;

	expect(vmf_unmap(p, 2 * PG), 0);
	expect(vmf_protect(p + 4 * PG, PG, VMF_PROT_READ), 0);
	expect(vmf_advise(p + 4 * PG, PG, VMF_ADVICE_RANDOM), 0);
	expect(vmf_region(p + 1, &r), 0);
	ck_assert_ptr_eq(r.addr, p + 2 * PG);
	ck_assert_uint_eq(r.size, 2 * PG);
	ck_assert_uint_eq(r.task, VMF_TASK_DEFAULT);
	ck_assert_int_eq(r.prot, VMF_PROT_DEFAULT);
	ck_assert_int_eq(r.inheritance, VMF_INHERIT_COPY);
	ck_assert_uint_eq(r.wired, 0);
	expect(vmf_region(p + 4 * PG + 9, &r), 0);
	ck_assert_ptr_eq(r.addr, p + 4 * PG);
	ck_assert_uint_eq(r.size, PG);
	ck_assert_int_eq(r.prot, VMF_PROT_READ);
	ck_assert_int_eq(r.advice, VMF_ADVICE_RANDOM);
	expect(vmf_unmap(p, 8 * PG), 0);
	expect(vmf_region(p, &r), -ENOENT);
}
END_TEST

START_TEST(advice_never_changes_contents)
{
	char *p = alloc(96);

	for (int a = VMF_ADVICE_NORMAL; a <= VMF_ADVICE_SEQUENTIAL; a++) {
		expect(vmf_advise(p + 32 * (size_t)a * PG, 32 * PG, (enum vmf_advice)a), 0);
		fill_pages(p + 32 * (size_t)a * PG, 32, (uint64_t)a);
	}
	for (size_t a = 0; a < 3; a++)
		check_pages(p + 32 * a * PG, 32, a);
}
END_TEST

START_TEST(the_budget_bounds_frames_and_freeing_helps)
{
	struct vmf_stats stats = { .size = sizeof(stats) };
	char *p;

	expect(vmf_fini(), 0);
	start(256 * PG, 0);
	expect(vmf_statistics(&stats), 0);
	ck_assert_uint_eq(stats.v_page_count, 256);
	for (int i = 0; i < 20; i++) {
		p = alloc(128);
		fill_pages(p, 128, (uint64_t)i);
		expect(vmf_unmap(p, 128 * PG), 0);
	}
	p = alloc(512);
	expect(vmf_wire(p, 512 * PG), -EAGAIN);
	expect(vmf_fault_in(p, 512 * PG, VMF_PROT_WRITE), -ENOMEM);
	expect(vmf_unwire(p, PG), -EINVAL);
	fill_pages(p, 128, 3);
	check_pages(p, 128, 3);
	expect(vmf_statistics(&stats), 0);
	ck_assert_uint_le(stats.v_page_count - stats.v_free_count, 256);
}
END_TEST

START_TEST(unmapping_a_part_gives_its_frames_back)
{
	struct vmf_stats before = { .size = sizeof(before) }, after = { .size = sizeof(after) };
	char *p = alloc(100);

	fill_pages(p, 100, 1);
	expect(vmf_statistics(&before), 0);
	expect(vmf_unmap(p + PG, 98 * PG), 0);
	expect(vmf_statistics(&after), 0);
	ck_assert_uint_eq(after.v_free_count, before.v_free_count + 98);
	check_pages(p, 1, 1);
	check_fill(p + 99 * PG, PG, mix(1, 99));
}
END_TEST

START_TEST(a_random_pattern_stays_within_the_mapping_budget)
{
	struct vmf_stats stats = { .size = sizeof(stats) };
	size_t n = 4096;
	vmf_snapshot_t s;
	char *p;

	expect(vmf_fini(), 0);
	start(0, 128);
	p = alloc(n);
	fill_pages(p, n, 1);
	s = snap(p, n);
	for (size_t i = 0, k = 0; i < n; i += 2, k = (k + 1663) % n)
		fill(p + k * PG, PG, mix(2, k));
	expect(vmf_statistics(&stats), 0);
	ck_assert_uint_le(stats.mappings, 128);
	ck_assert_uint_eq(stats.mappings_max, 128);
	for (size_t i = 0, k = 0; i < n; i++, k = (k + 1663) % n)
		check_fill(p + k * PG, PG, mix(i < n / 2 ? 2 : 1, k));
	check_pages(view(s, n, VMF_PROT_READ), n, 1);
}
END_TEST

START_TEST(init_and_fini_a_hundred_times_leaks_nothing)
{
	unsigned fds = 0, maps = 0;

	expect(vmf_fini(), 0);
	for (int i = 0; i < 100; i++) {
		vmf_snapshot_t s;
		char *p;

		start(0, 0);
		p = alloc(32);
		fill_pages(p, 32, 1);
		s = snap(p, 32);
		fill_pages(p, 16, 2);
		check_pages(view(s, 32, VMF_PROT_READ), 32, 1);
		expect(vmf_fini(), 0);
		if (i == 1) {	/* what libc keeps for itself is there by now */
			fds = count_fds();
			maps = count_maps();
		}
	}
	ck_assert_uint_eq(count_fds(), fds);
	ck_assert_uint_le(count_maps(), maps + 20);	/* sanitizers keep something of some threads */
	start(0, 0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("api memory");
	TCase *t = tcase_create("memory");

	tcase_add_checked_fixture(t, setup, stop);
	tcase_add_test(t, fresh_memory_is_zero_and_keeps_what_is_written);
	tcase_add_test(t, memory_allocated_again_is_zero);
	tcase_add_test(t, allocations_do_not_overlap);
	tcase_add_test(t, fixed_takes_the_place_or_says_it_is_taken);
	tcase_add_test(t, fixed_outside_of_the_task_is_a_fault);
	tcase_add_test(t, a_task_is_filled_to_its_last_page_and_no_further);
	tcase_add_test(t, unmapping_a_part_leaves_the_rest);
	tcase_add_test(t, protection_is_obeyed_and_comes_back);
	tcase_add_test(t, protection_before_the_first_touch_is_obeyed);
	tcase_add_test(t, the_maximum_protection_only_falls);
	tcase_add_test(t, a_copy_is_independent_of_its_source);
	tcase_add_test(t, copies_of_copies_survive_their_sources);
	tcase_add_test(t, a_copy_of_untouched_memory_is_zero);
	tcase_add_test(t, a_copy_keeps_the_destination_s_protection);
	tcase_add_test(t, a_copy_to_or_from_wired_memory_is_right);
	tcase_add_test(t, read_and_write_move_bytes_at_any_alignment);
	tcase_add_test(t, read_and_write_return_errors_where_a_touch_would_signal);
	tcase_add_test(t, the_buffer_of_read_and_write_may_be_managed);
	tcase_add_test(t, wired_pages_are_mapped_and_wirings_nest);
	tcase_add_test(t, wiring_memory_without_access_is_refused_whole);
	tcase_add_test(t, a_held_range_takes_a_real_system_call);
	tcase_add_test(t, a_hold_outlasts_snapshots_and_copies);
	tcase_add_test(t, a_hold_needs_the_protection_it_asks_for);
	tcase_add_test(t, region_describes_and_finds_the_next);
	tcase_add_test(t, advice_never_changes_contents);
	tcase_add_test(t, the_budget_bounds_frames_and_freeing_helps);
	tcase_add_test(t, unmapping_a_part_gives_its_frames_back);
	tcase_add_test(t, a_random_pattern_stays_within_the_mapping_budget);
	tcase_add_test(t, init_and_fini_a_hundred_times_leaks_nothing);
	suite_add_tcase(s, t);
	return run_suite(s);
}
