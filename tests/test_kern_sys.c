/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * lib/kern/sys.c and assert.c: arguments arrive whole (64-bit offsets above
 * all), results are negative errno and errno is left alone, what is injected
 * happens, and the last words say what they should.
 */

#include "kern/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/stat.h>

#include "kern/assert.h"
#include "kern/types.h"
#include "test_kern.h"

#define MS	INT64_C(1000000)
#define FAR	(UINT64_C(5) << 32)		/* wrong in either half is another place */

static int fd;
static enum sys_call inject_call;
static int inject_result, inject_times, asked;

static void
setup(void)
{
	ck_assert_int_ge(fd = sys_memfd("test"), 0);
	errno = 4711;
}

static void
teardown(void)
{
	sys_inject = NULL;
	ck_assert_int_eq(errno, 4711);
	ck_assert_int_eq(sys_close(fd), 0);
	ck_assert_int_eq(sys_close(fd), -EBADF);
	ck_assert_int_eq(errno, 4711);
}

static int
injector(enum sys_call which)
{
	if (which != inject_call)
		return (0);
	asked++;
	return (inject_times-- > 0 ? inject_result : 0);
}

static void
inject(enum sys_call which, int result, int times)
{
	inject_call = which;
	inject_result = result;
	inject_times = times;
	asked = 0;
	sys_inject = injector;
}

START_TEST(offsets_have_64_bits)
{
	char buf[16] = "", *p;
	struct stat64 st;

	ck_assert_int_eq(sys_ftruncate(fd, FAR + 2 * PAGE_SIZE), 0);
	ck_assert_int_eq(sys_pwrite(fd, "far away", 8, FAR + 4), 8);
	ck_assert_int_eq(sys_pread(fd, buf, 8, FAR + 4), 8);
	ck_assert_str_eq(buf, "far away");
	ck_assert_int_eq(sys_pread(fd, buf, 8, 4), 8);
	ck_assert_mem_eq(buf, "\0\0\0\0\0\0\0\0", 8);
	ck_assert_int_eq(sys_pread(fd, buf, 8, FAR + 2 * PAGE_SIZE - 3), 3);
	ck_assert_int_eq(sys_pread(fd, buf, 8, FAR + 2 * PAGE_SIZE), 0);

	p = sys_mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, FAR);
	ck_assert(!sys_is_err(p));
	ck_assert_mem_eq(p + 4, "far away", 8);
	memset(p + PAGE_SIZE, 'x', PAGE_SIZE);
	ck_assert_int_eq(sys_pwrite(fd, "zero", 4, 0), 4);

	ck_assert_int_eq(sys_punch(fd, FAR, PAGE_SIZE), 0);
	ck_assert_mem_eq(p + 4, "\0\0\0\0\0\0\0\0", 8);
	ck_assert(p[PAGE_SIZE] == 'x');
	ck_assert_int_eq(sys_pread(fd, buf, 4, 0), 4);
	ck_assert_mem_eq(buf, "zero", 4);
	ck_assert_int_eq(sys_munmap(p, 2 * PAGE_SIZE), 0);

	/* A length beyond 32 bits; the size stays. */
	ck_assert_int_eq(sys_punch(fd, PAGE_SIZE, FAR + 9 * PAGE_SIZE), 0);
	ck_assert_int_eq(sys_pread(fd, buf, 1, FAR + PAGE_SIZE), 1);
	ck_assert(buf[0] == '\0');
	ck_assert_int_eq(sys_seek_data(fd, 0), 0);
	ck_assert_int_eq(sys_seek_data(fd, PAGE_SIZE), -ENXIO);
	ck_assert_int_eq(sys_pwrite(fd, "x", 1, FAR + PAGE_SIZE + 1), 1);
	ck_assert_int_eq(sys_seek_data(fd, PAGE_SIZE), (int64_t)(FAR + PAGE_SIZE));
	ck_assert_int_eq(sys_seek_data(fd, (int64_t)(FAR + PAGE_SIZE + 7)),
	    (int64_t)(FAR + PAGE_SIZE + 7));
	ck_assert_int_eq(fstat64(fd, &st), 0);
	ck_assert_int_eq((int64_t)st.st_size, (int64_t)(FAR + 2 * PAGE_SIZE));
	ck_assert_int_le(st.st_blocks, 16);
}
END_TEST

