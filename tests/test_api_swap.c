/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Swap, as a program sees it: more memory than frames, and not a byte lost.
 */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "suite.h"
#include "support.h"
#ifdef VMF_TESTING
#include "kern/sys.h"
#endif

enum { BUDGET = 256, SET = 4 * BUDGET, THREADS = 4, TOUCHES = SANITIZED ? SET / 2 : 2 * SET };

static const uint32_t engines[] = {
	VMF_CONFIG_IO_URING, VMF_CONFIG_IO_SYSCALLS,
	VMF_CONFIG_IO_URING | VMF_CONFIG_SWAP_DIRECT, VMF_CONFIG_IO_SYSCALLS | VMF_CONFIG_SWAP_DIRECT,
};

static struct vmf_config
configure(uint32_t flags, const char *file, uint64_t pages)
{
	struct vmf_config c = VMF_CONFIG_INIT;

	c.memory = BUDGET * PG;
	c.flags = VMF_CONFIG_QUIET | flags;
	c.swap_file = file;
	c.swap_size = pages * PG;
	return c;
}

/* false: this machine does not allow it. */
static bool
begin(uint32_t flags, const char *file, uint64_t pages)
{
	struct vmf_config c = configure(flags, file, pages);
	int error = vmf_init(&c);

	if ((error == -EPERM || error == -ENOSYS) && (flags & VMF_CONFIG_IO_URING))
		return false;
	if (error == -EINVAL && (flags & VMF_CONFIG_SWAP_DIRECT))
		return false;		/* not on this file system */
	expect(error, 0);
	touch_install();
	return true;
}

static struct vmf_stats
stats(void)
{
	struct vmf_stats s = { .size = sizeof(s) };

	expect(vmf_statistics(&s), 0);
	return s;
}

/*
 * A working set larger than memory
 */

struct worker {
	pthread_t thread;
	char *p;
	uint64_t seed;
	uint64_t key[SET / THREADS];
};

static void *
work(void *arg)
{
	struct worker *w = arg;

	for (size_t i = 0; i < nitems(w->key); i++)
		fill(w->p + i * PG, PG, w->key[i] = mix(w->seed, i));
	for (unsigned n = 0; n < TOUCHES; n++) {
		size_t i = rng_next(&w->seed) % nitems(w->key);

		check_fill(w->p + i * PG, PG, w->key[i]);
		if (n % 2 == 0)
			fill(w->p + i * PG, PG, w->key[i] = rng_next(&w->seed));
	}
	for (size_t i = 0; i < nitems(w->key); i++)
		check_fill(w->p + i * PG, PG, w->key[i]);
	return NULL;
}

/* Four workers on a part of p each, one after the other or at once. */
static void
work_all(struct worker *workers, char *p, bool at_once)
{
	for (size_t i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ .p = p + i * SET / THREADS * PG, .seed = i + 1 };
		if (!at_once)
			work(&workers[i]);
		else
			check(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
	}
	for (size_t i = 0; at_once && i < THREADS; i++)
		check(pthread_join(workers[i].thread, NULL) == 0);
}

static void
check_all(const struct worker *workers)
{
	for (size_t i = 0; i < THREADS; i++)
		for (size_t k = 0; k < nitems(workers[i].key); k++)
			check_fill(workers[i].p + k * PG, PG, workers[i].key[k]);
}

/* The first half of the loops: one thread. */
#define AT_ONCE(i)	((i) >= (int)nitems(engines))

static struct worker workers[THREADS];

START_TEST(four_budgets_of_memory_keep_every_byte)
{
	uint32_t flags = engines[(size_t)_i % nitems(engines)];
	struct vmf_stats s;
	char *p;

	if (!begin(flags, NULL, 2 * SET))
		return;
	s = stats();
	ck_assert_uint_eq(s.io_uring, (flags & VMF_CONFIG_IO_URING) != 0);
	ck_assert_uint_eq(s.swap_size, 2 * SET - 1);
	ck_assert_uint_eq(s.swap_used, 0);
	p = alloc(SET);
	work_all(workers, p, AT_ONCE(_i));
	check_all(workers);
	s = stats();
	ck_assert_uint_ge(s.swap_used, SET - BUDGET);
	ck_assert_uint_ge(s.v_swpout, SET - BUDGET);
	ck_assert_uint_ge(s.v_swpin, SET - BUDGET);
	ck_assert_uint_eq(s.swap_errors, 0);
	ck_assert_uint_le(s.v_page_count - s.v_free_count, BUDGET);
	expect(vmf_unmap(p, SET * PG), 0);
	ck_assert_uint_eq(stats().swap_used, 0);
	stop();
}
END_TEST

