/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What a program sees that the shim is preloaded into, with memory that is watched: the same as without.
 */

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../suite.h"
#include "which_gate.h"

#define PAGE	((size_t)4096)
#define SIZE	((size_t)6 << 20)		/* more than the limit that this runs with */
#define n_of(a)	((int)(sizeof(a) / sizeof((a)[0])))

static void
fill(char *p, size_t n, uint32_t key)
{
	for (size_t i = 0; i < n; i += sizeof(key), key = key * 1664525 + 1013904223)
		memcpy(p + i, &key, sizeof(key));
}

static bool
is_filled(const char *p, size_t n, uint32_t key)
{
	for (size_t i = 0; i < n; i += sizeof(key), key = key * 1664525 + 1013904223)
		if (memcmp(p + i, &key, sizeof(key)) != 0)
			return false;
	return true;
}

static bool
is_zero(const char *p, size_t n)
{
	size_t i = 0;

	while (i < n && p[i] == 0)
		i++;
	return i == n;
}

static void *
pages(size_t n)
{
	void *p = aligned_alloc(PAGE, n);

	ck_assert_ptr_nonnull(p);
	return p;
}

/* Run fn in a child.  => its exit status */
static int
child(bool (*fn)(void *), void *arg)
{
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		_exit(fn(arg) ? 0 : 1);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

static bool
use_memory(void *arg)
{
	char *p = arg != NULL ? arg : malloc(SIZE);

	if (arg != NULL && !is_filled(p, SIZE, 1))
		return false;
	fill(p, SIZE, 2);
	return is_filled(p, SIZE, 2);
}

/*
 * Descriptors
 */

START_TEST(the_lowest_descriptor_is_the_programs)
{
	int fd = open("/dev/null", O_RDONLY);

	ck_assert_int_lt(fd, 20);
	close(fd);
}
END_TEST

static bool
close_each(void *arg)
{
	(void)arg;
	for (int fd = 3; fd < 70000; fd++)
		close(fd);
	return use_memory(NULL) && open("/dev/null", O_RDONLY) == 3;
}

static bool
close_ranges(void *arg)
{
	(void)arg;
	return syscall(SYS_close_range, 3u, ~0u, 0u) == 0 && use_memory(NULL) && open("/dev/null", O_RDONLY) == 3 &&
	    syscall(SYS_close_range, 9u, 8u, 0u) == -1 && errno == EINVAL;
}

static bool
close_from(void *arg)
{
	(void)arg;
	closefrom(3);
	return use_memory(NULL) && open("/dev/null", O_RDONLY) == 3;
}

/* dup2() onto every number, but for our own three. */
static bool
replace_each(void *arg)
{
	int refused = 0;

	(void)arg;
	for (int fd = 3; fd < 2048; fd++)
		refused += dup2(0, fd) == -1 && errno == EBUSY;
	return refused > 0 && use_memory(NULL);
}

START_TEST(memory_outlives_descriptors)
{
	static bool (*const way[])(void *) = { close_each, close_ranges, close_from, replace_each };

	ck_assert_int_eq(child(way[_i], NULL), 0);
}
END_TEST

static bool
daemonize(void *arg)
{
	int result[2];
	char c = 'n';

	(void)arg;
	if (pipe(result) != 0)
		return false;
	if (fork() != 0) {
		close(result[1]);
		return read(result[0], &c, 1) == 1 && c == 'y';
	}
	setsid();
	if (fork() != 0)
		_exit(0);
	for (int fd = 0; fd < 2048; fd++)
		if (fd != result[1])
			close(fd);
	c = use_memory(NULL) ? 'y' : 'n';
	(void)!write(result[1], &c, 1);
	_exit(0);
}

START_TEST(a_daemon_has_memory)
{
	ck_assert_int_eq(child(daemonize, NULL), 0);
}
END_TEST

/*
 * Fork
 */

START_TEST(a_child_has_a_copy)
{
	char *p = pages(SIZE);

	fill(p, SIZE, 1);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(child(use_memory, p), 0);
	ck_assert(is_filled(p, SIZE, 1));
	free(p);
}
END_TEST

static _Atomic bool over;

struct pair {
	pthread_t thread;
	_Atomic uint64_t *first, *second;
};

static void *
write_pair(void *arg)
{
	struct pair *w = arg;

	for (uint64_t n = 1; !over; n++) {
		*w->first = n;
		*w->second = n;
		/* ... and the allocator's locks are busy, and libc's list of files. */
		free(malloc(n % 5000));
		if (n % 64 == 0) {
			FILE *f = fopen("/dev/null", "r");

			if (f != NULL)
				fclose(f);
		}
	}
	return NULL;
}

static bool
look_at_pairs(void *arg)
{
	struct pair *w = arg;

	for (int i = 0; i < 3; i++) {
		uint64_t second = *w[i].second, first = *w[i].first;

		if (first != second && first != second + 1)
			return false;
	}
	return use_memory(NULL) && fopen("/dev/null", "r") != NULL;
}

START_TEST(a_child_sees_one_instant)
{
	struct pair w[3];
	char *p = pages(SIZE);

	over = false;
	memset(p, 0, SIZE);
	for (int i = 0; i < n_of(w); i++) {
		w[i].first = (void *)(p + (i % 2 ? (size_t)i * PAGE : SIZE - PAGE * (size_t)(i + 1)));
		w[i].second = (void *)(p + (i % 2 ? SIZE - PAGE * (size_t)(i + 1) : (size_t)i * PAGE));
		ck_assert_int_eq(pthread_create(&w[i].thread, NULL, write_pair, &w[i]), 0);
	}
	for (int i = 0; i < 30; i++)
		ck_assert_int_eq(child(look_at_pairs, w), 0);
	over = true;
	for (int i = 0; i < n_of(w); i++)
		ck_assert_int_eq(pthread_join(w[i].thread, NULL), 0);
	free(p);
}
END_TEST

struct waiter {
	int ends[2];
	char *buffer;		/* on the heap */
};

static void *
read_it(void *arg)
{
	struct waiter *w = arg;

	return (void *)(uintptr_t)(read(w->ends[0], w->buffer, SIZE / 2) == (ssize_t)sizeof("late"));
}

/* A call that has its buffer held goes on over a fork: what comes is the parent's. */
START_TEST(a_fork_during_a_read)
{
	struct waiter w;
	pthread_t thread;
	void *good;

	w.buffer = pages(SIZE / 2);
	fill(w.buffer, SIZE / 2, 1);
	ck_assert_int_eq(pipe(w.ends), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, read_it, &w), 0);
	usleep(20000);
	for (int i = 0; i < 4; i++) {
		pid_t pid = fork();
		int status;

		if (pid == 0)
			_exit(is_filled(w.buffer, SIZE / 2, 1) && use_memory(NULL) ? 0 : 1);
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_int_eq(status, 0);
	}
	ck_assert_int_eq(write(w.ends[1], "late", sizeof("late")), (ssize_t)sizeof("late"));
	ck_assert_int_eq(pthread_join(thread, &good), 0);
	ck_assert(good != NULL);
	ck_assert_str_eq(w.buffer, "late");
	memset(w.buffer, 1, 8);
	free(w.buffer);
	close(w.ends[0]);
	close(w.ends[1]);
}
END_TEST

