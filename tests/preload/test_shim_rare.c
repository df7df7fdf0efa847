/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What few programs do with their memory, and what it must be like with memory that is watched: stacks in it,
 * locks in it whose owners die, calls about its pages, and pointers to it in odd places.
 */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "../suite.h"
#include "which_gate.h"

#define PAGE	((size_t)4096)
#define STACK	((size_t)128 << 10)

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef SYS_mseal
#define SYS_mseal 462
#endif

static void *
pages(size_t n)
{
	void *p = aligned_alloc(PAGE, n);

	ck_assert_ptr_nonnull(p);
	memset(p, 0, n);
	return p;
}

/* Nothing of it is mapped, until somebody touches it. */
static void
evict(void *p, size_t n)
{
	uintptr_t s = (uintptr_t)p & -PAGE, e = ((uintptr_t)p + n + PAGE - 1) & -PAGE;

	ck_assert_int_eq(madvise((void *)s, e - s, MADV_PAGEOUT), 0);
}

static volatile sig_atomic_t count;

static void
counting(int sig)
{
	(void)sig;
	count++;
}

static void
on_signal(int sig, void (*handler)(int), int flags)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = flags };

	sigemptyset(&sa.sa_mask);
	ck_assert_int_eq(sigaction(sig, &sa, NULL), 0);
}

/*
 * Stacks
 */

static ucontext_t context[2];

/* Each turn the pages that a handler's frame would go to are taken away, and a signal comes. */
static void
be_interrupted(void)
{
	uintptr_t here = (uintptr_t)__builtin_frame_address(0) & -PAGE;

	count = 0;
	for (int i = 0; i < 300; i++) {
		evict((void *)(here - 8 * PAGE), 8 * PAGE);
		(void)syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1);
	}
}

static void
coroutine(void)
{
	be_interrupted();
	(void)swapcontext(&context[1], &context[0]);
}

START_TEST(a_signal_comes_to_a_stack_on_the_heap)
{
	char *stack = pages(STACK);

	on_signal(SIGUSR1, counting, _i == 1 ? SA_RESTART : 0);
	ck_assert_int_eq(getcontext(&context[1]), 0);
	context[1].uc_stack = (stack_t){ .ss_sp = stack, .ss_size = STACK };
	makecontext(&context[1], coroutine, 0);
	ck_assert_int_eq(swapcontext(&context[0], &context[1]), 0);
	ck_assert_int_eq(count, 300);
	free(stack);
}
END_TEST

static void *
on_own_stack(void *arg)
{
	volatile char deep[64 << 10];

	for (size_t i = 0; i < sizeof(deep); i += PAGE)
		deep[i] = 1;
	be_interrupted();
	return count == 300 ? arg : NULL;
}

START_TEST(a_threads_stack_is_on_the_heap)
{
	char *stack = pages(4 * STACK);
	pthread_attr_t attr;
	pthread_t t;
	void *got;

	on_signal(SIGUSR1, counting, 0);
	pthread_attr_init(&attr);
	ck_assert_int_eq(pthread_attr_setstack(&attr, stack, 4 * STACK), 0);
	for (int i = 0; i < 5; i++) {
		evict(stack, 4 * STACK);
		ck_assert_int_eq(pthread_create(&t, &attr, on_own_stack, stack), 0);
		ck_assert_int_eq(pthread_join(t, &got), 0);
		ck_assert_ptr_eq(got, stack);
	}
	free(stack);
}
END_TEST

static bool
alternate_stack_works(char *stack)
{
	count = 0;
	for (int i = 0; i < 100; i++) {
		evict(stack, STACK);
		(void)syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1);
	}
	return count == 100;
}