/* A snapshot's pages leave and come back as others do, and when it goes its slots are free. */
START_TEST(snapshots_of_more_than_memory_keep_theirs)
{
	enum { SNAPS = 3 };
	vmf_snapshot_t s[SNAPS];
	char *p, buf[VMF_PAGE_SIZE];
	uint64_t used;

	if (!begin(engines[_i], NULL, 8 * SET))
		return;
	p = alloc(SET);
	for (uint64_t k = 0; k < SNAPS; k++) {
		fill_pages(p, SET, k);
		s[k] = snap(p, SET);
	}
	for (size_t i = 0; i < SET; i += 3)
		fill(p + i * PG, PG, mix(77, i));
	for (uint64_t k = 0; k < SNAPS; k++)
		for (size_t i = 0; i < SET; i++) {
			expect(vmf_snapshot_read(s[k], 0, i * PG, buf, PG), 0);
			check_fill(buf, PG, mix(k, i));
		}
	used = stats().swap_used;
	ck_assert_uint_ge(used, (SNAPS - 1) * SET);
	expect(vmf_snapshot_release(s[1]), 0);
	expect(vmf_snapshot_rollback(s[0]), 0);
	check_pages(p, SET, 0);
	expect(vmf_snapshot_release(s[0]), 0);
	expect(vmf_snapshot_release(s[2]), 0);
	check_pages(p, SET, 0);
	ck_assert_uint_le(stats().swap_used, SET);
	expect(vmf_unmap(p, SET * PG), 0);
	ck_assert_uint_eq(stats().swap_used, 0);
	stop();
}
END_TEST

#ifdef VMF_TESTING
static _Atomic uint64_t dice;
static _Atomic unsigned refused, failed_writes;

/* One call in twenty of those that move bytes goes wrong. */
static int
misfortune(enum sys_call which)
{
	static const int errors[] = { -EIO, -ENOSPC, -EAGAIN };
	uint64_t x;

	if (which != SYS_CALL_PREADV && which != SYS_CALL_PWRITEV && which != SYS_CALL_FALLOCATE)
		return 0;
	/* Frames that are not taken back are looked for in all of the frame space: slow there. */
	if (SANITIZED && which == SYS_CALL_FALLOCATE)
		return 0;
	x = mix(23, dice++);
	if (x % 20 != 0)
		return 0;
	x /= 20;
	switch (x % 5) {
	case 0: case 1: case 2:
		failed_writes += which == SYS_CALL_PWRITEV;
		return errors[x % 5];
	case 3:
		return -EINTR;
	default:
		return which == SYS_CALL_FALLOCATE ? 0 : 1 + (int)(x / 5 % (8 * PG));
	}
}

/* What could not be read is tried once more. */
static bool
try_again(int signo, int code, const void *addr)
{
	refused++;
	return signo == SIGBUS && code == BUS_ADRERR;
}

START_TEST(one_fault_in_twenty_loses_nothing)
{
	uint32_t flags = engines[(size_t)_i % nitems(engines)];
	struct vmf_stats s;
	char *p;

	if (!begin(flags, NULL, 2 * SET))
		return;
	on_stray = try_again;
	sys_inject = misfortune;
	p = alloc(SET);
	work_all(workers, p, AT_ONCE(_i));
	check_all(workers);
	sys_inject = NULL;
	on_stray = NULL;
	check_all(workers);
	s = stats();
	ck_assert_uint_gt(s.swap_errors, 0);
	/* With O_DIRECT what follows on an odd count is refused by the kernel itself. */
	if (!(flags & VMF_CONFIG_SWAP_DIRECT))
		ck_assert_uint_le(s.swap_errors, failed_writes);
	ck_assert_uint_ge(s.v_pager_errors, refused);
	expect(vmf_unmap(p, SET * PG), 0);
	ck_assert_uint_eq(stats().swap_used, 0);
	stop();
}
END_TEST

static int
no_space(enum sys_call which)
{
	return which == SYS_CALL_PWRITEV ? -ENOSPC : 0;
}

static int
no_read(enum sys_call which)
{
	return which == SYS_CALL_PREADV ? -EIO : 0;
}

