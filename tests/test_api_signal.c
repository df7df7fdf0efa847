/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Faults and signals, through vmfault.h alone.
 *
 * What kills is tried in a child that is forked before vmf_init(), so that it is
 * an ordinary program: its wait status must be what the kernel itself would have
 * made of the same mistake.  Each child has an alarm, so that what should end
 * and does not is seen as SIGALRM.
 */

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "suite.h"
#include "support.h"

static int64_t
get_error(void *cookie, uint64_t offset, void *buf, size_t len)
{
	return (intptr_t)cookie;
}

/* A page whose pager answers with this error. */
static char *
bad_page(int error)
{
	struct vmf_pager_ops ops = { .size = sizeof(ops), .get = get_error };
	vmf_pager_t pager;
	void *at = NULL;

	expect(vmf_pager_create(&ops, (void *)(intptr_t)error, PG, 0, &pager), 0);
	expect(vmf_map(VMF_TASK_DEFAULT, &at, PG, VMF_MAP_PRIVATE, pager, 0, VMF_PROT_DEFAULT), 0);
	return at;
}

static char *
unmapped_page(void)
{
	char *p = alloc(1);

	expect(vmf_unmap(p, PG), 0);
	return p;
}

static char *
forbidden_page(int prot)
{
	char *p = alloc(1);

	expect(vmf_protect(p, PG, prot), 0);
	return p;
}

/* Every class of fault: 0 reads where nothing is, and so on. */
enum { UNMAPPED, NO_READ, NO_WRITE, PAGER_ERROR, PAGER_END, NO_FRAME, FOREIGN, CLASSES };

static const struct {
	int signo, code;
} class[CLASSES] = {
	[UNMAPPED] = { SIGSEGV, SEGV_MAPERR },
	[NO_READ] = { SIGSEGV, SEGV_ACCERR },
	[NO_WRITE] = { SIGSEGV, SEGV_ACCERR },
	[PAGER_ERROR] = { SIGBUS, BUS_ADRERR },
	[PAGER_END] = { SIGBUS, BUS_ADRERR },
	[NO_FRAME] = { SIGBUS, BUS_OBJERR },
	[FOREIGN] = { SIGSEGV, SEGV_MAPERR },
};

static char *volatile target;		/* where it will be touched; a handler checks si_addr */

static void
commit(int k)
{
	char *p;

	switch (k) {
	case UNMAPPED:
		target = unmapped_page() + 11;
		break;
	case NO_READ:
		target = forbidden_page(VMF_PROT_NONE) + 22;
		break;
	case NO_WRITE:
		target = forbidden_page(VMF_PROT_READ) + 33;
		*(volatile char *)target = 1;
		return;
	case PAGER_ERROR:
		target = bad_page(-EIO) + 44;
		break;
	case PAGER_END:
		target = bad_page(-ENXIO) + 55;
		break;
	case NO_FRAME:
		p = alloc(1024);
		for (target = p; target < p + 1024 * PG; target += PG)
			*(volatile char *)target = 1;
		return;
	case FOREIGN:
		target = (char *)8;
		break;
	}
	(void)*(volatile char *)target;
}

static void
child_start(void)
{
	struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_CORE, &none);
	signal(SIGSEGV, SIG_DFL);
	signal(SIGBUS, SIG_DFL);
	alarm(30);
	start(128 * PG, 0);
}

static void
die_of(void *arg)
{
	child_start();
	commit((int)(intptr_t)arg);
}

START_TEST(the_default_action_kills_with_the_right_signal)
{
	expect_killed(in_child(die_of, (void *)(intptr_t)_i), class[_i].signo);
}
END_TEST

static volatile sig_atomic_t handled;	/* calls of a handler, or the class it expects */

static void
exit_seven(int signo, siginfo_t *info, void *context)
{
	if (signo != class[handled].signo || info->si_signo != signo ||
	    info->si_code != class[handled].code || info->si_addr != target)
		_exit(1);
	_exit(7);
}

