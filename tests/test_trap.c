/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * From a signal to the fault and back, from the inside.
 *
 * test_api_signal.c says what programs see.  Here a handler that interrupts, or is put off, at a
 * known place of the library (kern/probe.h), the library's own mistakes, and the
 * instructions that make a decoder or a restart go wrong.
 */

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kern/probe.h"
#include "kern/sys.h"
#include "suite.h"
#include "support.h"
#include "trap.h"
#include "vm_meter.h"

enum { PAGES = 8 };

static void
begin(void)
{
	start(0, 0);
	touch_install();
}

static int64_t
get(void *cookie, uint64_t offset, void *buf, size_t len)
{
	memset(buf, 'g', len);
	return (int64_t)len;
}

/* A page whose fault comes by the probe "vm_fault: pager get". */
static char *
probed_page(void)
{
	struct vmf_pager_ops ops = { .size = sizeof(ops), .get = get };
	vmf_pager_t pager;
	void *p = NULL;

	expect(vmf_pager_create(&ops, NULL, PG, 0, &pager), 0);
	expect(vmf_map(VMF_TASK_DEFAULT, &p, PG, VMF_MAP_PRIVATE, pager, 0, VMF_PROT_DEFAULT), 0);
	return p;
}

/*
 * The state of a thread across a fault
 */

static sigset_t mask_inside;
static const char *volatile seen_stack;
static volatile int depth;

static void
look_inside(const char *place)
{
	char here;

	if (strcmp(place, "vm_fault: pager get") != 0)
		return;
	depth++;
	seen_stack = &here;
	errno = EDOM;			/* what the library's system calls might do */
	(void)pthread_sigmask(SIG_SETMASK, NULL, &mask_inside);
}

static bool
synchronous(int sig)
{
	return sig == SIGSEGV || sig == SIGBUS || sig == SIGILL || sig == SIGFPE || sig == SIGTRAP;
}

START_TEST(mask_and_errno)
{
	sigset_t before, after;
	char *p;

	begin();
	p = probed_page();
	probe_hook = look_inside;
	sigemptyset(&before);
	sigaddset(&before, SIGUSR2);
	check(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
	errno = EXDEV;
	check(*(volatile char *)p == 'g');
	check(*(volatile int *)&errno == EXDEV);
	check(pthread_sigmask(SIG_SETMASK, NULL, &after) == 0);
	check(depth == 1);
	for (int sig = 1; sig < 32; sig++) {
		if (sig == SIGKILL || sig == SIGSTOP)
			continue;
		if (sigismember(&mask_inside, sig) != !synchronous(sig))
			die("signal %d is%s blocked in the fault", sig, synchronous(sig) ? "" : " not");
		check(sigismember(&after, sig) == (sig == SIGUSR2));
	}
	probe_hook = NULL;
	stop();
}
END_TEST

/* With an alternate stack the fault is there; without one it is not needed. */
START_TEST(alternate_stack)
{
	static char stack[64 * 1024] __attribute__((__aligned__(16)));
	stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };

	begin();
	probe_hook = look_inside;
	if (_i)
		check(sigaltstack(&ss, NULL) == 0);
	check(*(volatile char *)probed_page() == 'g');
	check((seen_stack >= stack && seen_stack < stack + sizeof(stack)) == (_i != 0));
	probe_hook = NULL;
	stop();
}
END_TEST

/*
 * Signals that somebody sends while the library is at work
 */

static volatile struct {
	_Atomic int count;
	int code;
	pid_t from;
	bool inside;			/* the handler ran in the middle of the fault */
} sent;
static volatile bool working;

static void
count_signal(int sig, siginfo_t *si, void *context)
{
	sent.count++;
	sent.code = si->si_code;
	sent.from = si->si_pid;
	sent.inside = sent.inside || working;
}

static void
send_inside(const char *place)
{
	if (strcmp(place, "vm_fault: pager get") != 0)
		return;
	working = true;
	check(syscall(SYS_tgkill, getpid(), gettid(), SIGSEGV) == 0);
	check(syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1) == 0);
	check(sent.count == 0);
	working = false;
}