START_TEST(a_full_disk_keeps_pages_in_memory_and_says_so)
{
	char *p, buf[8] = { 0 };
	size_t n = 0;
	bool full = false;

	if (!begin(engines[_i], NULL, 2 * SET))
		return;
	sys_inject = no_space;
	p = alloc(SET);
	expect(vmf_advise(p, SET * PG, VMF_ADVICE_RANDOM), 0);
	for (; n < SET && !full; n++) {
		full = touch_write(p + n * PG).signo != 0;
		if (!full)
			fill(p + n * PG, PG, mix(3, n));
	}
	/* The documented signal, when the budget is used up; and the documented error. */
	ck_assert(full);
	n--;
	ck_assert_uint_ge(n, BUDGET - BUDGET / 8);
	expect_write(p + n * PG, SIGBUS, BUS_OBJERR);
	expect(vmf_write(p + n * PG, buf, sizeof(buf)), -ENOMEM);
	check_pages(p, n, 3);
	ck_assert_uint_gt(stats().swap_errors, 0);
	ck_assert_uint_eq(stats().swap_used, 0);
	/* When there is room again, all goes on, as soon as the daemon looks. */
	sys_inject = NULL;
	for (int i = 0; i < 1000 && touch_write(p + n * PG).signo != 0; i++)
		usleep(10000);
	for (; n < SET; n++)
		fill(p + n * PG, PG, mix(3, n));
	check_pages(p, SET, 3);
	stop();
}
END_TEST

START_TEST(what_cannot_be_read_is_a_signal_and_comes_back_later)
{
	char *p, buf[8];
	size_t lost = 0;

	if (!begin(engines[_i], NULL, 2 * SET))
		return;
	p = alloc(SET);
	fill_pages(p, SET, 3);
	sys_inject = no_read;
	for (size_t i = 0; i < SET; i++) {
		struct touch t = touch_read(p + i * PG);

		if (t.signo == 0)
			continue;
		lost++;
		check(t.signo == SIGBUS && t.code == BUS_ADRERR && t.addr == p + i * PG);
		expect(vmf_read(p + i * PG, buf, sizeof(buf)), -EIO);
	}
	ck_assert_uint_ge(lost, SET - BUDGET);
	sys_inject = NULL;
	check_pages(p, SET, 3);
	stop();
}
END_TEST
#endif

/*
 * The configuration
 */

START_TEST(full_swap_is_an_error_in_bounded_time)
{
	enum { SWAP = 128 };
	char *p;
	size_t n = 0;

	if (!begin(engines[_i], NULL, SWAP))
		return;
	p = alloc(SET);
	expect(vmf_advise(p, SET * PG, VMF_ADVICE_RANDOM), 0);
	for (; n < SET && touch_write(p + n * PG).signo == 0; n++)
		fill(p + n * PG, PG, mix(3, n));
	ck_assert_uint_ge(n, BUDGET);
	ck_assert_uint_le(n, BUDGET + SWAP);
	expect_write(p + n * PG, SIGBUS, BUS_OBJERR);
	/* Less of it, and it goes on. */
	expect(vmf_unmap(p, BUDGET / 2 * PG), 0);
	fill(p + n * PG, PG, mix(3, n));
	for (size_t i = BUDGET / 2; i <= n; i++)
		check_fill(p + i * PG, PG, mix(3, i));
	stop();
}
END_TEST

START_TEST(without_swap_there_is_none)
{
	struct vmf_config c = configure(0, NULL, 0);
	char *p;
	size_t n = 0;

	/* And none is left of the last time. */
	check(begin(0, NULL, SET));
	stop();
	expect(vmf_init(&c), 0);
	touch_install();
	ck_assert_uint_eq(stats().swap_size, 0);
	p = alloc(SET);
	expect(vmf_advise(p, SET * PG, VMF_ADVICE_RANDOM), 0);
	for (; n < SET && touch_write(p + n * PG).signo == 0; n++)
		fill(p + n * PG, PG, mix(3, n));
	ck_assert_uint_ge(n, BUDGET / 2);
	ck_assert_uint_le(n, BUDGET);
	check_pages(p, n, 3);
	stop();
}
END_TEST

static char dir[] = "/tmp/test_api_swap.XXXXXX", path[sizeof(dir) + 8];

static void
make_file(mode_t mode, size_t pages)
{
	int fd;

	if (path[0] == '\0') {
		check(mkdtemp(dir) != NULL);
		snprintf(path, sizeof(path), "%s/swap", dir);
	}
	unlink(path);
	fd = open(path, O_CREAT | O_EXCL | O_RDWR, 0600);
	check(fd >= 0 && fchmod(fd, mode) == 0 && ftruncate(fd, (off_t)(pages * PG)) == 0);
	close(fd);
}

static void
no_file(void)
{
	unlink(path);
	expect(rmdir(dir), 0);		/* nothing else was left there */
}

static void
use_swap(uint64_t size)
{
	char *p;

	ck_assert_uint_eq(stats().swap_size, size - 1);
	p = alloc(SET);
	fill_pages(p, SET, 5);
	check_pages(p, SET, 5);
	stop();
}

START_TEST(a_file_may_be_given)
{
	struct stat st;

	make_file(0600, 0);
	check(begin(0, path, SET));			/* it grows */
	use_swap(SET);
	check(stat(path, &st) == 0);
	ck_assert_uint_gt((uint64_t)st.st_size, (SET - BUDGET) * PG);
	ck_assert_uint_le((uint64_t)st.st_size, SET * PG);
	make_file(0600, 2 * SET);
	check(begin(0, path, 0));			/* as large as it is */
	use_swap(2 * SET);
	check(begin(0, path, SET));			/* or less */
	use_swap(SET);
	no_file();
}
END_TEST

