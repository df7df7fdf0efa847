/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Clusters: how many faults a pattern of touches takes, and what is made that nobody touched.
 *
 * Counted, not timed.  Each touch writes, for that is what a fault is always taken for.
 */

#include <check.h>
#include <signal.h>
#include <sys/stat.h>

#include "physmem.h"
#include "suite.h"
#include "support.h"

#define N	4096u			/* pages: eight leaves */

static char *memory;
static unsigned char info[N];

static void
begin_with(uint64_t budget)
{
	struct vmf_config c = VMF_CONFIG_INIT;
	void *p;

	c.memory = budget;
	ck_assert_int_eq(vmf_init(&c), 0);
	ck_assert_int_eq(vmf_allocate(VMF_TASK_DEFAULT, &p, (size_t)N * PG, 0), 0);
	memory = p;
}

static void
begin(void)
{
	begin_with(0);
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

/*
 * Nothing bounds memory
 */

#define LEAF	512u
#define SLACK	(LEAF / 2)		/* pages that the kernel may have read ahead */

/* Pages that the kernel has memory for. */
static size_t
in_memory(void)
{
	struct stat st;

	ck_assert_int_eq(fstat(physmem_fd(), &st), 0);
	return (size_t)st.st_blocks * 512 / PG;
}

START_TEST(a_fresh_leaf_comes_at_once_and_takes_no_memory)
{
	begin_with(UINT64_MAX);
	for (size_t leaf = 0; leaf < 4; leaf++)
		ck_assert_uint_eq(stride_through(leaf * LEAF + 100, 7, 50), 1);
	ck_assert_uint_eq(resident(), 4 * LEAF);
	ck_assert_uint_le(in_memory(), 4 * 50 + SLACK);
	for (size_t leaf = 0; leaf < 4; leaf++)
		check_bytes(leaf * LEAF + 100, 7, 50);
	/* With a bound each page takes a frame that somebody else may want. */
	end();
	begin_with((uint64_t)N * PG);
	ck_assert_uint_gt(stride_through(100, 7, 50), 1);
	ck_assert_uint_lt(resident(), LEAF);
	end();
}
END_TEST

START_TEST(a_leaf_that_follows_a_full_one_is_had_at_once)
{
	begin_with(UINT64_MAX);
	ck_assert_uint_eq(stride_through(0, 1, LEAF), 1);
	ck_assert_uint_le(in_memory(), LEAF + SLACK);
	ck_assert_uint_eq(stride_through(LEAF + 17, 1, 1), 1);
	ck_assert_uint_ge(in_memory(), 2 * LEAF);
	/* One that follows it while a part is missing is not. */
	ck_assert_uint_eq(stride_through(4 * LEAF, 1, LEAF / 2), 1);
	ck_assert_uint_eq(stride_through(5 * LEAF, 1, 1), 1);
	ck_assert_uint_lt(in_memory(), 3 * LEAF + SLACK);
	check_bytes(0, 1, LEAF);
	check_bytes(4 * LEAF, 1, LEAF / 2);
	for (size_t i = LEAF; i < LEAF + 17; i++)
		ck_assert_int_eq(memory[i * PG], 0);
	end();
}
END_TEST

/* What lies in the same leaf and is somebody else's, or there already, stays what it is. */
START_TEST(only_what_is_not_there_is_made)
{
	void *p;

	begin_with(UINT64_MAX);
	ck_assert_uint_eq(stride_through(0, 1, 3), 1);
	ck_assert_int_eq(vmf_unmap(memory + 10 * PG, 10 * PG), 0);
	p = memory + 10 * PG;
	ck_assert_int_eq(vmf_allocate(VMF_TASK_DEFAULT, &p, 10 * PG, VMF_FIXED), 0);
	ck_assert_int_eq(vmf_protect(memory + 30 * PG, 10 * PG, VMF_PROT_READ), 0);
	ck_assert_uint_eq(stride_through(12, 1, 3), 1);
	check_bytes(0, 1, 3);
	check_bytes(12, 1, 3);
	for (size_t i = 15; i < LEAF; i++)
		ck_assert_int_eq(memory[i * PG], 0);
	expect_write(memory + 31 * PG, SIGSEGV, SEGV_ACCERR);
	audit();
	end();
}
END_TEST

/* Frames that were used are zeros again, and those that are not touched take no memory. */
START_TEST(used_frames_come_back_as_zeros)
{
	void *p = NULL;

	begin_with(UINT64_MAX);
	for (size_t i = 0; i < 4 * LEAF; i++)
		memory[i * PG] = memory[i * PG + PG - 1] = 1;
	ck_assert_int_eq(vmf_unmap(memory, (size_t)N * PG), 0);
	for (int turn = 0; turn < 3; turn++) {
		p = memory;
		ck_assert_int_eq(vmf_allocate(VMF_TASK_DEFAULT, &p, (size_t)N * PG, VMF_FIXED), 0);
		ck_assert_uint_eq(stride_through(5, 11, 20), 1);
		ck_assert_uint_eq(stride_through(LEAF + 5, 11, 20), 1);
		check_bytes(5, 11, 20);
		for (size_t i = 0; i < 2 * LEAF; i++) {
			size_t k = i % LEAF;

			ck_assert_int_eq(memory[i * PG + PG - 1], 0);
			if (k < 5 || k >= 5 + 20 * 11 || (k - 5) % 11 != 0)
				ck_assert_int_eq(memory[i * PG], 0);
		}
		ck_assert_int_eq(vmf_unmap(memory, (size_t)N * PG), 0);
	}
	audit();
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
	tc = tcase_create("boundless");
	tcase_add_test(tc, a_fresh_leaf_comes_at_once_and_takes_no_memory);
	tcase_add_test(tc, a_leaf_that_follows_a_full_one_is_had_at_once);
	tcase_add_test(tc, only_what_is_not_there_is_made);
	tcase_add_test(tc, used_frames_come_back_as_zeros);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