/* What a child does that has been told to by a byte: its own memory is as it was when it was made. */
static void
look_later(int told, char *heap, char *mapped, uint32_t key)
{
	char c;

	_exit(read(told, &c, 1) == 1 && is_filled(heap, SIZE, key) && is_filled(mapped, SIZE / 2, 5) &&
	    use_memory(heap + SIZE) ? 0 : 1);
}

START_TEST(two_children_while_the_parent_changes_everything)
{
	char *p = pages(2 * SIZE), *m = mmap(NULL, SIZE / 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int ends[2], status;
	pid_t pid[2];

	ck_assert_ptr_ne(m, MAP_FAILED);
	ck_assert_int_eq(pipe(ends), 0);
	fill(m, SIZE / 2, 5);
	fill(p + SIZE, SIZE, 1);
	for (uint32_t i = 0; i < 2; i++) {
		fill(p, SIZE, 10 + i);
		pid[i] = fork();
		if (pid[i] == 0)
			look_later(ends[0], p, m, 10 + i);
	}
	/* Unmapped, and paged out many times over. */
	ck_assert_int_eq(munmap(m, SIZE / 2), 0);
	for (uint32_t i = 0; i < 3; i++)
		fill(p, 2 * SIZE, 20 + i);
	ck_assert_int_eq(write(ends[1], "xx", 2), 2);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(waitpid(pid[i], &status, 0), pid[i]);
		ck_assert_int_eq(status, 0);
	}
	ck_assert(is_filled(p, 2 * SIZE, 22));
	free(p);
	close(ends[0]);
	close(ends[1]);
}
END_TEST

