/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What vmf_publish() lets others see: the numbers of now when somebody asks, the same that
 * vmf_statistics() has, by a daemon that still does its work.
 */

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fork.h"
#include "kern/sys.h"
#include "suite.h"
#include "support.h"
#include "vm_publish.h"

#if defined(__SANITIZE_THREAD__)
#define THREAD_SANITIZED	true
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZED	true
#endif
#endif
#ifndef THREAD_SANITIZED
#define THREAD_SANITIZED	false
#endif

/* The descriptor of a process's page, or -1: what a watcher does. */
static int
open_page(pid_t pid)
{
	char dir[64], path[320], to[64];
	struct dirent *d;
	int fd = -1;
	DIR *fds;

	snprintf(dir, sizeof(dir), "/proc/%d/fd", (int)pid);
	fds = opendir(dir);
	check(fds != NULL);
	while (fd < 0 && (d = readdir(fds)) != NULL) {
		ssize_t n;

		snprintf(path, sizeof(path), "%s/%s", dir, d->d_name);
		n = readlink(path, to, sizeof(to) - 1);
		if (n > 0 && strncmp(to, "/memfd:" PUBLISH_NAME " ", strlen("/memfd:" PUBLISH_NAME " ")) == 0)
			fd = open(path, O_RDWR | O_CLOEXEC);
	}
	closedir(fds);
	return fd;
}

