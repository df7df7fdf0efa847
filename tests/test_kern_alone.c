/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Whether the program has other threads: yes must never be said wrongly, no should not be.
 */

#include <check.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kern/alone.h"
#include "kern/sys.h"
#include "suite.h"
#include "support.h"

static pthread_mutex_t idle = PTHREAD_MUTEX_INITIALIZER;

static void *
wait_idle(void *arg)
{
	pthread_mutex_lock(&idle);
	pthread_mutex_unlock(&idle);
	return arg;
}

/* A thread that was waited for may still be counted for a moment. */
static bool
alone_soon(void)
{
	uint64_t end = now_ms() + 5000;

	while (!alone() && now_ms() < end)
		usleep(200);
	return alone();
}

START_TEST(threads_of_the_program_count)
{
	pthread_t t;

	check(alone());
	pthread_mutex_lock(&idle);
	check(pthread_create(&t, NULL, wait_idle, NULL) == 0);
	check(!alone());
	if (_i == 1) {
		start(0, 0);
		check(!alone());
		stop();
		check(!alone());
	}
	pthread_mutex_unlock(&idle);
	check(pthread_join(t, NULL) == 0);
	check(alone_soon());
}
END_TEST

START_TEST(threads_of_the_library_do_not)
{
	struct vmf_config config = VMF_CONFIG_INIT;

	config.flags = VMF_CONFIG_QUIET | (_i ? VMF_CONFIG_IO_SYSCALLS : 0);
	for (int n = 0; n < 3; n++) {
		expect(vmf_init(&config), 0);
		check(alone());
		expect(vmf_fini(), 0);
		check(alone_soon());
	}
}
END_TEST

static int64_t
get(void *cookie, uint64_t offset, void *buf, size_t len)
{
	(void)cookie, (void)offset, (void)buf;
	return (int64_t)len;
}

/* Those that run callbacks of the user's may do anything. */
START_TEST(threads_of_a_user_pager_count)
{
	struct vmf_pager_ops ops = { .size = sizeof(ops), .get = get };
	vmf_pager_t pager;

	start(0, 0);
	check(alone());
	expect(vmf_pager_create(&ops, NULL, PG, 0, &pager), 0);
	check(!alone());
	expect(vmf_pager_release(pager), 0);
	stop();
	check(alone_soon());
}
END_TEST

static void
child(void *arg)
{
	(void)arg;
	check(alone());
}

START_TEST(a_forked_child_is_alone)
{
	pthread_t t;

	start(0, 0);
	pthread_mutex_lock(&idle);
	check(pthread_create(&t, NULL, wait_idle, NULL) == 0);
	expect_exit(in_child(child, NULL), 0);
	check(!alone());
	pthread_mutex_unlock(&idle);
	check(pthread_join(t, NULL) == 0);
	stop();
}
END_TEST

static int
refuse(enum sys_call which)
{
	return which == SYS_CALL_STAT ? -EACCES : 0;
}

/* The kernel's threads for io_uring, one of which reads a pipe that stays empty. */
START_TEST(threads_of_the_kernel_do_not_count_at_a_second_look)
{
	struct io_uring ring;
	struct io_uring_sqe *sqe;
	uint64_t end = now_ms() + 5000;
	pthread_t t;
	char c;
	int fds[2];

	check(pipe(fds) == 0);
	if (io_uring_queue_init(4, &ring, 0) != 0) {
		puts("skip: this case: no io_uring");
		return;
	}
	check(alone_but(0));
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_read(sqe, fds[0], &c, 1, 0);
	sqe->flags |= IOSQE_ASYNC;
	check(io_uring_submit(&ring) == 1);
	while (alone() && now_ms() < end)
		usleep(200);
	check(!alone());
	check(alone_but(0));
	pthread_mutex_lock(&idle);
	check(pthread_create(&t, NULL, wait_idle, NULL) == 0);
	check(!alone_but(0));
	check(alone_but(1));
	pthread_mutex_unlock(&idle);
	check(pthread_join(t, NULL) == 0);
	check(write(fds[1], "x", 1) == 1);
	io_uring_queue_exit(&ring);
}
END_TEST

START_TEST(not_to_know_is_not_to_be_alone)
{
	check(alone());
	sys_inject = refuse;
	check(!alone());
	sys_inject = NULL;
	check(alone());
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("kern_alone");
	TCase *tc = tcase_create("alone");

	if (!alone()) {
		puts("skip: this process has a thread of somebody's, or /proc does not say");
		return 77;
	}
	tcase_add_loop_test(tc, threads_of_the_program_count, 0, 2);
	tcase_add_loop_test(tc, threads_of_the_library_do_not, 0, 2);
	tcase_add_test(tc, threads_of_a_user_pager_count);
	tcase_add_test(tc, a_forked_child_is_alone);
	tcase_add_test(tc, threads_of_the_kernel_do_not_count_at_a_second_look);
	tcase_add_test(tc, not_to_know_is_not_to_be_alone);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