static void
install(int how, void (*fn)(int, siginfo_t *, void *), int flags)
{
	struct sigaction act = { .sa_sigaction = fn, .sa_flags = SA_SIGINFO | flags };

	for (int i = 0; i < 2; i++) {
		if (how == 0)
			check(sigaction(i ? SIGBUS : SIGSEGV, &act, NULL) == 0);
		else
			expect(vmf_sigaction(i ? SIGBUS : SIGSEGV, &act, NULL), 0);
	}
}

static void
exit_by_earlier_handler(void *arg)
{
	alarm(30);
	install(0, exit_seven, 0);
	start(128 * PG, 0);
	handled = (int)(intptr_t)arg;
	commit(handled);
}

static void
exit_by_later_handler(void *arg)
{
	child_start();
	install(1, exit_seven, 0);
	handled = (int)(intptr_t)arg;
	commit(handled);
}

START_TEST(a_handler_is_told_signal_code_and_address)
{
	void *arg = (void *)(intptr_t)_i;

	expect_exit(in_child(exit_by_earlier_handler, arg), 7);
	expect_exit(in_child(exit_by_later_handler, arg), 7);
}
END_TEST

static void
exit_eight(int signo)
{
	_exit(signo == SIGSEGV ? 8 : 1);
}

static void
exit_by_plain_handler(void *arg)
{
	struct sigaction act = { .sa_handler = exit_eight }, old;

	child_start();
	expect(vmf_sigaction(SIGSEGV, &act, &old), 0);
	check(old.sa_handler == SIG_DFL);
	expect(vmf_sigaction(SIGSEGV, NULL, &old), 0);
	check(old.sa_handler == exit_eight && !(old.sa_flags & SA_SIGINFO));
	commit((int)(intptr_t)arg);
}

START_TEST(a_handler_without_siginfo_is_called)
{
	expect_exit(in_child(exit_by_plain_handler, (void *)UNMAPPED), 8);
	expect_exit(in_child(exit_by_plain_handler, (void *)FOREIGN), 8);
}
END_TEST

static sem_t own_done;
static void (*replaced)(int, siginfo_t *, void *);

static void
own_handler(int signo, siginfo_t *info, void *context)
{
	if (info->si_addr == (void *)8)
		_exit(9);
	replaced(signo, info, context);
}

static void
exit_by_own_sigaction(void *arg)
{
	struct sigaction act = { .sa_sigaction = own_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK },
	    old;
	char *p;

	child_start();
	check(sigaction(SIGSEGV, &act, &old) == 0);
	replaced = old.sa_sigaction;
	p = alloc(64);
	fill_pages(p, 64, 1);
	check_pages(p, 64, 1);
	if (arg != NULL)
		expect(vmf_fini(), 0);	/* leaves an action that is not its own alone */
	check(sigaction(SIGSEGV, NULL, &old) == 0 && old.sa_sigaction == own_handler);
	commit(FOREIGN);
}

START_TEST(a_program_may_put_its_own_handler_in_front)
{
	expect_exit(in_child(exit_by_own_sigaction, NULL), 9);
	expect_exit(in_child(exit_by_own_sigaction, (void *)1), 9);
}
END_TEST

static void
count_and_unmask(int signo, siginfo_t *info, void *context)
{
	sigset_t now;

	check(sigprocmask(SIG_BLOCK, NULL, &now) == 0);
	check(sigismember(&now, SIGUSR1) == 1 && sigismember(&now, SIGUSR2) == 0);
	handled++;
	expect(vmf_protect(target - (uintptr_t)target % PG, PG, VMF_PROT_DEFAULT), 0);
}

/* The handler repairs and returns; the touch is done again and succeeds. */
static void
repair(void *arg)
{
	struct sigaction act = { .sa_sigaction = count_and_unmask, .sa_flags = SA_SIGINFO |
	    (int)(intptr_t)arg };

	child_start();
	sigemptyset(&act.sa_mask);
	sigaddset(&act.sa_mask, SIGUSR1);
	expect(vmf_sigaction(SIGSEGV, &act, NULL), 0);
	for (int i = 1; i <= 100; i++) {
		sigset_t now;

		commit(NO_WRITE);
		check(handled == i && *target == 1);
		check(sigprocmask(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, SIGUSR1) == 0);
	}
}

