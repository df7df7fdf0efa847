/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The gate of wrappers: what the program calls by name works, and its signals are its own.
 */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../suite.h"
#include "gate.h"
#include "gate_fake.h"
#include "gate_impl.h"
#include "signals_impl.h"

static char *page;
static volatile sig_atomic_t count;

static void
start(void)
{
	struct gate_info info;

	ck_assert_int_eq(fake_start(GATE_PLT, 0, &info), 0);
	ck_assert_int_eq(info.mode, GATE_PLT);
	page = fake_pages(FAKE_PAGE);
	count = 0;
}

static void *
absent(size_t n)
{
	char *p = (char *)fake_pages(n + FAKE_PAGE) + FAKE_PAGE - 8;

	memset(p, 0x5a, n);
	(void)fake_evict(p, n, false);
	return p;
}

static void
touch(void)
{
	(void)fake_evict(page, 1, false);
	*(volatile char *)page = 1;
}

START_TEST(data_arrives)
{
	int fd[2], *status, got;
	char *p = absent(64), name[] = "/tmp/gate-XXXXXX";
	struct iovec v = { absent(8), 8 };
	struct stat *st = absent(sizeof(*st));
	char *path = fake_pages(64);
	uint64_t *event = absent(8);
	pid_t pid;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, fd), 0);
	ck_assert_int_eq(send(fd[0], "message", 8, 0), 8);
	ck_assert_int_eq(recv(fd[1], p, 64, MSG_DONTWAIT), 8);
	ck_assert_str_eq(p, "message");
	(void)fake_evict(p, 64, false);
	ck_assert_int_eq(write(fd[1], p, 8), 8);
	ck_assert_int_eq(readv(fd[0], &v, 1), 8);
	ck_assert_str_eq(v.iov_base, "message");
	got = eventfd(3, EFD_NONBLOCK);
	ck_assert_int_eq(read(got, event, 8), 8);
	ck_assert_uint_eq(*event, 3);
	close(got);

	got = mkstemp(name);
	strcpy(path, name);
	(void)fake_evict(path, 64, false);
	ck_assert_int_eq(stat(path, st), 0);
	ck_assert(S_ISREG(st->st_mode));
	(void)fake_evict(path, 64, false);
	ck_assert_int_ge(open(path, O_RDONLY), 0);
	(void)fake_evict(path, 64, false);
	ck_assert_int_eq(unlink(path), 0);

	status = absent(sizeof(*status));
	pid = fork();
	if (pid == 0)
		_exit(9);
	ck_assert_int_eq(waitpid(pid, status, 0), pid);
	ck_assert_int_eq(WEXITSTATUS(*status), 9);
	ck_assert_uint_eq(fake_stats.pinned, 0);
}
END_TEST

