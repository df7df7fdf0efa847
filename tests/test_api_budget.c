/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The mapping budget against the worst that a program can do to it: after a snapshot every page of a
 * gigabyte is written, one at a time, in random order.  Each write cuts a mapping in two, and the
 * kernel allows 65,530 of them; the library must stay within what it was given, and nobody may notice
 * but by the clock.
 *
 * Nor much by that: what is forgotten to stay within it comes back many pages at a time.  Faults are
 * counted, for clocks lie.  (soak_budget.c does the same to 8 GB.)
 */

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "suite.h"
#include "support.h"

/* The kernel's limit takes a gigabyte; a quarter has to do where addresses are scarce, or time is. */
enum { QUARTER = 1 << 16, GIGABYTE = sizeof(void *) == 8 && !SANITIZED ? 4 * QUARTER : QUARTER };

static size_t
stride(size_t npages)
{
	/* Odd, so that multiples of it visit each page of a power of two once, far apart. */
	return (size_t)0x9e3779b1u % npages | 1;
}

static void
scatter(uint32_t mappings, size_t npages)
{
	struct vmf_stats stats = { .size = sizeof(stats) };
	vmf_snapshot_t snap;
	struct vmf_range r;
	void *view = NULL;
	uint64_t *p, *q;

	start(0, mappings);
	p = (void *)alloc(npages);
	for (size_t i = 0; i < npages; i++)
		p[i * PG / sizeof(*p)] = i;
	r = (struct vmf_range){ p, npages * PG };
	expect(vmf_snapshot_create(&r, 1, &snap), 0);
	for (size_t i = 0, k = 0; i < npages; i++, k = (k + stride(npages)) % npages) {
		p[k * PG / sizeof(*p)] += npages;
		if (i % 4096 != 0)
			continue;
		expect(vmf_statistics(&stats), 0);
		ck_assert_uint_le(stats.mappings, stats.mappings_max);
	}
	if (mappings != 0)
		ck_assert_uint_le(stats.mappings_max, mappings);
	expect(vmf_snapshot_map(snap, 0, 0, npages * PG, VMF_TASK_DEFAULT, &view, 0, VMF_PROT_READ), 0);
	q = view;
	for (size_t i = 0; i < npages; i++) {
		ck_assert_uint_eq(p[i * PG / sizeof(*p)], i + npages);
		ck_assert_uint_eq(q[i * PG / sizeof(*q)], i);
	}
	expect(vmf_snapshot_release(snap), 0);
	stop();
}

START_TEST(random_writes_to_a_gigabyte_pass_with_the_kernel_s_limit)
{
	scatter(0, GIGABYTE);
}
END_TEST

START_TEST(random_writes_pass_with_a_thousand_mappings)
{
	scatter(1000, QUARTER);
}
END_TEST

/*
 * Faults
 */

static uint64_t
faults(void)
{
	struct vmf_stats stats = { .size = sizeof(stats) };

	expect(vmf_statistics(&stats), 0);
	ck_assert_uint_le(stats.mappings, stats.mappings_max);
	return stats.v_vm_faults;
}

/* Write or read one word of each page, in random order.  => the faults that this took */
static uint64_t
write_all(uint64_t *p, size_t npages, uint64_t round)
{
	uint64_t before = faults();

	for (size_t i = 0, k = 0; i < npages; i++, k = (k + stride(npages)) % npages)
		p[k * PG / sizeof(*p)] = mix(round, k);
	return faults() - before;
}

static uint64_t
read_all(const uint64_t *p, size_t npages, uint64_t round)
{
	uint64_t before = faults();

	for (size_t i = 0, k = 0; i < npages; i++, k = (k + stride(npages)) % npages)
		ck_assert_uint_eq(*(const volatile uint64_t *)&p[k * PG / sizeof(*p)], mix(round, k));
	return faults() - before;
}

/* Fresh memory, of which every page will be touched: it comes 64 KB at a time from where mappings are short. */
START_TEST(fresh_pages_come_in_coarse_pieces)
{
	uint64_t *p;

	start(0, 1000);
	p = (void *)alloc(QUARTER);
	ck_assert_uint_lt(write_all(p, QUARTER, 1), QUARTER / 8);
	ck_assert_uint_lt(read_all(p, QUARTER, 1), QUARTER / 64);
	stop();
}
END_TEST

/* Bytes that the kernel has given for frames. */
static uint64_t
frame_bytes(void)
{
	char path[64], name[64];
	uint64_t bytes = 0;
	struct stat st;

	for (int fd = 0; fd < 64; fd++) {
		ssize_t n;

		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, name, sizeof(name) - 1);
		name[n > 0 ? n : 0] = '\0';
		if (strstr(name, "memfd:vmfault") != NULL && fstat(fd, &st) == 0)
			bytes += (uint64_t)st.st_blocks * 512;
	}
	return bytes;
}