START_TEST(errors_are_negative_and_errno_is_left_alone)
{
	char c;
	void *p;

	p = sys_mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, -1, 0);
	ck_assert(sys_is_err(p));
	ck_assert_int_eq(sys_err(p), -EBADF);
	p = sys_mremap(NULL, PAGE_SIZE, PAGE_SIZE, 0x1000, NULL);
	ck_assert(sys_is_err(p));
	ck_assert_int_eq(sys_err(p), -EINVAL);
	ck_assert(!sys_is_err(&c) && !sys_is_err(NULL));
	ck_assert(!sys_is_err((void *)(uintptr_t)-4096) && sys_is_err((void *)(uintptr_t)-4095));
	ck_assert_int_eq(sys_munmap((void *)1, PAGE_SIZE), -EINVAL);
	ck_assert_int_eq(sys_mprotect((void *)1, PAGE_SIZE, PROT_READ), -EINVAL);
	ck_assert_int_eq(sys_madvise((void *)1, PAGE_SIZE, MADV_NORMAL), -EINVAL);
	ck_assert_int_eq(sys_ftruncate(-1, 0), -EBADF);
	ck_assert_int_eq(sys_punch(-1, 0, 1), -EBADF);
	ck_assert_int_eq(sys_pread(-1, &c, 1, 0), -EBADF);
	ck_assert_int_eq(sys_pwrite(-1, &c, 1, 0), -EBADF);
	ck_assert_int_eq(sys_read(-1, &c, 1), -EBADF);
	ck_assert_int_eq(sys_write(-1, &c, 1), -EBADF);
	ck_assert_int_eq(sys_open("/nonexistent/file", O_RDONLY), -ENOENT);
	ck_assert_int_eq(sys_pread(fd, NULL, 0, UINT64_MAX), -EINVAL);
	ck_assert_int_eq(sys_seek_data(-1, 0), -EBADF);
	ck_assert_int_eq(sys_seek_data(fd, 0), -ENXIO);
	ck_assert_int_eq(sys_size(-1), -EBADF);
	ck_assert_int_eq(sys_stat(-1, &(struct sys_stat){ 0 }), -EBADF);
	ck_assert_int_eq(sys_get_flags(-1), -EBADF);
	ck_assert_int_eq(sys_dup(-1), -EBADF);
	ck_assert_int_eq(sys_fdatasync(-1), -EBADF);
	ck_assert_int_eq(sys_lock(-1), -EBADF);
	ck_assert_int_eq(sys_unlinkat(AT_FDCWD, "/nonexistent/file"), -ENOENT);
}
END_TEST

