/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Advice and what is paged out: memory that was given up must not come back from its pager.
 * (What a user sees of advice otherwise is in test_api_file.c.)
 */

#include <check.h>
#include <stdlib.h>

#include "suite.h"
#include "support.h"
#include "testpager.h"

enum { PAGES = 16 };

static char *p;

static void
setup(void)
{
	testpager_reset();
	start(0, 0);
	testpager_default();
	p = alloc(PAGES);
	fill_pages(p, PAGES, 1);
	give_pager(object_at(p), 3);
	evict(object_at(p));
}

static void
teardown(void)
{
	stop();
	testpager_reset();
}

START_TEST(freed_pages_do_not_come_back_as_they_were_paged_out)
{
	fill_pages(p, PAGES / 2, 2);
	expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_FREE), 0);
	check_pages(p, PAGES / 2, 2);
	/* As the pageout daemon does with what is clean. */
	evict(object_at(p));
	check_zero(p, PAGES * PG);
	fill_pages(p, PAGES, 3);
	evict(object_at(p));
	check_pages(p, PAGES, 3);
}
END_TEST

START_TEST(a_page_that_is_written_after_it_was_freed_is_paged_out)
{
	fill_pages(p, PAGES, 2);
	expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_FREE), 0);
	fill(p + PG, PG, 5);
	evict(object_at(p));
	check_fill(p + PG, PG, 5);
	check_zero(p, PG);
}
END_TEST

START_TEST(discarded_pages_do_not_come_back)
{
	unsigned pages = testpager_counts.pages;

	fill(p + PG, PG, 2);
	expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_DONTNEED), 0);
	ck_assert_uint_eq(testpager_counts.pages, pages - PAGES);
	check_zero(p, PAGES * PG);
}
END_TEST

START_TEST(cold_pages_leave_and_come_back)
{
	fill_pages(p, PAGES, 2);
	expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_COLD), 0);
	check_pages(p, PAGES, 2);
	expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_COLD), 0);
	evict(object_at(p));
	check_pages(p, PAGES, 2);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("vm_advise");
	TCase *t = tcase_create("paged out");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, freed_pages_do_not_come_back_as_they_were_paged_out);
	tcase_add_test(t, a_page_that_is_written_after_it_was_freed_is_paged_out);
	tcase_add_test(t, discarded_pages_do_not_come_back);
	tcase_add_test(t, cold_pages_leave_and_come_back);
	suite_add_tcase(s, t);
	return run_suite(s);
}