START_TEST(an_alternate_stack_on_the_heap_is_one_in_a_child_too)
{
	char *stack = pages(STACK);
	stack_t ss = { .ss_sp = stack, .ss_size = STACK };
	int status;
	pid_t pid;

	on_signal(SIGUSR1, counting, SA_ONSTACK);
	ck_assert_int_eq(sigaltstack(&ss, NULL), 0);
	ck_assert(alternate_stack_works(stack));
	pid = fork();
	if (pid == 0)
		_exit(alternate_stack_works(stack) ? 0 : 1);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert(alternate_stack_works(stack));
	ss = (stack_t){ .ss_flags = SS_DISABLE };
	ck_assert_int_eq(sigaltstack(&ss, NULL), 0);
	free(stack);
}
END_TEST

/*
 * Locks whose owner dies
 */

static void *
die_with_it(void *arg)
{
	pthread_mutex_t *m = arg;

	ck_assert_int_eq(pthread_mutex_lock(m), 0);
	/* Elsewhere than what else there is in the process that ends. */
	evict(m, sizeof(*m));
	return NULL;
}

START_TEST(a_robust_mutex_tells_of_its_owners_death)
{
	pthread_mutex_t *m = pages(3 * PAGE);
	pthread_mutexattr_t a;
	pthread_t t;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
	pthread_mutexattr_setprotocol(&a, _i == 1 ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE);
	m = (void *)((char *)m + PAGE);
	for (int i = 0; i < 20; i++) {
		ck_assert_int_eq(pthread_mutex_init(m, &a), 0);
		ck_assert_int_eq(pthread_create(&t, NULL, die_with_it, m), 0);
		ck_assert_int_eq(pthread_join(t, NULL), 0);
		ck_assert_int_eq(pthread_mutex_trylock(m), EOWNERDEAD);
		ck_assert_int_eq(pthread_mutex_consistent(m), 0);
		ck_assert_int_eq(pthread_mutex_unlock(m), 0);
		ck_assert_int_eq(pthread_mutex_destroy(m), 0);
	}
}
END_TEST

static void *
wait_for_it(void *arg)
{
	return (void *)(intptr_t)pthread_mutex_lock(arg);
}

static void *
die_awaited(void *arg)
{
	pthread_t t;

	ck_assert_int_eq(pthread_mutex_lock(arg), 0);
	ck_assert_int_eq(pthread_create(&t, NULL, wait_for_it, arg), 0);
	usleep(20000);
	evict(arg, sizeof(pthread_mutex_t));
	return (void *)t;
}

START_TEST(who_waits_for_a_robust_mutex_is_woken)
{
	pthread_mutex_t *m = pages(PAGE);
	pthread_mutexattr_t a;
	pthread_t t;
	void *got;

	pthread_mutexattr_init(&a);
	pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
	ck_assert_int_eq(pthread_mutex_init(m, &a), 0);
	ck_assert_int_eq(pthread_create(&t, NULL, die_awaited, m), 0);
	ck_assert_int_eq(pthread_join(t, &got), 0);
	ck_assert_int_eq(pthread_join((pthread_t)got, &got), 0);
	ck_assert_int_eq((int)(intptr_t)got, EOWNERDEAD);
}
END_TEST

/*
 * Calls about pages
 */

/* Memory that is mapped for good: with pages that are not before and behind it, in the same range. */
static char *
between_nothing(size_t n)
{
	char *p = pages(n + 2 * PAGE);

	ck_assert_int_eq(munmap(p, PAGE), 0);
	ck_assert_int_eq(munmap(p + PAGE + n, PAGE), 0);
	return p + PAGE;
}