START_TEST(sent_while_inside)
{
	struct sigaction act = { .sa_sigaction = count_signal, .sa_flags = SA_SIGINFO };
	char byte = 0;
	char *p;

	begin();
	expect(vmf_sigaction(SIGSEGV, &act, NULL), 0);
	check(sigaction(SIGUSR1, &act, NULL) == 0);
	p = probed_page();
	probe_hook = send_inside;
	if (_i)
		expect(vmf_read(p, &byte, 1), 0);
	else
		byte = *(volatile char *)p;
	check(byte == 'g');
	check(sent.count == 2 && !sent.inside);
	check(sent.code == SI_TKILL && sent.from == getpid());
	probe_hook = NULL;
	stop();
}
END_TEST

/*
 * The library's own mistake
 */

static char *managed;

static void
touch_inside(const char *place)
{
	if (strcmp(place, "vm_fault: pager get") == 0)
		*(volatile char *)managed = 1;
}

static void
mistake(void *arg)
{
	int *fds = arg;
	char *p;

	check(dup2(fds[1], STDERR_FILENO) == STDERR_FILENO);
	alarm(20);
	begin();
	managed = alloc(1);
	p = probed_page();
	probe_hook = touch_inside;
	*(volatile char *)p = 1;
}

START_TEST(nested_fault_is_fatal)
{
	char text[512];
	size_t len = 0;
	ssize_t n;
	int fds[2], status;

	check(pipe(fds) == 0);
	status = in_child(mistake, fds);
	close(fds[1]);
	while (len < sizeof(text) - 1 && (n = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	expect_killed(status, SIGABRT);
	if (strstr(text, "vmfault: panic: fault in the library") != text || strstr(text, "0x") == NULL ||
	    strchr(text, '\n') != text + len - 1)
		die("it said: %s", text);
}
END_TEST

/*
 * What is decoded: the kind of an access, where the protection allows another
 */

START_TEST(kinds_of_access)
{
	static const unsigned char ret[] = { 0xc3 };
	void (*call)(void);
	char *p, *q;

	begin();
	p = alloc(1);
	q = alloc(1);
	memcpy(p, ret, sizeof(ret));
	memcpy(&call, &p, sizeof(call));
	expect_write(q, 0, 0);
	expect(vmf_protect(q, PG, VMF_PROT_READ), 0);
	expect_read(q, 0, 0);
	expect_write(q, SIGSEGV, SEGV_ACCERR);
	expect(vmf_protect(p, PG, VMF_PROT_READ | VMF_PROT_EXECUTE), 0);
	call();
	expect_write(p, SIGSEGV, SEGV_ACCERR);
	expect(vmf_protect(p, PG, VMF_PROT_NONE), 0);
	expect_read(p, SIGSEGV, SEGV_ACCERR);
	stop();
}
END_TEST

static volatile struct {
	int sig, code;
	void *addr;
} last;
static char *to_allow;

/* Look, and allow it: the instruction is then run again. */
static void
allow(int sig, siginfo_t *si, void *context)
{
	last.sig = sig;
	last.code = si->si_code;
	last.addr = si->si_addr;
	expect(vmf_protect(to_allow, PG, VMF_PROT_ALL), 0);
}

START_TEST(execute_is_told_from_read)
{
	static const unsigned char ret[] = { 0xc3 };
	struct sigaction act = { .sa_sigaction = allow, .sa_flags = SA_SIGINFO };
	void (*call)(void);

	begin();
	expect(vmf_sigaction(SIGSEGV, &act, NULL), 0);
	to_allow = alloc(1);
	memcpy(to_allow + 16, ret, sizeof(ret));
	check(to_allow[16] != 0);		/* mapped, readable, writable */
	call = (void (*)(void))(uintptr_t)(to_allow + 16);
	call();
	check(last.sig == SIGSEGV && last.code == SEGV_ACCERR && last.addr == to_allow + 16);
	stop();
}
END_TEST

/*
 * Instructions
 */

START_TEST(string_move)
{
	char *src, *dst, *s, *d;
	size_t n = (PAGES - 2) * PG;

	begin();
	src = alloc(PAGES);
	dst = alloc(PAGES);
	fill_pages(src, PAGES, 5);
	/* Each page of both faults in the middle of one instruction, the source from a snapshot. */
	src = view(snap(src, PAGES), PAGES, VMF_PROT_READ);
	expect(vmf_advise(src, PAGES * PG, VMF_ADVICE_RANDOM), 0);
	expect(vmf_advise(dst, PAGES * PG, VMF_ADVICE_RANDOM), 0);
	s = src + 100;
	d = dst + 2000;
	__asm__ volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(n) : : "memory");
	check(n == 0 && s == src + 100 + (PAGES - 2) * PG && d == dst + 2000 + (PAGES - 2) * PG);
	check(memcmp(src + 100, dst + 2000, (PAGES - 2) * PG) == 0);
	check_zero(dst, 2000);
	check_zero(d, PG);
	check_pages(src, PAGES, 5);
	stop();
}
END_TEST

typedef uint64_t anywhere __attribute__((__aligned__(1), __may_alias__));

START_TEST(over_two_pages)
{
	uint64_t value = UINT64_C(0x1122334455667788), got;
	char *p;

	begin();
	p = alloc(PAGES);
	expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_RANDOM), 0);
	memcpy(p + PG - 3, &value, sizeof(value));
	*(volatile anywhere *)(void *)(p + 3 * PG - 5) = value;
	memcpy(&got, p + 3 * PG - 5, sizeof(got));
	check(got == value && p[PG - 4] == 0 && p[PG + 5] == 0);
	/* The second page forbids it: nothing is written to the first. */
	expect(vmf_protect(p + 5 * PG, PG, VMF_PROT_READ), 0);
	to_allow = p + 5 * PG;
	expect(vmf_sigaction(SIGSEGV, &(struct sigaction){ .sa_sigaction = allow,
	    .sa_flags = SA_SIGINFO }, NULL), 0);
	*(volatile anywhere *)(void *)(p + 5 * PG - 4) = value;
	memcpy(&got, p + 5 * PG - 4, sizeof(got));
	check(got == value && last.code == SEGV_ACCERR && last.addr == p + 5 * PG);
	stop();
}
END_TEST