static struct publish_page *
map_page(pid_t pid)
{
	struct publish_page *p;
	int fd = open_page(pid);

	check(fd >= 0);
	p = mmap(NULL, PUBLISH_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(p != MAP_FAILED);
	check(close(fd) == 0);
	check(p->magic == PUBLISH_MAGIC && p->version == PUBLISH_VERSION);
	return p;
}

/* Ask for new numbers, and wait for them; false: none within so many milliseconds. */
static bool
ask(struct publish_page *p, uint64_t ms)
{
	uint32_t want = atomic_fetch_add(&p->bell, 1) + 1, got;
	struct timespec ts = { (time_t)(ms / 1000), (long)(ms % 1000) * 1000000 };

	syscall(SYS_futex, &p->bell, FUTEX_WAKE, 1, NULL, NULL, 0);
	while ((int32_t)((got = atomic_load(&p->answered)) - want) < 0)
		if (syscall(SYS_futex, &p->answered, FUTEX_WAIT, got, &ts, NULL, 0) != 0 && errno == ETIMEDOUT)
			return false;
	return true;
}

static uint64_t
number(const struct publish_page *p, const char *name)
{
	for (uint32_t i = 0; i < p->n; i++)
		if (strcmp(p->number[i].name, name) == 0)
			return atomic_load(&p->number[i].value);
	die("no number %s", name);
}

static uint64_t own = 42, other = 7;
static const struct vmf_counter counters[] = { { "own", &own }, { "other_1", &other } };

START_TEST(every_statistic_has_its_name)
{
	struct vmf_stats s;
	size_t n = sizeof(s) / sizeof(uint64_t) - 1;

	check(strcmp(vmf_statistics_name(0), "v_vm_faults") == 0);
	check(strcmp(vmf_statistics_name(offsetof(struct vmf_stats, mappings) / sizeof(uint64_t) - 1), "mappings") == 0);
	check(strcmp(vmf_statistics_name(n - 1), "frames_superseded") == 0);
	check(vmf_statistics_name(n) == NULL);
	check(vmf_statistics_name(SIZE_MAX) == NULL);
}
END_TEST

START_TEST(it_must_be_running_and_asked_for_rightly)
{
	struct vmf_counter c[VMF_COUNTERS_MAX + 1];

	expect(vmf_publish(NULL, 0), -ENODEV);
	start(0, 0);
	expect(vmf_publish(NULL, 1), -EINVAL);
	for (size_t i = 0; i < nitems(c); i++)
		c[i] = (struct vmf_counter){ "x", &own };
	expect(vmf_publish(c, nitems(c)), -EINVAL);
	c[1].value = NULL;
	expect(vmf_publish(c, 2), -EINVAL);
	c[1].value = (uint64_t *)(void *)alloc(1);
	expect(vmf_publish(c, 2), -EINVAL);
	c[1].value = (uint64_t *)((uintptr_t)&own + 1);
	expect(vmf_publish(c, 2), -EINVAL);
	c[1] = (struct vmf_counter){ "", &own };
	expect(vmf_publish(c, 2), -EINVAL);
	c[1] = (struct vmf_counter){ "a b", &own };
	expect(vmf_publish(c, 2), -EINVAL);
	memset(c[1].name, 'a', sizeof(c[1].name));
	expect(vmf_publish(c, 2), -EINVAL);
	c[1].name[23] = '\0';
	expect(vmf_publish(c, VMF_COUNTERS_MAX), 0);
	expect(vmf_publish(NULL, 0), -EALREADY);
	stop();
	expect(vmf_publish(NULL, 0), -ENODEV);
	start(0, 0);
	expect(vmf_publish(NULL, 0), 0);
	stop();
}
END_TEST

START_TEST(numbers_are_those_of_vmf_statistics)
{
	struct vmf_stats s = { .size = sizeof(s) };
	struct publish_page *p;
	vmf_snapshot_t snapshot;
	char *m;

	start(0, 0);
	expect(vmf_publish(counters, 2), 0);
	p = map_page(getpid());
	check(p->pid == (uint32_t)getpid());
	check(strcmp(p->release, vmf_version()) == 0);
	check(p->n == sizeof(s) / sizeof(uint64_t) - 1 + 2);
	ck_assert_uint_eq(number(p, "own"), 42);
	ck_assert_uint_eq(number(p, "v_zfod"), 0);

	m = alloc(100);
	memset(m, 1, 100 * PG);
	snapshot = snap(m, 100);
	m[0] = 2;
	__atomic_store_n(&own, 43, __ATOMIC_RELAXED);
	check(ask(p, 10000));
	expect(vmf_statistics(&s), 0);
	ck_assert_uint_eq(number(p, "v_zfod"), 100);
	ck_assert_uint_eq(number(p, "v_vm_faults"), s.v_vm_faults);
	ck_assert_uint_eq(number(p, "v_page_count"), s.v_page_count);
	ck_assert_uint_eq(number(p, "v_free_count"), s.v_free_count);
	ck_assert_uint_eq(number(p, "mappings"), s.mappings);
	ck_assert_uint_eq(number(p, "v_snapshots"), 1);
	ck_assert_uint_eq(number(p, "v_snapshot_ns"), s.v_snapshot_ns);
	ck_assert_uint_eq(number(p, "snapshot_ns_max"), s.v_snapshot_ns);
	ck_assert_uint_gt(s.v_snapshot_ns, 0);
	ck_assert_uint_eq(number(p, "own"), 43);
	ck_assert_uint_eq(number(p, "other_1"), 7);
	expect(vmf_snapshot_release(snapshot), 0);
	stop();
}
END_TEST

/* Who does not ask gets what was there; nothing is written, and nobody woken. */
START_TEST(nothing_happens_unless_somebody_asks)
{
	struct publish_page *p;
	uint64_t when;
	char *m;

	start(0, 0);
	expect(vmf_publish(NULL, 0), 0);
	p = map_page(getpid());
	check(ask(p, 10000));
	when = atomic_load(&p->when);
	m = alloc(10);
	memset(m, 1, 10 * PG);
	usleep(100000);
	check(atomic_load(&p->when) == when);
	ck_assert_uint_eq(number(p, "v_zfod"), 0);
	stop();
}
END_TEST

/* The bell and the daemon's work are one futex: neither may hide the other. */
START_TEST(the_daemon_pages_out_while_it_is_asked)
{
	struct vmf_config config = VMF_CONFIG_INIT;
	struct publish_page *p;
	uint64_t faults = 0, end;
	unsigned answers = 0;
	pid_t watcher;
	int status;
	char *m;

	config.memory = 256 * PG;
	config.swap_size = 4096 * PG;
	config.flags = VMF_CONFIG_QUIET;
	expect(vmf_init(&config), 0);
	expect(vmf_publish(NULL, 0), 0);
	p = map_page(getpid());
	watcher = fork();
	if (watcher == 0) {
		for (;;)
			(void)ask(p, 1000);
	}
	m = alloc(1024);
	for (end = now_ms() + 1500; now_ms() < end; faults++) {
		fill_pages(m, 1024, faults);
		check_pages(m, 1024, faults);
		answers += ask(p, 10000);
		check(number(p, "v_page_count") == 256);
		check(number(p, "v_pageouts") > 0);
	}
	check(answers == faults);
	check(kill(watcher, SIGKILL) == 0 && waitpid(watcher, &status, 0) == watcher);
	stop();
}
END_TEST

static _Atomic bool enough;

static void *
fault_on(void *arg)
{
	char *m = alloc(64);

	while (!atomic_load(&enough)) {
		memset(m, 1, 64 * PG);
		check(vmf_advise(m, 64 * PG, VMF_ADVICE_DONTNEED) == 0);
	}
	return arg;
}

/* A reader that keeps to the rules never sees half of the numbers: each page made is a page counted. */
START_TEST(numbers_belong_together)
{
	struct publish_page *p;
	pthread_t t;
	uint64_t before = 0;

	start(0, 0);
	expect(vmf_publish(counters, 2), 0);
	p = map_page(getpid());
	check(pthread_create(&t, NULL, fault_on, NULL) == 0);
	for (unsigned i = 0; i < 2000; i++) {
		uint32_t seq;
		uint64_t when, zfod;

		check(ask(p, 10000));
		do {
			seq = atomic_load(&p->seq);
			when = atomic_load(&p->when);
			zfod = number(p, "v_zfod");
			atomic_thread_fence(memory_order_acquire);
		} while ((seq & 1) != 0 || atomic_load(&p->seq) != seq);
		check(when <= sys_clock() && zfod >= before);
		before = zfod;
	}
	atomic_store(&enough, true);
	check(pthread_join(t, NULL) == 0);
	check(before > 0);
	stop();
}
END_TEST

static void
look_for_page(void *arg)
{
	(void)arg;
	check(open_page(getpid()) < 0);
}

START_TEST(a_forked_child_has_no_page)
{
	struct publish_page *p;
	unsigned fds = count_fds();

	start(0, 0);
	expect(vmf_publish(NULL, 0), 0);
	p = map_page(getpid());
	expect_exit(in_child(look_for_page, NULL), 0);
	check(ask(p, 10000));
	stop();
	check(open_page(getpid()) < 0);
	expect(count_fds(), fds);
}
END_TEST

/* A child that has the memory counts for itself, and can be watched. */
static void
be_watched(void *arg)
{
	char *m = arg;

	check_pages(m, 64, 3);
	check(open_page(getpid()) < 0);
	expect(vmf_publish(counters, 2), 0);
	check(ask(map_page(getpid()), 10000));
	ck_assert_uint_eq(number(map_page(getpid()), "v_zfod"), 0);
	ck_assert_uint_eq(number(map_page(getpid()), "own"), 42);
	fill_pages(m, 64, 4);
}

/* Who closes the library to fork waits for the daemon, which may be about to answer. */
START_TEST(forks_with_a_copy_do_not_wait_for_an_answer)
{
	struct publish_page *p;
	pid_t watcher;
	int status;
	char *m;

	start(0, 0);
	expect(vmf_publish(NULL, 0), 0);
	p = map_page(getpid());
	watcher = fork();
	if (watcher == 0)
		for (;;)
			(void)ask(p, 100);
	fork_enable(false, false);
	m = alloc(64);
	fill_pages(m, 64, 3);
	for (int i = 0; i < 50; i++)
		expect_exit(in_child(be_watched, m), 0);
	check_pages(m, 64, 3);
	check(ask(p, 10000));
	ck_assert_uint_ge(number(p, "v_zfod"), 64);
	check(kill(watcher, SIGKILL) == 0 && waitpid(watcher, &status, 0) == watcher);
	stop();
}
END_TEST

static enum sys_call failing;

static int
fail_it(enum sys_call which)
{
	return which == failing ? -ENOMEM : 0;
}

START_TEST(what_cannot_be_made_is_undone)
{
	static const enum sys_call calls[] = { SYS_CALL_MEMFD, SYS_CALL_FTRUNCATE, SYS_CALL_MMAP };
	unsigned fds;

	start(0, 0);
	fds = count_fds();
	failing = calls[_i];
	atomic_store(&sys_inject, fail_it);
	expect(vmf_publish(NULL, 0), -ENOMEM);
	atomic_store(&sys_inject, NULL);
	expect(count_fds(), fds);
	expect(vmf_publish(NULL, 0), 0);
	expect(count_fds(), fds + 1);
	check(ask(map_page(getpid()), 10000));
	stop();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("vm_publish");
	TCase *t = tcase_create("publish");

	suite_add_tcase(s, t);
	tcase_add_test(t, every_statistic_has_its_name);
	tcase_add_test(t, it_must_be_running_and_asked_for_rightly);
	tcase_add_test(t, numbers_are_those_of_vmf_statistics);
	tcase_add_test(t, nothing_happens_unless_somebody_asks);
	tcase_add_test(t, the_daemon_pages_out_while_it_is_asked);
	tcase_add_test(t, numbers_belong_together);
	tcase_add_test(t, a_forked_child_has_no_page);
	/* The thread sanitizer lets no child of a process with threads have any. */
	if (!THREAD_SANITIZED)
		tcase_add_test(t, forks_with_a_copy_do_not_wait_for_an_answer);
	tcase_add_loop_test(t, what_cannot_be_made_is_undone, 0, 3);
	return run_suite(s);
}