START_TEST(a_handler_runs_with_its_mask_and_may_repair)
{
	expect_exit(in_child(repair, NULL), 0);
	expect_exit(in_child(repair, (void *)SA_NODEFER), 0);
	expect_exit(in_child(repair, (void *)SA_ONSTACK), 0);
}
END_TEST

static void
count_only(int signo, siginfo_t *info, void *context)
{
	if (++handled > 1)
		_exit(1);
}

static void
die_at_the_second(void *arg)
{
	child_start();
	install(1, count_only, SA_RESETHAND);
	commit((int)(intptr_t)arg);
}

START_TEST(resethand_leaves_the_default_for_the_second)
{
	expect_killed(in_child(die_at_the_second, (void *)NO_WRITE), SIGSEGV);
	expect_killed(in_child(die_at_the_second, (void *)PAGER_ERROR), SIGBUS);
	expect_killed(in_child(die_at_the_second, (void *)FOREIGN), SIGSEGV);
}
END_TEST

START_TEST(jumping_out_of_a_handler_leaves_nothing_behind)
{
	sigset_t before, after;
	char *p, *q;

	start(0, 0);
	p = alloc(8);
	q = unmapped_page();
	sigprocmask(SIG_BLOCK, NULL, &before);
	for (uint64_t i = 0; i < 300; i++) {
		expect_read(q + i, SIGSEGV, SEGV_MAPERR);
		expect(vmf_protect(p, PG, VMF_PROT_READ), 0);
		expect_write(p + i, SIGSEGV, SEGV_ACCERR);
		expect(vmf_protect(p, PG, VMF_PROT_DEFAULT), 0);
		fill_pages(p, 8, i);
		check_pages(p, 8, i);
		expect_read((void *)8, SIGSEGV, SEGV_MAPERR);
	}
	sigprocmask(SIG_BLOCK, NULL, &after);
	for (int s = 1; s < 32; s++)
		ck_assert_int_eq(sigismember(&before, s), sigismember(&after, s));
	stop();
}
END_TEST

static char *handler_memory;

static void
touch_in_handler(int signo, siginfo_t *info, void *context)
{
	size_t i = (size_t)handled++ * 4;

	fill_pages(handler_memory + i * PG, 4, (uint64_t)i);
	check_pages(handler_memory + i * PG, 4, (uint64_t)i);
	if (signo == SIGSEGV)
		expect(vmf_protect(target - (uintptr_t)target % PG, PG, VMF_PROT_DEFAULT), 0);
}

/* In SIGSEGV's own handler too, with no SA_NODEFER. */
static void
handlers_touch(void *arg)
{
	struct sigaction act = { .sa_sigaction = touch_in_handler, .sa_flags = SA_SIGINFO };

	child_start();
	handler_memory = alloc(64);
	install(1, touch_in_handler, 0);
	check(sigaction(SIGUSR1, &act, NULL) == 0);
	for (int i = 0; i < 8; i++) {
		raise(SIGUSR1);
		commit(NO_WRITE);
	}
	check(handled == 16);
}

START_TEST(handlers_touch_managed_memory)
{
	expect_exit(in_child(handlers_touch, NULL), 0);
}
END_TEST

static char *storm_memory;
static volatile uint64_t storms;

static void
storm(int signo)
{
	size_t i = (size_t)(storms++ * 37 % 64);

	storm_memory[i * PG]++;
	storm_memory[(i * 5 + 1) % 64 * PG + 9]++;
}