START_TEST(what_is_not_mapped_is_told_so)
{
	char *p = between_nothing(4 * PAGE);
	unsigned char vec[8];

	ck_assert_int_eq(msync(p, 4 * PAGE, MS_ASYNC), 0);
	ck_assert(msync(p + PAGE, 4 * PAGE, MS_ASYNC) == -1 && errno == ENOMEM);
	ck_assert(msync(p - PAGE, PAGE, MS_SYNC) == -1 && errno == ENOMEM);
	ck_assert(msync(p, PAGE, MS_SYNC | MS_ASYNC) == -1 && errno == EINVAL);
	ck_assert(mincore(p - PAGE, PAGE, vec) == -1 && errno == ENOMEM);
	ck_assert(mprotect(p + PAGE, 4 * PAGE, PROT_READ) == -1 && errno == ENOMEM);
	ck_assert(madvise(p + PAGE, 4 * PAGE, MADV_DONTNEED) == -1 && errno == ENOMEM);
	ck_assert(mremap(p + 4 * PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EFAULT);
}
END_TEST

START_TEST(more_can_be_populated_than_there_is_memory)
{
	size_t n = (size_t)6 << 20;
	char *p = pages(n);

	memset(p, 3, n);
	ck_assert_int_eq(madvise(p, n, MADV_POPULATE_WRITE), 0);
	ck_assert(p[0] == 3 && memcmp(p, p + 1, n - 1) == 0);
	free(p);
}
END_TEST

/* What would change the kernel's mappings behind our back is done by us, or not at all. */
START_TEST(protection_keys_and_seals_keep_off)
{
	char *p = pages(2 * PAGE);

	memset(p, 7, 2 * PAGE);
	evict(p, 2 * PAGE);
	ck_assert_int_eq((int)syscall(SYS_pkey_mprotect, p, PAGE, PROT_READ | PROT_WRITE, -1), 0);
	ck_assert_int_eq(p[9], 7);
	ck_assert_int_eq((int)syscall(SYS_pkey_mprotect, p, PAGE, PROT_READ, -1), 0);
	ck_assert_int_eq((int)read(open("/dev/zero", O_RDONLY), p, 1), -1);
	ck_assert_int_eq((int)syscall(SYS_pkey_mprotect, p, PAGE, PROT_READ | PROT_WRITE, -1), 0);
	ck_assert_int_eq((int)syscall(SYS_pkey_mprotect, p, PAGE, PROT_READ | PROT_WRITE, 1), -1);
	ck_assert_int_eq((int)syscall(SYS_mseal, p, PAGE, 0), -1);
	evict(p, 2 * PAGE);
	ck_assert_int_eq(p[9] + p[PAGE], 14);
	memset(p, 8, 2 * PAGE);
	ck_assert_int_eq(p[9] + p[PAGE], 16);
	free(p);
}
END_TEST

START_TEST(the_kernels_memory_can_be_moved_over_ours)
{
	char *p = between_nothing(4 * PAGE), *q;

	memset(p, 1, 4 * PAGE);
	q = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(q, MAP_FAILED);
	memset(q, 2, 2 * PAGE);
	ck_assert_ptr_eq(mremap(q, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + PAGE), p + PAGE);
	for (int i = 0; i < 100; i++) {
		evict(p, 4 * PAGE);
		ck_assert_int_eq(p[0] * 1000 + p[PAGE] * 100 + p[2 * PAGE] * 10 + p[3 * PAGE], 1221);
		usleep(100);
	}
}
END_TEST

/*
 * Pointers in odd places
 */

START_TEST(an_array_behind_what_an_ioctl_gets)
{
	char name[] = "/tmp/vmfault-XXXXXX", *at = pages(4 * PAGE);
	struct fiemap *map;
	int fd = mkstemp(name);

	ck_assert_int_ge(fd, 0);
	unlink(name);
	ck_assert_int_eq((int)write(fd, at, 4 * PAGE), (int)(4 * PAGE));
	fsync(fd);
	/* The struct is at the end of a page, and what it announces on the next. */
	map = (void *)(at + PAGE - sizeof(*map));
	map->fm_length = 4 * PAGE;
	map->fm_extent_count = 20;
	evict(at, 4 * PAGE);
	if (ioctl(fd, FS_IOC_FIEMAP, map) != 0)
		ck_assert_msg(errno == EOPNOTSUPP || errno == ENOTTY, "FIEMAP: %s", strerror(errno));
	else
		ck_assert_uint_ge(map->fm_mapped_extents, 1);
	close(fd);
	free(at);
}
END_TEST

START_TEST(another_name_for_our_own_memory)
{
	char *from = pages(2 * PAGE), *to = pages(2 * PAGE);
	struct iovec *v = pages(PAGE);

	memset(from, 5, 2 * PAGE);
	v[0] = (struct iovec){ to, 2 * PAGE };
	v[1] = (struct iovec){ from, 2 * PAGE };
	evict(from, 2 * PAGE);
	evict(to, 2 * PAGE);
	evict(v, PAGE);
	ck_assert_int_eq((int)process_vm_readv(getpid(), &v[0], 1, &v[1], 1, 0), (int)(2 * PAGE));
	ck_assert_int_eq(to[2 * PAGE - 1], 5);
	memset(from, 6, 2 * PAGE);
	evict(from, 2 * PAGE);
	evict(to, 2 * PAGE);
	ck_assert_int_eq((int)process_vm_writev(getpid(), &v[1], 1, &v[0], 1, 0), (int)(2 * PAGE));
	ck_assert_int_eq(to[0], 6);
}
END_TEST

/* A page that the network keeps after the call might be another's by the time it is sent. */
START_TEST(nobody_keeps_pages_after_a_call)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)), -1);
	ck_assert_int_eq(errno, EOPNOTSUPP);
	on = 0;
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)), 0);
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)), 0);
	close(fd);
}
END_TEST

