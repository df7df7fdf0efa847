/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Whether the program has other threads: yes must never be said wrongly, no should not be.
 */

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kern/alone.h"
#include "kern/probe.h"
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

/*
 * Signals that are sent to the process: to the program's threads, and where it has them blocked they wait
 */

static const int synchronous[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP };
#define NSYNCHRONOUS	(sizeof(synchronous) / sizeof(synchronous[0]))

static volatile struct {
	int sig;
	pid_t tid;
} came;

static void
comes(int sig)
{
	came.sig = sig;
	came.tid = gettid();
}

/* It is a thread's while it begins, and has what its maker blocked: the maker waits. */
static void
begins_late(const char *place)
{
	if (strcmp(place, "alone: begins") == 0)
		usleep(20000);
}

/* Number of threads, but for the caller; each has all of these blocked. */
static int
deaf_threads(void)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	int n = 0;

	check(d != NULL);
	while ((e = readdir(d)) != NULL) {
		unsigned long long blocked = 0;
		char path[300], line[200];
		FILE *f;

		if (e->d_name[0] == '.' || atoi(e->d_name) == gettid())
			continue;
		(void)snprintf(path, sizeof(path), "/proc/self/task/%s/status", e->d_name);
		f = fopen(path, "re");
		check(f != NULL);
		while (fgets(line, sizeof(line), f) != NULL)
			(void)sscanf(line, "SigBlk: %llx", &blocked);
		fclose(f);
		for (size_t i = 0; i < NSYNCHRONOUS; i++)
			if (!(blocked & 1ull << (synchronous[i] - 1)))
				die("thread %s of the library's takes signal %d", e->d_name, synchronous[i]);
		n++;
	}
	closedir(d);
	return n;
}

START_TEST(what_is_sent_is_not_the_library_s)
{
	struct vmf_config config = VMF_CONFIG_INIT;
	struct sigaction act = { .sa_handler = comes };
	sigset_t set, pending;
	char *p;

	config.flags = VMF_CONFIG_QUIET | (_i ? VMF_CONFIG_IO_SYSCALLS : 0);
	probe_hook = begins_late;
	expect(vmf_init(&config), 0);
	check(deaf_threads() == alone_number() && alone_number() > 0);
	probe_hook = NULL;
	p = alloc(8);
	for (size_t i = 0; i < NSYNCHRONOUS; i++) {
		int sig = synchronous[i];

		if (sig == SIGSEGV || sig == SIGBUS)
			expect(vmf_sigaction(sig, &act, NULL), 0);
		else
			check(sigaction(sig, &act, NULL) == 0);
		fill_pages(p, 8, i);
		came.sig = 0;
		sigemptyset(&set);
		sigaddset(&set, sig);
		check(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
		check(kill(getpid(), sig) == 0);
		usleep(20000);			/* for who would take it */
		check(sigpending(&pending) == 0 && sigismember(&pending, sig) == 1);
		check(came.sig == 0);
		check(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
		check(came.sig == sig && came.tid == getpid());
		check_pages(p, 8, i);
	}
	stop();
}
END_TEST

static int
refuse(enum sys_call which)
{
	return which == SYS_CALL_STAT ? -EACCES : 0;
}

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
	tcase_add_loop_test(tc, what_is_sent_is_not_the_library_s, 0, 2);
	tcase_add_test(tc, not_to_know_is_not_to_be_alone);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