/* The parent of the one that looks is killed, and so is its sister. */
START_TEST(either_side_may_be_killed)
{
	char *p = pages(2 * SIZE), result = 'n';
	int go[2], answer[2], status;
	pid_t parent;

	ck_assert_int_eq(pipe(go), 0);
	ck_assert_int_eq(pipe(answer), 0);
	fill(p, 2 * SIZE, 1);
	parent = fork();
	if (parent == 0) {
		pid_t killed, looks;

		looks = fork();
		if (looks == 0) {
			(void)!read(go[0], &result, 1);
			result = is_filled(p, 2 * SIZE, 1) && use_memory(NULL) ? 'y' : 'n';
			(void)!write(answer[1], &result, 1);
			_exit(0);
		}
		killed = fork();
		if (killed == 0)
			for (uint32_t i = 2;; i++)
				fill(p, 2 * SIZE, i);
		fill(p, SIZE, 3);
		if (kill(killed, SIGKILL) != 0 || waitpid(killed, &status, 0) != killed ||
		    !is_filled(p, SIZE, 3))
			_exit(1);
		(void)!write(answer[1], "k", 1);
		for (uint32_t i = 4;; i++)
			fill(p, 2 * SIZE, i);
	}
	ck_assert_int_eq(read(answer[0], &result, 1), 1);
	ck_assert_int_eq(result, 'k');
	ck_assert_int_eq(kill(parent, SIGKILL), 0);
	ck_assert_int_eq(waitpid(parent, &status, 0), parent);
	ck_assert_int_eq(write(go[1], "x", 1), 1);
	ck_assert_int_eq(read(answer[0], &result, 1), 1);
	ck_assert_int_eq(result, 'y');
	ck_assert(is_filled(p, 2 * SIZE, 1));
	free(p);
}
END_TEST

static _Atomic int calls;

static void
count(void)
{
	calls++;
	free(malloc(100));
}

static bool
handlers_ran(void *arg)
{
	(void)arg;
	return calls == 2 && use_memory(NULL);
}

START_TEST(handlers_of_the_programs_may_allocate)
{
	ck_assert_int_eq(pthread_atfork(count, count, count), 0);
	ck_assert_int_eq(child(handlers_ran, NULL), 0);
	ck_assert_int_eq(calls, 2);
}
END_TEST

START_TEST(a_raw_fork_is_one)
{
	char *p = pages(SIZE);
	int status;
	long pid;

	fill(p, SIZE, 1);
	pid = syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L);
	if (pid == 0)
		_exit(use_memory(p) ? 0 : 1);
	ck_assert_int_eq(waitpid((pid_t)pid, &status, 0), (pid_t)pid);
	ck_assert_int_eq(status, 0);
	ck_assert(is_filled(p, SIZE, 1));
	free(p);
}
END_TEST

START_TEST(exec_starts_afresh)
{
	char *argv[] = { strdup("/bin/sh"), strdup("-c"), malloc(100000), NULL };
	pid_t pid;
	int status;

	strcpy(argv[2], "exit 7;");
	memset(argv[2] + 7, ' ', 90000);
	argv[2][90007] = '\0';
	pid = vfork();
	if (pid == 0) {
		execv(argv[0], argv);
		_exit(1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 7 << 8);
	ck_assert_int_eq(system("test $((3 + 4)) = 7") , 0);
}
END_TEST

static bool
change_identity(void *arg)
{
	(void)arg;
	return setgid(getgid()) == 0 && setuid(getuid()) == 0 && use_memory(NULL);
}

START_TEST(all_threads_change_identity)
{
	ck_assert_int_eq(child(change_identity, NULL), 0);
	ck_assert_int_eq(setuid(getuid()), 0);
}
END_TEST

/*
 * Signals that are sent to the process
 */

static const int synchronous[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP };

/* Threads, the caller not counted, that would take one of these. */
static int
takers(void)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	int n = 0;

	while (d != NULL && (e = readdir(d)) != NULL) {
		unsigned long long blocked = ~0ull;
		char path[300], line[200];
		FILE *f;

		(void)snprintf(path, sizeof(path), "/proc/self/task/%s/status", e->d_name);
		if (e->d_name[0] == '.' || atoi(e->d_name) == gettid() || (f = fopen(path, "re")) == NULL)
			continue;
		while (fgets(line, sizeof(line), f) != NULL)
			(void)sscanf(line, "SigBlk: %llx", &blocked);
		fclose(f);
		for (int i = 0; i < n_of(synchronous); i++)
			n += (blocked & 1ull << (synchronous[i] - 1)) == 0;
	}
	if (d != NULL)
		closedir(d);
	return n;
}

