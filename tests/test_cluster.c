/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Clusters: how many faults a pattern of touches takes, and what is made that nobody touched.
 *
 * Counted, not timed.  Each touch writes, for that is what a fault is always taken for.
 */

#include <check.h>

#include "suite.h"
#include "support.h"

#define N	4096u			/* pages: eight leaves */

static char *memory;
static unsigned char info[N];

static void
begin(void)
{
	void *p;

	ck_assert_int_eq(vmf_init(NULL), 0);
	ck_assert_int_eq(vmf_allocate(VMF_TASK_DEFAULT, &p, (size_t)N * PG, 0), 0);
	memory = p;
}

static void
end(void)
{
	ck_assert_int_eq(vmf_fini(), 0);
}

static uint64_t
faults(void)
{
	struct vmf_stats s = { .size = sizeof(s) };

	ck_assert_int_eq(vmf_statistics(&s), 0);
	return s.v_vm_faults;
}

/* Write every far-th page, n of them.  Returns the faults. */
TOUCHES_MANAGED static uint64_t
stride_through(size_t first, size_t far, size_t n)
{
	uint64_t before = faults();

	for (size_t i = 0; i < n; i++)
		memory[(first + i * far) * PG] = (char)(i + 1);
	return faults() - before;
}

TOUCHES_MANAGED static void
check_bytes(size_t first, size_t far, size_t n)
{
	for (size_t i = 0; i < n; i++)
		ck_assert_int_eq(memory[(first + i * far) * PG], (char)(i + 1));
}

static size_t
resident(void)
{
	size_t n = 0;

	ck_assert_int_eq(vmf_page_info(memory, (size_t)N * PG, info), 0);
	for (size_t i = 0; i < N; i++)
		n += (info[i] & VMF_PAGE_RESIDENT) != 0;
	return n;
}

static const size_t distances[] = { 2, 3, 7, 16, 32 };

START_TEST(a_stride_takes_fewer_faults_than_pages)
{
	size_t far = distances[_i], n = 3 * 512 / far;
	uint64_t took;

	begin();
	took = stride_through(0, far, n);
	/* In each chunk it must be recognised only once, and grows; 256 pages are the longest window. */
	ck_assert_uint_le(took, n / 4 + 12);
	check_bytes(0, far, n);
	/* What is between was not made, and at most one window too many. */
	ck_assert_uint_le(resident(), n + 256 / far);
	for (size_t i = 0; i < n * far; i++)
		ck_assert_int_eq((info[i] & VMF_PAGE_RESIDENT) != 0, i % far == 0);
	end();
}
END_TEST

/* The distance must come twice before anything is made of it. */
START_TEST(two_touches_are_no_stride)
{
	begin();
	ck_assert_uint_eq(stride_through(0, 5, 2), 2);
	ck_assert_uint_eq(resident(), 2);
	ck_assert_uint_eq(stride_through(1000, 33, 4), 4);
	ck_assert_uint_eq(resident(), 6);
	end();
}
END_TEST

START_TEST(who_says_random_gets_what_he_asks_for)
{
	begin();
	ck_assert_int_eq(vmf_advise(memory, (size_t)N * PG, VMF_ADVICE_RANDOM), 0);
	ck_assert_uint_eq(stride_through(0, 4, 100), 100);
	ck_assert_uint_eq(resident(), 100);
	end();
}
END_TEST

/* Copied up, and pushed to a copy: the gaps stay shared. */
START_TEST(strides_over_copies)
{
	struct vmf_range range;
	vmf_snapshot_t snap;
	void *view;
	char *p;

	begin();
	for (size_t i = 0; i < N; i++)
		memory[i * PG + 1] = (char)i;
	range = (struct vmf_range){ memory, (size_t)N * PG };
	ck_assert_int_eq(vmf_snapshot_create(&range, 1, &snap), 0);
	/* The snapshot gets pages of its own, ... */
	for (size_t i = 0; i < N; i++)
		memory[i * PG + 2] = 1;
	ck_assert_int_eq(vmf_advise(memory, (size_t)N * PG, VMF_ADVICE_NORMAL), 0);
	/* ... from which the writes of a view are copied up. */
	ck_assert_int_eq(vmf_snapshot_map(snap, 0, 0, (size_t)N * PG, VMF_TASK_DEFAULT, &view, 0, VMF_PROT_DEFAULT), 0);
	p = memory;
	memory = view;
	ck_assert_uint_le(stride_through(0, 4, 384), 384 / 4 + 12);
	check_bytes(0, 4, 384);
	memory = p;
	for (size_t i = 0; i < N; i++) {
		ck_assert_int_eq(memory[i * PG + 1], (char)i);
		ck_assert_int_eq(((char *)view)[i * PG + 1], (char)i);
		ck_assert_int_eq(memory[i * PG], 0);
		ck_assert_int_eq(((char *)view)[i * PG + 2], 0);
	}
	ck_assert_int_eq(vmf_snapshot_release(snap), 0);
	end();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("clusters");
	TCase *tc = tcase_create("strides");

	tcase_add_loop_test(tc, a_stride_takes_fewer_faults_than_pages, 0, (int)(sizeof(distances) / sizeof(distances[0])));
	tcase_add_test(tc, two_touches_are_no_stride);
	tcase_add_test(tc, who_says_random_gets_what_he_asks_for);
	tcase_add_test(tc, strides_over_copies);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