START_TEST(memory_calls_work)
{
	char *p, *q;

	p = sys_mmap(NULL, 4 * PAGE_SIZE, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert(!sys_is_err(p));
	memset(p, 'p', 4 * PAGE_SIZE);
	ck_assert_int_eq(sys_madvise(p, PAGE_SIZE, MADV_DONTNEED), 0);
	ck_assert(p[0] == '\0' && p[PAGE_SIZE] == 'p');
	ck_assert_int_eq(sys_mprotect(p, PAGE_SIZE, PROT_NONE), 0);
	ck_assert_int_eq(sys_pwrite(fd, p, 1, 0), -EFAULT);
	q = sys_mremap(p + 2 * PAGE_SIZE, 2 * PAGE_SIZE, 2 * PAGE_SIZE,
	    MREMAP_MAYMOVE | MREMAP_FIXED, p);
	ck_assert_ptr_eq(q, p);
	ck_assert(p[0] == 'p');
	ck_assert_int_eq(sys_pwrite(fd, p + 2 * PAGE_SIZE, 1, 0), -EFAULT);
	ck_assert_int_eq(sys_munmap(p, 2 * PAGE_SIZE), 0);
}
END_TEST

START_TEST(a_file_tells_what_it_is)
{
	struct sys_stat st;
	struct stat want;
	int copy;

	ck_assert_int_eq(sys_ftruncate(fd, ((uint64_t)5 << 32) + 7), 0);
	ck_assert_int_eq(sys_stat(fd, &st), 0);
	ck_assert_int_eq(fstat(fd, &want), 0);
	ck_assert_uint_eq(st.size, ((uint64_t)5 << 32) + 7);
	ck_assert_uint_eq(st.ino, want.st_ino);
	ck_assert_uint_eq(st.mode & S_IFMT, S_IFREG);
	copy = sys_dup(fd);
	ck_assert_int_ge(copy, 0);
	ck_assert_int_eq(fcntl(copy, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(sys_get_flags(copy) & O_ACCMODE, O_RDWR);
	ck_assert_int_eq(sys_close(copy), 0);
	ck_assert_int_eq(sys_stat(copy, &st), -EBADF);
	ck_assert_int_eq(sys_dup(copy), -EBADF);
	ck_assert_int_eq(sys_get_flags(copy), -EBADF);
	ck_assert_int_eq(sys_fdatasync(copy), -EBADF);
}
END_TEST

START_TEST(descriptors_are_close_on_exec)
{
	char c;
	int f = sys_open("/proc/self/exe", O_RDONLY);

	ck_assert_int_ge(f, 0);
	ck_assert_int_eq(fcntl(f, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(sys_read(f, &c, 1), 1);
	ck_assert_int_eq(c, 0x7f);
	ck_assert_int_eq(sys_close(f), 0);
}
END_TEST

/* One call of each kind. => 0, or its negative errno. */
static int64_t
call_one(enum sys_call which)
{
	static char *page;
	char c = 'c';
	int64_t n;
	void *p;

	switch (which) {
	case SYS_CALL_MMAP:
		p = sys_mmap(NULL, PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		page = sys_is_err(p) ? NULL : p;
		return (sys_is_err(p) ? sys_err(p) : 0);
	case SYS_CALL_MPROTECT:
		return (sys_mprotect(page, PAGE_SIZE, PROT_READ));
	case SYS_CALL_MREMAP:
		p = sys_mremap(page, PAGE_SIZE, PAGE_SIZE, 0, NULL);
		return (sys_is_err(p) ? sys_err(p) : 0);
	case SYS_CALL_MADVISE:
		return (sys_madvise(page, PAGE_SIZE, MADV_NORMAL));
	case SYS_CALL_MUNMAP:
		return (sys_munmap(page, PAGE_SIZE));
	case SYS_CALL_MEMFD:
	case SYS_CALL_OPEN:
		n = which == SYS_CALL_MEMFD ? sys_memfd("one") : sys_open("/dev/null", O_RDONLY);
		return (n < 0 ? n : sys_close((int)n));
	case SYS_CALL_FTRUNCATE:
		return (sys_ftruncate(fd, PAGE_SIZE));
	case SYS_CALL_FALLOCATE:
		return (sys_punch(fd, 0, PAGE_SIZE));
	case SYS_CALL_PREAD:
		n = sys_pread(fd, &c, 1, 0);
		return (n < 0 ? n : 0);
	case SYS_CALL_PWRITE:
		n = sys_pwrite(fd, &c, 1, 0);
		return (n < 0 ? n : 0);
	case SYS_CALL_READ:
		n = sys_read(fd, &c, 1);
		return (n < 0 ? n : 0);
	case SYS_CALL_PREADV:
		n = sys_preadv(fd, &(struct iovec){ &c, 1 }, 1, 0);
		return (n < 0 ? n : 0);
	case SYS_CALL_PWRITEV:
		n = sys_pwritev(fd, &(struct iovec){ &c, 1 }, 1, 0);
		return (n < 0 ? n : 0);
	case SYS_CALL_EVENTFD:
		n = sys_eventfd();
		return (n < 0 ? n : sys_close((int)n));
	case SYS_CALL_URING_SETUP:
		return (sys_injected(which));		/* liburing makes it */
	case SYS_CALL_STAT:
		return (sys_stat(fd, &(struct sys_stat){ 0 }));
	case SYS_CALL_FCNTL:
		n = sys_get_flags(fd);
		return (n < 0 ? n : 0);
	case SYS_CALL_FDATASYNC:
		return (sys_fdatasync(fd));
	case SYS_CALL_PIPE: {
		int ends[2];

		n = sys_pipe(ends);
		return (n < 0 ? n : sys_close(ends[0]) + sys_close(ends[1]));
	}
	case SYS_CALL_COUNT:
		break;
	}
	ck_abort_msg("no call %d", which);
}

START_TEST(every_call_can_be_made_to_fail)
{
	static const enum sys_call order[] = {		/* those of memory share a page */
		SYS_CALL_MMAP, SYS_CALL_MPROTECT, SYS_CALL_MREMAP, SYS_CALL_MADVISE,
		SYS_CALL_MUNMAP,
		SYS_CALL_MEMFD, SYS_CALL_OPEN, SYS_CALL_FTRUNCATE, SYS_CALL_FALLOCATE,
		SYS_CALL_PREAD, SYS_CALL_PWRITE, SYS_CALL_READ, SYS_CALL_PREADV, SYS_CALL_PWRITEV,
		SYS_CALL_EVENTFD, SYS_CALL_URING_SETUP, SYS_CALL_STAT, SYS_CALL_FCNTL,
		SYS_CALL_FDATASYNC, SYS_CALL_PIPE,
	};

	ck_assert_uint_eq(nitems(order), SYS_CALL_COUNT);
	for (size_t i = 0; i < nitems(order); i++) {
		inject(order[i], -ENOSPC, 1);
		ck_assert_int_eq(call_one(order[i]), -ENOSPC);
		ck_assert_int_eq(asked, 1);
		ck_assert_int_eq(call_one(order[i]), 0);
		ck_assert_int_eq(asked, 2);
	}
}
END_TEST

START_TEST(interrupted_calls_are_made_again)
{
	static const enum sys_call calls[] = {
		SYS_CALL_FTRUNCATE, SYS_CALL_FALLOCATE, SYS_CALL_PREAD, SYS_CALL_PWRITE,
		SYS_CALL_OPEN, SYS_CALL_READ, SYS_CALL_PREADV, SYS_CALL_PWRITEV, SYS_CALL_STAT,
		SYS_CALL_FDATASYNC,
	};

	for (size_t i = 0; i < nitems(calls); i++) {
		inject(calls[i], -EINTR, 3);
		ck_assert_int_eq(call_one(calls[i]), 0);
		ck_assert_int_eq(asked, 4);
	}
}
END_TEST

START_TEST(transfers_can_be_cut_short)
{
	char buf[8] = "";

	inject(SYS_CALL_PWRITE, 3, 1);
	ck_assert_int_eq(sys_pwrite(fd, "abcdef", 6, 0), 3);
	ck_assert_int_eq(sys_pread(fd, buf, 6, 0), 3);
	inject(SYS_CALL_PWRITE, 100, 1);
	ck_assert_int_eq(sys_pwrite(fd, "abcdef", 6, 0), 6);
	inject(SYS_CALL_PREAD, 2, 1);
	ck_assert_int_eq(sys_pread(fd, buf, 6, 0), 2);
	ck_assert_int_eq(sys_pread(fd, buf, 6, 0), 6);
	ck_assert_str_eq(buf, "abcdef");
	inject(SYS_CALL_READ, 4, 1);
	ck_assert_int_eq(sys_read(fd, buf, 6), 4);
	ck_assert_int_eq(sys_read(fd, buf, 6), 2);
}
END_TEST

START_TEST(transfers_in_pieces_keep_their_order)
{
	char a[3] = "abc", b[5] = "defgh", got[9] = "";
	const struct iovec out[2] = { { a, 3 }, { b, 5 } }, in[3] = { { got + 5, 3 }, { got, 4 }, { got + 4, 1 } };

	ck_assert_int_eq(sys_pwritev(fd, out, 2, ((uint64_t)5 << 32) + 1), 8);
	ck_assert_int_eq(sys_preadv(fd, in, 3, ((uint64_t)5 << 32) + 1), 8);
	ck_assert_str_eq(got, "defghabc");
	/* Cut in the first piece, and in the last. */
	inject(SYS_CALL_PWRITEV, 2, 1);
	ck_assert_int_eq(sys_pwritev(fd, out, 2, 0), 2);
	inject(SYS_CALL_PWRITEV, 6, 1);
	ck_assert_int_eq(sys_pwritev(fd, out, 2, 0), 6);
	ck_assert_int_eq(sys_pread(fd, got, 8, 0), 8);
	ck_assert_str_eq(got, "abcdef");
	inject(SYS_CALL_PREADV, 4, 1);
	memset(got, '-', 8);
	ck_assert_int_eq(sys_preadv(fd, in, 3, 0), 4);
	ck_assert_str_eq(got, "d----abc");
	ck_assert_int_eq(sys_preadv(-1, in, 3, 0), -EBADF);
	ck_assert_int_eq(sys_pwritev(fd, out, 2, (uint64_t)1 << 63), -EINVAL);
}
END_TEST

START_TEST(clock_is_the_monotonic_one)
{
	struct timespec ts;
	uint64_t before = sys_clock(), now, after;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
	after = sys_clock();
	ck_assert_uint_le(before, now);
	ck_assert_uint_le(now, after);
}
END_TEST

static _Atomic uint32_t word;

static void *
futex_waiter(void *arg)
{
	while (atomic_load(&word) == 1)
		sys_futex_wait(&word, 1, -1);
	return (NULL);
}

START_TEST(futex_waits_and_wakes)
{
	uint64_t start = sys_clock();
	pthread_t t;

	word = 1;
	ck_assert_int_eq(sys_futex_wait(&word, 0, -1), -EAGAIN);
	ck_assert_int_eq(sys_futex_wait(&word, 1, 0), -ETIMEDOUT);
	ck_assert_int_eq(sys_futex_wait(&word, 1, 1100 * MS), -ETIMEDOUT);
	ck_assert_uint_ge(sys_clock() - start, 1100 * MS);
	ck_assert_int_eq(sys_futex_wake(&word, 1), 0);
	t = spawn(futex_waiter, NULL);
	while (sys_futex_wake(&word, 1) == 0)	/* until it sleeps */
		msleep(1);
	word = 2;
	ck_assert_int_ge(sys_futex_wake(&word, 1), 0);
	join(t);
}
END_TEST

static siginfo_t seen;
static volatile sig_atomic_t handled;

static void
on_signal(int sig, siginfo_t *info, void *context)
{
	seen = *info;
	handled++;
}

static void
catch(int sig)
{
	struct sigaction sa = { .sa_flags = SA_SIGINFO };

	sa.sa_sigaction = on_signal;
	sigaction(sig, &sa, NULL);
}

START_TEST(raised_info_arrives_as_it_is)
{
	siginfo_t info;

	memset(&info, 0, sizeof(info));
	info.si_signo = SIGSEGV;
	info.si_code = SEGV_ACCERR;
	info.si_addr = (void *)(uintptr_t)0x12345678;
	catch(SIGSEGV);
	ck_assert_int_eq(sys_raise_info(SIGSEGV, &info), 0);
	ck_assert_int_eq(handled, 1);
	ck_assert_int_eq(seen.si_signo, SIGSEGV);
	ck_assert_int_eq(seen.si_code, SEGV_ACCERR);
	ck_assert_ptr_eq(seen.si_addr, info.si_addr);
	ck_assert_int_eq(sys_raise_info(1000, &info), -EINVAL);
	ck_assert_int_eq(sys_getpid(), getpid());
	ck_assert_int_eq(sys_gettid(), getpid());
}
END_TEST

START_TEST(block_leaves_the_synchronous_signals)
{
	static const int heard[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP };
	sys_sigset_t old, in;
	sigset_t before, now;

	sigemptyset(&before);
	sigaddset(&before, SIGUSR2);
	sigaddset(&before, SIGRTMAX);
	sigaddset(&before, SIGSEGV);	/* a fault with that blocked would be a silent kill */
	sigprocmask(SIG_SETMASK, &before, NULL);
	catch(SIGUSR1);
	sys_block(&old);
	ck_assert_uint_eq(old, UINT64_C(1) << (SIGUSR2 - 1) | UINT64_C(1) << (SIGRTMAX - 1) |
	    UINT64_C(1) << (SIGSEGV - 1));
	raise(SIGUSR1);
	ck_assert_int_eq(handled, 0);
	sigprocmask(SIG_SETMASK, NULL, &now);
	for (size_t i = 0; i < nitems(heard); i++)
		ck_assert_int_eq(sigismember(&now, heard[i]), 0);
	ck_assert(sigismember(&now, SIGTERM) == 1 && sigismember(&now, SIGRTMIN) == 1);
	sys_block(&in);			/* nests */
	sys_setmask(&in);
	ck_assert_int_eq(handled, 0);
	sys_setmask(&old);
	msleep(1);			/* where the thread sanitizer delivers what it held back */
	ck_assert_int_eq(handled, 1);
	sigprocmask(SIG_SETMASK, NULL, &now);
	ck_assert(sigismember(&now, SIGUSR2) == 1 && sigismember(&now, SIGRTMAX) == 1);
	ck_assert_int_eq(sigismember(&now, SIGTERM), 0);
}
END_TEST

/*
 * Last words
 */

static void
log_all(void)
{
	klog("%s|%d|%u|%x|%lu|%lx|%llu|%llx|%%|%c|%zu|%ld", "s", -5, 4000000000u, 0xbeefu, 7ul,
	    ~0ul, ~0ull, 1ull << 63, 'c', (size_t)9, -1l);
	klog("%p %d %lld %s", (void *)0x1f, -2147483647 - 1, -9223372036854775807ll - 1,
	    "end");
	klog_quiet = true;
	klog("silent");
}

static void
log_long(void)
{
	char text[2000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	klog("%s and more", text);
	klog("next");
}

START_TEST(log_formats)
{
	char expect[256];
	const char *words, *line;
	int status;

	words = words_of(log_all, &status);
	ck_assert_int_eq(status, 0);
	snprintf(expect, sizeof(expect),
	    "vmfault: s|-5|4000000000|beef|7|%lx|18446744073709551615|8000000000000000|%%|c|9|-1\n"
	    "vmfault: 0x1f -2147483648 -9223372036854775808 end\n", ~0ul);
	ck_assert_str_eq(words, expect);

	words = words_of(log_long, &status);
	line = strchr(words, '\n');
	ck_assert(line != NULL && line - words == 511);
	ck_assert_str_eq(line, "\nvmfault: next\n");
}
END_TEST

static void
fail_quietly(void)
{
	klog_quiet = true;
	KASSERT(fd == -2);
}

static void
panic_again(int sig)
{
	kpanic("second");
}

/* As the fault handler would, on a fault in the middle of a panic. */
static void
panic_in_panic(void)
{
	signal(SIGSEGV, panic_again);
	kpanic("first %s", (const char *)(uintptr_t)16);
}

START_TEST(panics_speak_once_and_abort)
{
	const char *words;
	int status;

	ck_assert_panics(fail_quietly, "fail_quietly: not so: fd == -2", "test_kern_sys.c:");
	words = words_of(panic_in_panic, &status);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	ck_assert_str_eq(words, "");
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("kern/sys");
	TCase *tc = tcase_create("sys");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, offsets_have_64_bits);
	tcase_add_test(tc, errors_are_negative_and_errno_is_left_alone);
	tcase_add_test(tc, memory_calls_work);
	tcase_add_test(tc, a_file_tells_what_it_is);
	tcase_add_test(tc, descriptors_are_close_on_exec);
	tcase_add_test(tc, every_call_can_be_made_to_fail);
	tcase_add_test(tc, interrupted_calls_are_made_again);
	tcase_add_test(tc, transfers_can_be_cut_short);
	tcase_add_test(tc, transfers_in_pieces_keep_their_order);
	suite_add_tcase(s, tc);

	tc = tcase_create("threads and signals");
	tcase_add_test(tc, clock_is_the_monotonic_one);
	tcase_add_test(tc, futex_waits_and_wakes);
	tcase_add_test(tc, raised_info_arrives_as_it_is);
	tcase_add_test(tc, block_leaves_the_synchronous_signals);
	suite_add_tcase(s, tc);

	tc = tcase_create("last words");
	tcase_add_test(tc, log_formats);
	tcase_add_test(tc, panics_speak_once_and_abort);
	suite_add_tcase(s, tc);
	return (run_suite(s));
}