START_TEST(a_storm_of_signals_meets_faults_and_snapshots)
{
	struct itimerval fast = { { 0, 700 }, { 0, 700 } }, off = { { 0, 0 }, { 0, 0 } };
	uint64_t until = now_ms() + 1500, n = 0, sum = 0;
	struct vmf_range r[2];
	vmf_snapshot_t s;
	char *p, *v;

	start(0, 0);
	p = alloc(128);
	storm_memory = alloc(64);
	r[0] = (struct vmf_range){ p, 128 * PG };
	r[1] = (struct vmf_range){ storm_memory, 64 * PG };
	signal(SIGALRM, storm);
	setitimer(ITIMER_REAL, &fast, NULL);
	while (now_ms() < until || storms <= 100) {
		fill_pages(p, 128, n);
		expect(vmf_snapshot_create(r, 2, &s), 0);
		fill_pages(p, 64, n + 1);
		check_pages(p, 64, n + 1);
		expect(vmf_protect(storm_memory, 32 * PG, VMF_PROT_DEFAULT), 0);
		v = view(s, 128, VMF_PROT_READ);
		check_pages(v, 128, n);
		expect(vmf_unmap(v, 128 * PG), 0);
		expect(vmf_snapshot_release(s), 0);
		n++;
	}
	setitimer(ITIMER_REAL, &off, NULL);
	for (size_t i = 0; i < 64; i++)		/* bytes wrap; their sum modulo 256 does not care */
		sum += (uint64_t)(unsigned char)storm_memory[i * PG] +
		    (unsigned char)storm_memory[i * PG + 9];
	ck_assert_uint_eq(sum % 256, 2 * storms % 256);
	stop();
}
END_TEST

static void
kill_self(void *arg)
{
	child_start();
	kill(getpid(), (int)(intptr_t)arg);
	sleep(5);
}

static void
sent(int signo, siginfo_t *info, void *context)
{
	_exit(info->si_code == SI_USER && info->si_pid == getpid() ? 6 : 1);
}

static void
kill_self_handled(void *arg)
{
	alarm(30);
	if (arg == NULL)
		install(0, sent, 0);
	start(0, 0);
	if (arg != NULL)
		install(1, sent, 0);
	kill(getpid(), SIGSEGV);
	sleep(5);
}

static void
kill_self_ignored(void *arg)
{
	alarm(30);
	signal(SIGSEGV, SIG_IGN);
	start(0, 0);
	kill(getpid(), SIGSEGV);
	fill(alloc(1), PG, 1);
	if (arg != NULL)
		commit(FOREIGN);	/* what the kernel raises cannot be ignored */
}

START_TEST(a_signal_that_was_sent_is_the_program_s)
{
	expect_killed(in_child(kill_self, (void *)SIGSEGV), SIGSEGV);
	expect_killed(in_child(kill_self, (void *)SIGBUS), SIGBUS);
	expect_exit(in_child(kill_self_handled, NULL), 6);
	expect_exit(in_child(kill_self_handled, (void *)1), 6);
	expect_exit(in_child(kill_self_ignored, NULL), 0);
	expect_killed(in_child(kill_self_ignored, (void *)1), SIGSEGV);
}
END_TEST

static sem_t go;
static char *thread_memory;

static void *
fault_in_thread(void *arg)
{
	size_t i = (size_t)(uintptr_t)arg;

	sem_wait(&go);
	fill_pages(thread_memory + i * 16 * PG, 16, i);
	check_pages(thread_memory + i * 16 * PG, 16, i);
	expect_read((char *)8 + i, SIGSEGV, SEGV_MAPERR);
	sem_post(&own_done);
	return NULL;
}

START_TEST(threads_made_before_and_after_init_fault_alike)
{
	pthread_t thread[4];

	sem_init(&go, 0, 0);
	sem_init(&own_done, 0, 0);
	for (size_t i = 0; i < 4; i++) {
		if (i == 2) {
			start(0, 0);
			touch_install();
			thread_memory = alloc(64);
		}
		pthread_create(&thread[i], NULL, fault_in_thread, (void *)(uintptr_t)i);
	}
	for (int i = 0; i < 4; i++)
		sem_post(&go);
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	for (size_t i = 0; i < 4; i++)
		check_pages(thread_memory + i * 16 * PG, 16, i);
	stop();
}
END_TEST

/* Use a page of stack a level; the sum is a check on what came back. */
static uint64_t __attribute__((__noinline__))
deep(unsigned level)
{
	volatile char page[VMF_PAGE_SIZE];
	uint64_t below;

	page[0] = page[VMF_PAGE_SIZE - 1] = (char)level;
	below = level == 0 ? 0 : deep(level - 1);
	return below + (unsigned char)page[0] + (unsigned char)page[VMF_PAGE_SIZE - 1];
}

enum { STACK = 256, STACK_WIRED = 16, DEPTH = 100 };