/* What nobody has touched of them takes no memory, and is given up when frames are needed. */
START_TEST(coarse_pieces_are_not_paid_for)
{
	enum { FRAMES = QUARTER / 4 };
	uint64_t *p, *q;

	start(FRAMES * PG, 128);
	p = (void *)alloc(QUARTER);
	/* One page of 64 KB each: a quarter of the frames, that would all be taken. */
	for (size_t i = 0, k = 0; i < QUARTER / 16; i++, k = (k + stride(QUARTER / 16)) % (QUARTER / 16))
		p[k * 16 * PG / sizeof(*p)] = k + 1;
	ck_assert_uint_ge(frame_bytes(), QUARTER / 16 * PG);
	ck_assert_uint_lt(frame_bytes(), QUARTER / 16 * PG * 3 / 2);
	q = (void *)alloc(FRAMES / 2);
	for (size_t k = 0; k < FRAMES / 2; k++)
		q[k * PG / sizeof(*q)] = k + 1;
	for (size_t k = 0; k < QUARTER / 16; k++)
		ck_assert_uint_eq(p[k * 16 * PG / sizeof(*p)], k + 1);
	for (size_t k = 0; k < FRAMES / 2; k++)
		ck_assert_uint_eq(q[k * PG / sizeof(*q)], k + 1);
	stop();
}
END_TEST

/* The first pass cuts and forgets; the next ones must find most of it, and the last all. */
START_TEST(what_was_forgotten_comes_back_in_runs)
{
	uint64_t *p, *q;
	vmf_snapshot_t snap;
	struct vmf_range r;
	void *view = NULL;
	int random = _i % 2;

	start(0, 1000);
	p = (void *)alloc(QUARTER);
	if (random)
		expect(vmf_advise(p, QUARTER * PG, VMF_ADVICE_RANDOM), 0);
	(void)write_all(p, QUARTER, 1);
	r = (struct vmf_range){ p, QUARTER * PG };
	expect(vmf_snapshot_create(&r, 1, &snap), 0);
	/* From where a half of 64 KB has been copied the other half is, too. */
	ck_assert_uint_lt(write_all(p, QUARTER, 2), QUARTER / 4 * 3);
	ck_assert_uint_lt(write_all(p, QUARTER, 3), QUARTER / 64);
	ck_assert_uint_lt(read_all(p, QUARTER, 3), QUARTER / 64);
	expect(vmf_snapshot_map(snap, 0, 0, QUARTER * PG, VMF_TASK_DEFAULT, &view, 0, VMF_PROT_READ), 0);
	q = view;
	ck_assert_uint_lt(read_all(q, QUARTER, 1), QUARTER / 16);
	expect(vmf_snapshot_release(snap), 0);
	stop();
}
END_TEST

/* Half of the pages may be written, every other one; who only reads them takes few faults all the same. */
START_TEST(to_be_read_all_comes_back_at_once)
{
	vmf_snapshot_t snap;
	struct vmf_range r;
	uint64_t *p, before;

	start(0, 1000);
	p = (void *)alloc(QUARTER);
	(void)write_all(p, QUARTER, 1);
	r = (struct vmf_range){ p, QUARTER * PG };
	expect(vmf_snapshot_create(&r, 1, &snap), 0);
	for (size_t k = 0; k < QUARTER; k += 3)
		p[k * PG / sizeof(*p)] = mix(1, k);
	ck_assert_uint_lt(read_all(p, QUARTER, 1), QUARTER / 32);
	before = faults();
	ck_assert_uint_lt(read_all(p, QUARTER, 1) + before, before + QUARTER / 64);
	expect(vmf_snapshot_release(snap), 0);
	stop();
}
END_TEST

/*
 * Coming home
 */

static struct vmf_stats
stats_now(void)
{
	struct vmf_stats stats = { .size = sizeof(stats) };

	expect(vmf_statistics(&stats), 0);
	return stats;
}

/* Memory that was forked and half written since, page by page, and whose other owner is gone. */
static uint64_t *
left_behind(size_t npages)
{
	uint64_t *p = (void *)alloc(npages);
	vmf_task_t child;

	(void)write_all(p, npages, 1);
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &child), 0);
	for (size_t i = 0; i < npages; i += 4)
		p[i * PG / sizeof(*p)] = mix(1, i);
	expect(vmf_task_destroy(child), 0);
	(void)read_all(p, npages, 1);
	return p;
}

/* Where mappings are worth something, pages come home while they are used. */
START_TEST(scattered_pages_come_home)
{
	enum { N = QUARTER / 8 };
	uint64_t end = now_ms() + 60000, *p, round = 1;

	start(0, 1000);
	p = left_behind(N);
	while (stats_now().mappings > 1000 / 16 && now_ms() < end) {
		(void)read_all(p, N, round++);
		(void)write_all(p, N, round);
	}
	ck_assert_uint_gt(stats_now().v_homed, 0);
	ck_assert_uint_le(stats_now().mappings, 1000 / 16);
	(void)read_all(p, N, round);
	stop();
}
END_TEST

/* Where they are plenty, nobody is disturbed. */
START_TEST(pages_may_be_away_from_home)
{
	uint64_t *p;

	start(0, 0);
	p = left_behind(256);
	(void)usleep(300 * 1000);
	expect(stats_now().v_homed, 0);
	(void)read_all(p, 256, 1);
	stop();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("mapping budget");
	TCase *tc = tcase_create("scatter");

	tcase_set_timeout(tc, 240);
	tcase_add_test(tc, random_writes_to_a_gigabyte_pass_with_the_kernel_s_limit);
	tcase_add_test(tc, random_writes_pass_with_a_thousand_mappings);
	tcase_add_test(tc, fresh_pages_come_in_coarse_pieces);
	tcase_add_test(tc, coarse_pieces_are_not_paid_for);
	tcase_add_loop_test(tc, what_was_forgotten_comes_back_in_runs, 0, 2);
	tcase_add_test(tc, scattered_pages_come_home);
	tcase_add_test(tc, pages_may_be_away_from_home);
	tcase_add_test(tc, to_be_read_all_comes_back_at_once);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
