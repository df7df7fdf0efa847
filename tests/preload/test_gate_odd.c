/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A libc with calls where no compiler puts them (odd.S): each does what it did, and those that can be told from other code
 * are guarded.  What cannot is left as it was: with memory that is absent it says EFAULT.
 */

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "../suite.h"
#include "gate.h"
#include "gate_fake.h"

typedef long odd_fn(long nr, long a, long b, long c);

odd_fn odd_first, odd_near, odd_far, odd_table, odd_compare, odd_base, odd_index, odd_stack, odd_register, odd_prefix,
    odd_data, odd_read, odd_vsyscall;
long odd_getpid(void), odd_getpid2(void), odd_comparison(long), odd_immediate(void), odd_displacement(long),
    odd_immediate_compared(long);

static const struct odd {
	const char *name;
	odd_fn *fn;
	bool guarded;
} odd[] = {
	{ "at the start of the text", odd_first, true },
	{ "jumped to from near by, behind a number", odd_near, true },
	{ "jumped to from afar, behind a number", odd_far, true },
	{ "jumped to by a table, behind a number", odd_table, true },
	{ "its comparison jumped to", odd_compare, true },
	{ "behind a displacement that looks like a number", odd_base, true },
	{ "behind an index and a displacement", odd_index, true },
	{ "behind the end of one that looks like another", odd_stack, true },
	{ "behind a number in another register", odd_register, true },
	{ "with a prefix", odd_prefix, false },
	{ "behind bytes that are no code", odd_data, false },
};

static struct gate_info info;

static void
start(void)
{
	ck_assert_int_eq(fake_start(GATE_PATCH, 0, &info), 0);
}

START_TEST(a_call_is_what_it_was)
{
	const struct odd *o = &odd[_i];
	char *p = fake_pages(FAKE_PAGE), back[13] = "";
	int fd = memfd_create("odd", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	memcpy(p, "odd call", 8);
	ck_assert_msg(o->fn(SYS_write, fd, (long)p, 8) == 8, "%s", o->name);
	ck_assert_int_eq(fake_evict(p, FAKE_PAGE, false), 1);
	ck_assert_msg(o->fn(SYS_write, fd, (long)p + 4, 4) == (o->guarded ? 4 : -EFAULT), "%s", o->name);
	ck_assert_int_eq(pread(fd, back, 12, 0), o->guarded ? 12 : 8);
	ck_assert_str_eq(back, o->guarded ? "odd callcall" : "odd call");
	ck_assert_msg(o->fn(SYS_close, fd, 0, 0) == 0, "%s", o->name);
	ck_assert_msg(o->fn(SYS_close, fd, 0, 0) == -EBADF, "%s", o->name);
}
END_TEST

/* Those that share a `syscall` with others. */
START_TEST(the_other_ways_are_there)
{
	char *p = fake_pages(FAKE_PAGE);
	int ends[2];

	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(odd_getpid(), getpid());
		ck_assert_int_eq(odd_getpid2(), getpid());
		ck_assert_int_eq(odd_comparison(7), 7);
		ck_assert_int_eq(odd_comparison(-7), -7);
	}
	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(write(ends[1], "in", 2), 2);
	(void)fake_evict(p, FAKE_PAGE, false);
	ck_assert_int_eq(odd_read(0, ends[0], (long)p, 2), 2);
	ck_assert_int_eq(memcmp(p, "in", 2), 0);
}
END_TEST

START_TEST(what_is_no_call_is_left)
{
	ck_assert_int_eq(odd_immediate(), 0x050f);
	ck_assert_int_eq(odd_displacement(1), 0x0510);
	ck_assert_int_eq(odd_immediate_compared(0x050f0000), 1);
	ck_assert_int_eq(odd_immediate_compared(0x05ee0000), 0);
}
END_TEST

static bool
has_vsyscall(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[4096];
	bool found = false;

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		found = found || strstr(line, "[vsyscall]") != NULL;
	if (f != NULL)
		(void)fclose(f);
	return found;
}

/* Nobody calls it any more.  It works, with memory that is there. */
START_TEST(the_vsyscall_page_is_not_guarded)
{
	struct timeval *tv = fake_pages(FAKE_PAGE), now;

	if (!has_vsyscall())
		return;
	memset(tv, 0, sizeof(*tv));
	ck_assert_int_eq(odd_vsyscall(0, (long)tv, 0, 0), 0);
	ck_assert_int_eq(gettimeofday(&now, NULL), 0);
	ck_assert_int_le(now.tv_sec - tv->tv_sec, 60);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("odd calls");
	TCase *tc = tcase_create("odd calls");

	tcase_add_checked_fixture(tc, start, NULL);
	tcase_add_loop_test(tc, a_call_is_what_it_was, 0, sizeof(odd) / sizeof(odd[0]));
	tcase_add_test(tc, the_other_ways_are_there);
	tcase_add_test(tc, what_is_no_call_is_left);
	tcase_add_test(tc, the_vsyscall_page_is_not_guarded);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
