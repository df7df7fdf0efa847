/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Advice and what is paged out: memory that was given up must not come back from its pager.
 * (What a user sees of advice otherwise is in test_api_file.c.)
 */

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kern/sys.h"
#include "physmem.h"
#include "pmap.h"
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

/*
 * Nothing bounds memory: pages keep their places, and lose their bytes.
 */

enum { MANY = 1024 };

static void
setup_boundless(void)
{
	start(UINT64_MAX, 0);
	p = alloc(MANY);
	fill_pages(p, MANY, 1);
}

static size_t
in_memory(void)
{
	struct stat st;

	expect(fstat(physmem_fd(), &st), 0);
	return (size_t)st.st_blocks * 512 / PG;
}

static struct vmf_stats
stats(void)
{
	struct vmf_stats s = { .size = sizeof(s) };

	expect(vmf_statistics(&s), 0);
	return s;
}

/* What lies outside of pages [10, 90) and [600, 800) is as it was, those are zeros. */
static void
check_discarded(void)
{
	for (size_t i = 0; i < MANY; i++)
		if ((i >= 10 && i < 90) || (i >= 600 && i < 800))
			check_zero(p + i * PG, PG);
		else
			check_fill(p + i * PG, PG, mix(1, i));
}

static void
discard(void)
{
	expect(vmf_advise(p + 10 * PG, 80 * PG, VMF_ADVICE_DONTNEED), 0);
	expect(vmf_advise(p + 600 * PG, 200 * PG, VMF_ADVICE_DONTNEED), 0);
}

START_TEST(what_is_discarded_stays_mapped_and_takes_no_memory)
{
	size_t before = in_memory();
	uint64_t then = stats().v_vm_faults;

	discard();
	ck_assert_uint_le(in_memory(), before - 280);
	check_discarded();
	fill_pages(p, MANY, 2);
	check_pages(p, MANY, 2);
	ck_assert_uint_eq(stats().v_vm_faults, then);
	audit();
}
END_TEST

START_TEST(what_others_see_stays)
{
	vmf_snapshot_t s = snap(p, MANY);
	char *v;

	discard();
	check_discarded();
	v = view(s, MANY, VMF_PROT_READ);
	check_pages(v, MANY, 1);
	expect(vmf_unmap(v, MANY * PG), 0);
	expect(vmf_snapshot_release(s), 0);
	check_discarded();
	audit();
}
END_TEST

/* Pages that the kernel has copied for us are in no frame. */
START_TEST(what_is_in_a_view_is_discarded)
{
	vmf_snapshot_t s = snap(p, MANY);

	for (size_t i = 0; i < 60; i++)
		fill(p + i * 389 % MANY * PG, PG, mix(1, i * 389 % MANY));
	ck_assert(!pmap_has_views() || stats().v_views > 0);
	expect(vmf_snapshot_release(s), 0);
	discard();
	check_discarded();
	audit();
}
END_TEST

/* A forked child has the frames, too, that the parent gives up; and the other way round. */
START_TEST(what_a_child_sees_stays)
{
	int go[2], status;
	pid_t pid;
	char c;

	check(pipe(go) == 0);
	pid = vmf_fork();
	check(pid >= 0);
	if (pid == 0) {
		check(read(go[0], &c, 1) == 1);
		check_pages(p, MANY, 1);
		discard();
		check_discarded();
		_exit(0);
	}
	discard();
	check_discarded();
	check(write(go[1], "x", 1) == 1);
	check(waitpid(pid, &status, 0) == pid);
	expect_exit(status, 0);
	check_discarded();
	fill_pages(p, MANY, 2);
	check_pages(p, MANY, 2);
	audit();
}
END_TEST

/* What was written after a fork stays away from the rest when the two become one again. */
START_TEST(frames_need_not_be_in_a_row)
{
	vmf_task_t child;

	expect(vmf_task_fork(VMF_TASK_DEFAULT, &child), 0);
	for (size_t i = 0; i < MANY; i += 3)
		fill(p + i * PG, PG, mix(1, i));
	expect(vmf_task_destroy(child), 0);
	fill(p + PG, PG, mix(1, 1));
	discard();
	check_discarded();
	fill_pages(p, MANY, 2);
	check_pages(p, MANY, 2);
	audit();
}
END_TEST

/* Every second one. */
static int
refuse_punch(enum sys_call call)
{
	static _Atomic unsigned n;

	return call == SYS_CALL_FALLOCATE && n++ % 2 != 0 ? -EINVAL : 0;
}

START_TEST(what_the_kernel_refuses_is_discarded_all_the_same)
{
	sys_inject = refuse_punch;
	discard();
	check_discarded();
	discard();
	check_discarded();
	sys_inject = NULL;
	audit();
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
	t = tcase_create("boundless");
	tcase_add_checked_fixture(t, setup_boundless, stop);
	tcase_add_test(t, what_is_discarded_stays_mapped_and_takes_no_memory);
	tcase_add_test(t, what_others_see_stays);
	tcase_add_test(t, what_is_in_a_view_is_discarded);
	tcase_add_test(t, what_a_child_sees_stays);
	tcase_add_test(t, frames_need_not_be_in_a_row);
	tcase_add_test(t, what_the_kernel_refuses_is_discarded_all_the_same);
	suite_add_tcase(s, t);
	return run_suite(s);
}