static volatile int taken;

static void
take(int sig)
{
	(void)sig;
	taken++;
}

static bool
kill_oneself(void *arg)
{
	(void)arg;
	if (takers() != 0)
		return false;
	/* A signal of libc's to every thread; when it is back from that it is as before. */
	if (setuid(getuid()) != 0)
		return false;
	for (int tries = 0; takers() != 0; tries++, usleep(1000))
		if (tries == 10000)
			return false;
	for (int i = 0; i < n_of(synchronous); i++) {
		signal(synchronous[i], take);
		if (kill(getpid(), synchronous[i]) != 0 || taken != i + 1)
			return false;
	}
	return true;
}

/* It is there when kill() returns: no thread but the program's takes it. */
START_TEST(a_signal_to_oneself_has_come)
{
	ck_assert_int_eq(child(kill_oneself, NULL), 0);
	ck_assert(kill_oneself(NULL));
}
END_TEST

static void *
leave(void *arg)
{
	usleep((useconds_t)(uintptr_t)arg);
	return malloc(100);
}

static void
say_so(void)
{
	_exit(7);		/* exit() was called */
}

/* All threads end, the first one first; some of them together. */
static bool
leave_one_by_one(void *arg)
{
	pthread_t t;

	(void)arg;
	(void)atexit(say_so);
	for (int i = 0; i < 8; i++)
		if (pthread_create(&t, NULL, leave, (void *)(uintptr_t)(i % 2 * 2000)) != 0)
			return false;
	pthread_exit(NULL);
}

START_TEST(the_last_thread_ends_the_process)
{
	for (int i = 0; i < 20; i++)
		ck_assert_int_eq(child(leave_one_by_one, NULL), 7 << 8);
}
END_TEST

/*
 * Calls about memory, on the heap
 */

static volatile sig_atomic_t caught;
static volatile char *guard;

static void
on_fault(int sig, siginfo_t *si, void *context)
{
	(void)context;
	caught = sig == SIGSEGV && si->si_addr == (void *)(uintptr_t)guard && si->si_code == SEGV_ACCERR;
	if (mprotect((void *)(uintptr_t)guard, PAGE, PROT_READ | PROT_WRITE) != 0)
		_exit(9);
}

START_TEST(pages_can_be_protected)
{
	struct sigaction act = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO }, old;
	char *p = pages(4 * PAGE);

	fill(p, 4 * PAGE, 1);
	guard = p + PAGE;
	ck_assert_int_eq(sigaction(SIGSEGV, &act, &old), 0);
	ck_assert_ptr_eq(old.sa_handler, SIG_DFL);
	ck_assert_int_eq(mprotect(p + PAGE, PAGE, PROT_NONE), 0);
	caught = 0;
	guard[0] = guard[0];
	ck_assert_int_eq(caught, 1);
	ck_assert(is_filled(p, 4 * PAGE, 1));
	ck_assert_int_eq(mprotect(p + PAGE, PAGE, PROT_READ), 0);
	caught = 0;
	guard[0] = guard[0];
	ck_assert_int_eq(caught, 1);
	ck_assert_int_eq(sigaction(SIGSEGV, &old, NULL), 0);
	free(p);
}
END_TEST

START_TEST(pages_can_be_given_up)
{
	char *p = pages(4 * PAGE);

	fill(p, 4 * PAGE, 1);
	ck_assert_int_eq(madvise(p + PAGE, 2 * PAGE, MADV_DONTNEED), 0);
	ck_assert(is_zero(p + PAGE, 2 * PAGE));
	ck_assert(is_filled(p, PAGE, 1));
	ck_assert_int_eq(madvise(p, PAGE, 12345), -1);
	ck_assert_int_eq(errno, EINVAL);
	free(p);
}
END_TEST

START_TEST(pages_can_be_locked)
{
	char *p = pages(4 * PAGE);
	unsigned char vec[4];

	fill(p, 4 * PAGE, 1);
	ck_assert_int_eq(mlock(p + 10, 3 * PAGE), 0);
	ck_assert_int_eq(mincore(p, 4 * PAGE, vec), 0);
	for (int i = 0; i < n_of(vec); i++)
		ck_assert_int_eq(vec[i] & 1, 1);
	ck_assert_int_eq(mlock(p, PAGE), 0);
	ck_assert_int_eq(munlock(p, 4 * PAGE), 0);
	ck_assert_int_eq(munlock(p, 4 * PAGE), 0);
	ck_assert(is_filled(p, 4 * PAGE, 1));
	free(p);
}
END_TEST