/* A locked instruction reads and writes: a write fault, once, also where the page is only readable yet. */
START_TEST(locked)
{
	uint64_t faults;
	char *p, *v;

	begin();
	p = alloc(PAGES);
	for (size_t i = 0; i < PAGES; i++)
		p[i * PG] = (char)(i + 1);
	v = view(snap(p, PAGES), PAGES, VMF_PROT_DEFAULT);
	expect(vmf_advise(v, PAGES * PG, VMF_ADVICE_RANDOM), 0);
	for (size_t i = 0; i < PAGES; i++) {
		_Atomic uint32_t *word = (_Atomic uint32_t *)(void *)(v + i * PG);
		uint32_t expected = (uint32_t)(i + 1);

		if (i % 2 == 0)
			check(*word == expected);	/* mapped for reading */
		faults = vm_meter_read(VMC_v_vm_faults);
		if (i % 4 < 2)
			check(atomic_fetch_add(word, 100) == expected);
		else
			check(atomic_compare_exchange_strong(word, &expected, expected + 100));
		check(vm_meter_read(VMC_v_vm_faults) == faults + 1);
		check(*word == i + 101 && p[i * PG] == (char)(i + 1));
	}
	stop();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("trap");
	TCase *tc = tcase_create("faults");

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, mask_and_errno);
	tcase_add_loop_test(tc, alternate_stack, 0, 2);
	tcase_add_loop_test(tc, sent_while_inside, 0, 2);
	tcase_add_test(tc, nested_fault_is_fatal);
	tcase_add_test(tc, kinds_of_access);
	tcase_add_test(tc, execute_is_told_from_read);
	tcase_add_test(tc, string_move);
	tcase_add_test(tc, over_two_pages);
	tcase_add_test(tc, locked);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