static uint64_t deep_result;

static void *
run_deep(void *arg)
{
	expect(vmf_thread_attach(), 0);
	expect(vmf_thread_attach(), -EALREADY);
	deep_result = deep(DEPTH);
	expect(vmf_thread_detach(), 0);
	return NULL;
}

START_TEST(a_thread_runs_on_a_stack_in_managed_memory)
{
	pthread_attr_t attr;
	pthread_t thread;
	char *stack;

	start(0, 0);
	stack = alloc(STACK);
	expect(vmf_wire(stack + (STACK - STACK_WIRED) * PG, STACK_WIRED * PG), 0);
	pthread_attr_init(&attr);
	ck_assert_int_eq(pthread_attr_setstack(&attr, stack, STACK * PG), 0);
	ck_assert_int_eq(pthread_create(&thread, &attr, run_deep, NULL), 0);
	pthread_join(thread, NULL);
	ck_assert_uint_eq(deep_result, DEPTH * (DEPTH + 1));
	expect(vmf_unwire(stack + (STACK - STACK_WIRED) * PG, STACK_WIRED * PG), 0);
	stop();
}
END_TEST

static ucontext_t main_context, stack_context;

static void
context_main(void)
{
	deep_result = deep(DEPTH);
}

START_TEST(a_context_runs_on_a_stack_in_managed_memory)
{
	char *stack;

	start(0, 0);
	expect(vmf_thread_attach(), 0);
	stack = alloc(STACK);
	getcontext(&stack_context);
	stack_context.uc_stack.ss_sp = stack;
	stack_context.uc_stack.ss_size = STACK * PG;
	stack_context.uc_link = &main_context;
	makecontext(&stack_context, context_main, 0);
	swapcontext(&main_context, &stack_context);
	ck_assert_uint_eq(deep_result, DEPTH * (DEPTH + 1));
	expect(vmf_thread_detach(), 0);
	stop();
}
END_TEST

START_TEST(a_fault_leaves_errno_alone)
{
	char *p;

	start(0, 0);
	p = alloc(16);
	errno = 4711;
	for (size_t i = 0; i < 16; i++)
		p[i * PG] = 1;
	ck_assert_int_eq(errno, 4711);
	stop();
}
END_TEST

START_TEST(fini_restores_the_actions_it_found)
{
	struct sigaction act = { .sa_handler = exit_eight, .sa_flags = SA_RESTART }, old;

	ck_assert_int_eq(sigaction(SIGSEGV, &act, NULL), 0);
	start(0, 0);
	fill_pages(alloc(4), 4, 1);
	stop();
	ck_assert_int_eq(sigaction(SIGSEGV, NULL, &old), 0);
	ck_assert(old.sa_handler == exit_eight && (old.sa_flags & SA_RESTART));
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("api signal");
	TCase *t = tcase_create("signal");

	tcase_add_loop_test(t, the_default_action_kills_with_the_right_signal, 0, CLASSES);
	tcase_add_loop_test(t, a_handler_is_told_signal_code_and_address, 0, CLASSES);
	tcase_add_test(t, a_handler_without_siginfo_is_called);
	tcase_add_test(t, a_program_may_put_its_own_handler_in_front);
	tcase_add_test(t, a_handler_runs_with_its_mask_and_may_repair);
	tcase_add_test(t, resethand_leaves_the_default_for_the_second);
	tcase_add_test(t, jumping_out_of_a_handler_leaves_nothing_behind);
	tcase_add_test(t, handlers_touch_managed_memory);
	tcase_add_test(t, a_storm_of_signals_meets_faults_and_snapshots);
	tcase_add_test(t, a_signal_that_was_sent_is_the_program_s);
	tcase_add_test(t, threads_made_before_and_after_init_fault_alike);
	tcase_add_test(t, a_thread_runs_on_a_stack_in_managed_memory);
	tcase_add_test(t, a_context_runs_on_a_stack_in_managed_memory);
	tcase_add_test(t, a_fault_leaves_errno_alone);
	tcase_add_test(t, fini_restores_the_actions_it_found);
	suite_add_tcase(s, t);
	return run_suite(s);
}