static int pipe_ends[2];

/* In the child the interrupted read() goes on. */
static void
fork_here(int sig)
{
	(void)sig;
	count = fork();
}

START_TEST(a_read_goes_on_in_a_child_of_its_handler)
{
	char *p = pages(PAGE);
	int status;
	pid_t other;

	on_signal(SIGUSR1, fork_here, SA_RESTART);
	ck_assert_int_eq(pipe(pipe_ends), 0);
	other = fork();
	ck_assert_int_ge(other, 0);
	if (other == 0) {
		usleep(50000);
		kill(getppid(), SIGUSR1);
		usleep(200000);
		_exit(write(pipe_ends[1], "ab", 2) == 2 ? 0 : 1);
	}
	evict(p, PAGE);
	/* Each of the two gets one. */
	status = (int)read(pipe_ends[0], p, 1);
	if (count == 0)
		_exit(status == 1 && (p[0] == 'a' || p[0] == 'b') ? 0 : 1);
	ck_assert_int_eq(status, 1);
	ck_assert(p[0] == 'a' || p[0] == 'b');
	ck_assert_int_eq(waitpid(count, &status, 0), count);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(waitpid(other, &status, 0), other);
	ck_assert_int_eq(status, 0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("shim_rare");
	TCase *t = tcase_create("shim_rare");

	suite_add_tcase(s, t);
	tcase_add_loop_test(t, a_signal_comes_to_a_stack_on_the_heap, 0, 2);
	if (!sees_functions_only())
		tcase_add_test(t, a_threads_stack_is_on_the_heap);
	tcase_add_test(t, an_alternate_stack_on_the_heap_is_one_in_a_child_too);
	if (!sees_functions_only())
		tcase_add_loop_test(t, a_robust_mutex_tells_of_its_owners_death, 0, 2);
	tcase_add_test(t, who_waits_for_a_robust_mutex_is_woken);
	tcase_add_test(t, what_is_not_mapped_is_told_so);
	tcase_add_test(t, more_can_be_populated_than_there_is_memory);
	tcase_add_test(t, protection_keys_and_seals_keep_off);
	tcase_add_test(t, the_kernels_memory_can_be_moved_over_ours);
	if (!sees_functions_only())
		tcase_add_test(t, an_array_behind_what_an_ioctl_gets);
	if (!sees_functions_only())
		tcase_add_test(t, another_name_for_our_own_memory);
	tcase_add_test(t, nobody_keeps_pages_after_a_call);
	tcase_add_test(t, a_read_goes_on_in_a_child_of_its_handler);
	return run_suite(s);
}