/*
 * Mappings
 */

static char *
anonymous(size_t n)
{
	char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(p, MAP_FAILED);
	return p;
}

START_TEST(mappings_grow_and_shrink)
{
	size_t n = 64 * PAGE;
	char *p = anonymous(n), *q;

	fill(p, n, 1);
	for (int i = 0; i < 5; i++) {
		q = mremap(p, n, 2 * n, MREMAP_MAYMOVE);
		ck_assert_ptr_ne(q, MAP_FAILED);
		ck_assert(is_filled(q, n, 1));
		ck_assert(is_zero(q + n, n));
		fill(q, 2 * n, 1);
		p = q;
		n *= 2;
	}
	q = mremap(p, n, n / 2, 0);
	ck_assert_ptr_eq(p, q);
	ck_assert(is_filled(q, n / 2, 1));
	ck_assert_int_eq(munmap(q, n / 2), 0);
	ck_assert_int_eq(mprotect(q, PAGE, PROT_READ), -1);
	ck_assert_int_eq(errno, ENOMEM);
}
END_TEST

START_TEST(mappings_move)
{
	size_t n = 64 * PAGE;
	char *p = anonymous(n), *q;

	fill(p, n, 1);
	/* Something lies behind it, if not already. */
	(void)mmap(p + n, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	ck_assert_ptr_eq(mremap(p, n, 2 * n, 0), MAP_FAILED);
	ck_assert_int_eq(errno, ENOMEM);
	ck_assert_int_eq(mprotect(p, n, PROT_READ), 0);
	q = mremap(p, n, 2 * n, MREMAP_MAYMOVE);
	ck_assert_ptr_ne(q, MAP_FAILED);
	ck_assert_ptr_ne(q, p);
	ck_assert(is_filled(q, n, 1));
	ck_assert(is_zero(q + n, n));
	ck_assert_int_eq(mprotect(p, PAGE, PROT_READ), -1);
	ck_assert_int_eq(munmap(q, 2 * n), 0);
}
END_TEST

START_TEST(anything_can_be_mapped_over)
{
	size_t n = 64 * PAGE;
	char *p = anonymous(n), *q;
	int fd = open("/proc/self/exe", O_RDONLY);

	fill(p, n, 1);
	q = mmap(p + 16 * PAGE, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	ck_assert_ptr_eq(q, p + 16 * PAGE);
	memset(q, 7, 16 * PAGE);
	/* That is shared with a child; the rest is not. */
	if (fork() == 0) {
		memset(p, 9, n);
		_exit(0);
	}
	ck_assert_int_ge(wait(NULL), 0);
	ck_assert_int_eq(q[0], 9);
	ck_assert(is_filled(p, 16 * PAGE, 1));
	q = mmap(p + 32 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
	ck_assert_ptr_eq(q, p + 32 * PAGE);
	ck_assert_int_eq(memcmp(q, "\177ELF", 4), 0);
	ck_assert_ptr_eq(mmap(p, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), MAP_FAILED);
	ck_assert_int_eq(errno, EEXIST);
	q = mmap(p + 8 * PAGE, 48 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	ck_assert_ptr_eq(q, p + 8 * PAGE);
	ck_assert(is_zero(q, 48 * PAGE));
	ck_assert_int_eq(munmap(p, n), 0);
	close(fd);
}
END_TEST

START_TEST(files_are_mapped_privately)
{
	char path[] = "/tmp/vmfault-XXXXXX", *p, *q;
	int fd = mkstemp(path);
	size_t n = 100 * PAGE;

	ck_assert_int_ge(fd, 0);
	unlink(path);
	q = malloc(n);
	fill(q, n, 1);
	ck_assert_int_eq(pwrite(fd, q, n - 100, 0), (ssize_t)n - 100);
	p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	ck_assert_ptr_ne(p, MAP_FAILED);
	ck_assert_int_eq(memcmp(p, q, n - 100), 0);
	p[0] = 'x';
	p[n - 1] = 'y';
	ck_assert_int_eq(pread(fd, q, PAGE, 0), (ssize_t)PAGE);
	ck_assert_int_ne(q[0], 'x');
	ck_assert_int_eq(munmap(p, n), 0);
	ck_assert_ptr_eq(mmap(NULL, n, PROT_READ, MAP_PRIVATE, -1, 0), MAP_FAILED);
	ck_assert_int_eq(errno, EBADF);
	free(q);
	close(fd);
}
END_TEST

/*
 * System calls, on memory that does not fit
 */

START_TEST(transfers_larger_than_memory)
{
	char *p = pages(SIZE), *q = pages(SIZE);
	struct iovec v[2] = { { q, SIZE / 2 }, { q + SIZE / 2, SIZE / 2 } };
	char path[] = "/tmp/vmfault-XXXXXX";
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	unlink(path);
	fill(p, SIZE, 3);
	ck_assert_int_eq(write(fd, p, SIZE), (ssize_t)SIZE);
	memset(q, 0, SIZE);
	if (sees_functions_only()) {
		/* A vector may come short, as on a stream. */
		ssize_t n = preadv(fd, v, 2, 0);

		ck_assert_int_gt(n, 0);
		ck_assert_int_eq(pread(fd, q + n, SIZE - (size_t)n, n), (ssize_t)SIZE - n);
	} else {
		ck_assert_int_eq(preadv(fd, v, 2, 0), (ssize_t)SIZE);
	}
	ck_assert(is_filled(q, SIZE, 3));
	ck_assert_int_eq(read(fd, q, SIZE), 0);
	free(p);
	free(q);
	close(fd);
}
END_TEST

/* libc's own buffers, and what it hands to the kernel by itself, are on the heap. */
START_TEST(libc_uses_the_heap)
{
	char *line = NULL, *path, *cwd, *data = pages(SIZE);
	size_t cap = 0, n = 0, again = 0;
	FILE *f = tmpfile();
	DIR *dir;

	ck_assert_ptr_nonnull(f);
	for (int i = 0; i < 20000; i++)
		ck_assert_int_gt(fprintf(f, "line %d: %*d\n", i, i % 200, i), 0);
	rewind(f);
	for (int i = 0; i < 20000; i++) {
		char want[300];
		ssize_t len = getline(&line, &cap, f);

		ck_assert_int_eq(len, snprintf(want, sizeof(want), "line %d: %*d\n", i, i % 200, i));
		ck_assert_str_eq(line, want);
	}
	free(line);
	rewind(f);
	fill(data, SIZE, 9);
	ck_assert_uint_eq(fwrite(data, 1, SIZE, f), SIZE);
	rewind(f);
	memset(data, 0, SIZE);
	ck_assert_uint_eq(fread(data, 1, SIZE, f), SIZE);
	ck_assert(is_filled(data, SIZE, 9));
	fclose(f);
	free(data);

	dir = opendir("/usr/bin");
	ck_assert_ptr_nonnull(dir);
	while (readdir(dir) != NULL)
		n++;
	rewinddir(dir);
	while (readdir(dir) != NULL)
		again++;
	closedir(dir);
	ck_assert_uint_eq(n, again);
	ck_assert_uint_gt(n, 2);
	cwd = getcwd(NULL, 0);
	path = realpath(".", NULL);
	ck_assert_str_eq(cwd, path);
	free(cwd);
	free(path);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("shim");
	TCase *t = tcase_create("shim");

	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	tcase_add_test(t, the_lowest_descriptor_is_the_programs);
	tcase_add_loop_test(t, memory_outlives_descriptors, 0, 4);
	tcase_add_test(t, a_daemon_has_memory);
	tcase_add_test(t, a_child_has_a_copy);
	tcase_add_test(t, a_child_sees_one_instant);
	tcase_add_test(t, a_fork_during_a_read);
	tcase_add_test(t, two_children_while_the_parent_changes_everything);
	tcase_add_test(t, either_side_may_be_killed);
	tcase_add_test(t, handlers_of_the_programs_may_allocate);
	tcase_add_test(t, a_raw_fork_is_one);
	tcase_add_test(t, exec_starts_afresh);
	tcase_add_test(t, all_threads_change_identity);
	tcase_add_test(t, a_signal_to_oneself_has_come);
	if (!sees_functions_only())
		tcase_add_test(t, the_last_thread_ends_the_process);
	tcase_add_test(t, pages_can_be_protected);
	tcase_add_test(t, pages_can_be_given_up);
	tcase_add_test(t, pages_can_be_locked);
	tcase_add_test(t, mappings_grow_and_shrink);
	tcase_add_test(t, mappings_move);
	tcase_add_test(t, anything_can_be_mapped_over);
	tcase_add_test(t, files_are_mapped_privately);
	tcase_add_test(t, transfers_larger_than_memory);
	tcase_add_test(t, libc_uses_the_heap);
	return run_suite(s);
}