START_TEST(exec_takes_managed_strings)
{
	char **argv = fake_pages(FAKE_PAGE), *sh = fake_pages(16), *script = fake_pages(64);
	pid_t pid;
	int status;

	strcpy(sh, "/bin/sh");
	strcpy(script, "exit 6");
	argv[0] = sh;
	argv[1] = memcpy(script + 16, "-c", 3);
	argv[2] = script;
	argv[3] = NULL;
	pid = fork();
	if (pid == 0) {
		(void)fake_evict(fake_base, fake_used, false);
		(void)execve(sh, argv, environ);
		_exit(127);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(WEXITSTATUS(status), 6);
}
END_TEST

static void
touching(int sig)
{
	sigset_t now;

	touch();
	(void)pthread_sigmask(SIG_BLOCK, NULL, &now);
	count += 1 + 10 * sigismember(&now, SIGSEGV);
}

START_TEST(masks_are_read_back_and_faults_go_on)
{
	struct sigaction sa = { .sa_handler = touching }, now;
	struct timespec ts = { 1, 0 };
	sigset_t all, old;

	sigfillset(&all);
	ck_assert_int_eq(sigprocmask(SIG_SETMASK, &all, NULL), 0);
	touch();
	sigemptyset(&old);
	ck_assert_int_eq(sigprocmask(SIG_BLOCK, NULL, &old), 0);
	ck_assert_int_eq(sigismember(&old, SIGSEGV), 1);
	sigemptyset(&all);
	ck_assert_int_eq(sigprocmask(SIG_SETMASK, &all, NULL), 0);
	sigfillset(&sa.sa_mask);
	ck_assert_int_eq(sigaction(SIGALRM, &sa, NULL), 0);
	ck_assert_int_eq(raise(SIGALRM), 0);
	ck_assert_int_eq(count, 11);
	ck_assert_int_eq(sigaction(SIGALRM, NULL, &now), 0);
	ck_assert(now.sa_handler == touching);
	ck_assert_int_eq(sigismember(&now.sa_mask, SIGSEGV), 1);
	sigfillset(&all);
	sigdelset(&all, SIGALRM);
	ualarm(5000, 0);
	ck_assert_int_eq(pselect(0, NULL, NULL, NULL, &ts, &all), -1);
	ck_assert_int_eq(errno, EINTR);
	ck_assert_int_eq(count, 22);
}
END_TEST

static sigjmp_buf out;

static void
jump(int sig)
{
	touch();
	count++;
	siglongjmp(out, 1);
}

START_TEST(a_fault_of_the_programs_is_its_own)
{
	volatile char *hole = mmap(NULL, FAKE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int status;
	pid_t pid;

	ck_assert(signal(SIGSEGV, jump) == SIG_DFL);
	for (volatile int i = 0; i < 200; i++)
		if (sigsetjmp(out, 1) == 0)
			*hole = 1;
	ck_assert_int_eq(count, 200);
	ck_assert(signal(SIGSEGV, SIG_DFL) == jump);
	pid = fork();
	if (pid == 0) {
		*hole = 1;
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}
END_TEST

static void *
read_for_ever(void *arg)
{
	(void)read(*(int *)arg, absent(64), 64);
	return NULL;
}

START_TEST(a_read_can_be_cancelled)
{
	int ends[2];
	void *result;
	pthread_t t;

	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(pthread_create(&t, NULL, read_for_ever, ends), 0);
	fake_await_call(SYS_read, (unsigned long)ends[0]);
	ck_assert_int_eq(pthread_cancel(t), 0);
	ck_assert_int_eq(pthread_join(t, &result), 0);
	ck_assert_ptr_eq(result, PTHREAD_CANCELED);
}
END_TEST

#ifdef __x86_64__
/* The child of a clone: on a stack that has nothing but where to go on, with its parent's registers.  9: it is. */
void cloned(void);
__asm__(".pushsection .text\n"
    "cloned:\n"
    "	mov	$9, %edi\n"
    "	cmp	$71, %rbx\n"
    "	jne	1f\n"
    "	cmp	$72, %r12\n"
    "	je	2f\n"
    "1:	mov	$1, %edi\n"
    "2:	mov	$60, %eax\n"		/* exit */
    "	syscall\n"
    ".popsection\n");

/* syscall() may come back on another stack: with nothing of ours, there or in registers. */
START_TEST(a_raw_clone_comes_back_on_its_stack)
{
	static char stack[65536] __attribute__((__aligned__(16)));
	void (**top)(void) = (void (**)(void))(void *)(stack + sizeof(stack) - 16);
	int status;
	long pid;

	*top = cloned;
	__asm__ volatile("mov	$71, %%rbx\n\t"
	    "mov	$72, %%r12\n\t"
	    "xor	%%ecx, %%ecx\n\t"
	    "call	syscall"
	    : "=a"(pid)
	    : "D"((long)SYS_clone), "S"((long)(CLONE_VM | CLONE_VFORK | SIGCHLD)), "d"(top)
	    : "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "memory", "cc");
	ck_assert_int_gt(pid, 0);
	ck_assert_int_eq(waitpid((pid_t)pid, &status, 0), pid);
	ck_assert_int_eq(status, 9 << 8);
}
END_TEST

START_TEST(raw_calls_are_seen)
{
	char *p = absent(64);
	int ends[2];

	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(write(ends[1], "raw", 3), 3);
	ck_assert_int_eq(syscall(SYS_read, ends[0], p, 64), 3);
	ck_assert_int_eq(memcmp(p, "raw", 3), 0);
	ck_assert_int_eq(syscall(SYS_read, 1000, p, 64), -1);
	ck_assert_int_eq(errno, EBADF);
	ck_assert_int_eq(syscall(SYS_getpid), getpid());
}
END_TEST
#endif

static Suite *
suite(void)
{
	Suite *s = suite_create("gate_plt");
	TCase *tc = tcase_create("gate_plt");

	tcase_add_checked_fixture(tc, start, NULL);
	tcase_add_test(tc, data_arrives);
	tcase_add_test(tc, exec_takes_managed_strings);
	tcase_add_test(tc, masks_are_read_back_and_faults_go_on);
	tcase_add_test(tc, a_fault_of_the_programs_is_its_own);
	tcase_add_test(tc, a_read_can_be_cancelled);
#ifdef __x86_64__
	tcase_add_test(tc, a_raw_clone_comes_back_on_its_stack);
	tcase_add_test(tc, raw_calls_are_seen);
#endif
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	return run_suite(suite());
}
