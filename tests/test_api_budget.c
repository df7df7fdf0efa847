/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The mapping budget against the worst that a program can do to it: after a snapshot every page of a
 * gigabyte is written, one at a time, in random order.  Each write cuts a mapping in two, and the
 * kernel allows 65,530 of them; the library must stay within what it was given, and nobody may notice
 * but by the clock.
 */

#include <check.h>
#include <stdlib.h>

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

int
main(void)
{
	Suite *s = suite_create("mapping budget");
	TCase *tc = tcase_create("scatter");

	tcase_set_timeout(tc, 240);
	tcase_add_test(tc, random_writes_to_a_gigabyte_pass_with_the_kernel_s_limit);
	tcase_add_test(tc, random_writes_pass_with_a_thousand_mappings);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