START_TEST(a_directory_may_be_given_and_keeps_nothing)
{
	make_file(0600, 0);
	unlink(path);
	check(begin(0, dir, SET));
	expect(rmdir(dir), 0);				/* the file is in no directory */
	use_swap(SET);
	check(mkdir(dir, 0700) == 0 && setenv("TMPDIR", dir, 1) == 0);
	check(begin(0, NULL, SET));
	expect(rmdir(dir), 0);
	use_swap(SET);
	setenv("TMPDIR", "/nonexistent", 1);
	check(begin(0, NULL, SET));
	use_swap(SET);
}
END_TEST

START_TEST(swap_that_is_not_fit_is_refused)
{
	unsigned fds = count_fds();
	struct vmf_config c;

	make_file(0640, SET);
	c = configure(0, path, SET);
	expect(vmf_init(&c), -EPERM);
	make_file(0600, 63);
	c = configure(0, path, 0);
	expect(vmf_init(&c), -EINVAL);
	c = configure(0, NULL, 63);
	expect(vmf_init(&c), -EINVAL);
	c = configure(0, dir, 0);
	expect(vmf_init(&c), -EINVAL);
	c = configure(0, "/dev/null", SET);
	expect(vmf_init(&c), -EINVAL);
	c = configure(0, "/nonexistent/swap", SET);
	expect(vmf_init(&c), -ENOENT);
	c = configure(VMF_CONFIG_IO_SYSCALLS | VMF_CONFIG_IO_URING, NULL, SET);
	expect(vmf_init(&c), -EINVAL);
	c = configure(16, NULL, SET);
	expect(vmf_init(&c), -EINVAL);
	expect(count_fds(), fds);
	/* The file that we have is nobody else's. */
	make_file(0600, SET);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	check(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0);
	c = configure(0, path, SET);
	expect(vmf_init(&c), -EBUSY);
	close(fd);
	check(begin(0, path, SET));
	fd = open(path, O_RDWR | O_CLOEXEC);
	check(flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK);
	close(fd);
	use_swap(SET);
	no_file();
}
END_TEST

START_TEST(programs_of_0_1_are_served)
{
	struct vmf_config c = configure(0, "/nonexistent", 1);
	struct vmf_stats s;

	memset(&s, 0x55, sizeof(s));
	c.size = offsetof(struct vmf_config, swap_file);
	expect(vmf_init(&c), 0);
	s.size = offsetof(struct vmf_stats, swap_size);
	expect(vmf_statistics(&s), 0);
	ck_assert_uint_eq(s.v_page_count, BUDGET);
	ck_assert_uint_eq(s.swap_size, UINT64_C(0x5555555555555555));
	ck_assert_uint_eq(s.size, offsetof(struct vmf_stats, swap_size));
	s.size += 8;
	expect(vmf_statistics(&s), -EINVAL);
	stop();
	c.size += 4;
	expect(vmf_init(&c), -EINVAL);
}
END_TEST

int
main(void)
{
	const int n = (int)nitems(engines);
	Suite *s = suite_create("api/swap");
	TCase *tc = tcase_create("working set");

	tcase_set_timeout(tc, 100);
	tcase_add_loop_test(tc, four_budgets_of_memory_keep_every_byte, 0, 2 * n);
	tcase_add_loop_test(tc, snapshots_of_more_than_memory_keep_theirs, 0, n);
	suite_add_tcase(s, tc);
#ifdef VMF_TESTING
	tc = tcase_create("faults");
	tcase_set_timeout(tc, 100);
	tcase_add_loop_test(tc, one_fault_in_twenty_loses_nothing, 0, 2 * n);
	tcase_add_loop_test(tc, a_full_disk_keeps_pages_in_memory_and_says_so, 0, n);
	tcase_add_loop_test(tc, what_cannot_be_read_is_a_signal_and_comes_back_later, 0, n);
	suite_add_tcase(s, tc);
#endif
	tc = tcase_create("configuration");
	tcase_set_timeout(tc, 100);
	tcase_add_loop_test(tc, full_swap_is_an_error_in_bounded_time, 0, n);
	tcase_add_test(tc, without_swap_there_is_none);
	tcase_add_test(tc, a_file_may_be_given);
	tcase_add_test(tc, a_directory_may_be_given_and_keeps_nothing);
	tcase_add_test(tc, swap_that_is_not_fit_is_refused);
	tcase_add_test(tc, programs_of_0_1_are_served);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
