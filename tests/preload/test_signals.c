/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The signal gate: what a program sees of its signals is what it would see without us, and a page that is
 * not there comes, whatever is blocked.
 */

#include <check.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "../suite.h"
#include "gate.h"
#include "gate_fake.h"
#include "gate_impl.h"
#include "signals_impl.h"

static volatile char *page;		/* managed */
static volatile char *hole;		/* not ours, and not accessible */
static volatile sig_atomic_t count;
static sigjmp_buf out;

static void
start(void)
{
	ck_assert_int_eq(fake_start(GATE_PATCH, 0, NULL), 0);
	page = fake_pages(FAKE_PAGE);
	hole = mmap(NULL, FAKE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	count = 0;
}

/* A touch of managed memory that is not there. */
static void
touch(void)
{
	(void)fake_evict((void *)page, 1, false);
	*page = 1;
}

static void
touching(int sig)
{
	touch();
	count++;
}

static bool
is_blocked(int sig)
{
	sigset_t now;

	ck_assert_int_eq(pthread_sigmask(SIG_BLOCK, NULL, &now), 0);
	return sigismember(&now, sig) == 1;
}

static bool
kernel_blocks(int sig)
{
	kset now;

	(void)GATE_RAW(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &now, sizeof(now), 0, 0);
	return (now & kset_of(sig)) != 0;
}

static void
block(int how, int sig)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	ck_assert_int_eq(pthread_sigmask(how, &set, NULL), 0);
}

static void
action(int sig, void (*handler)(int), int flags)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = flags };

	ck_assert_int_eq(sigaction(sig, &sa, NULL), 0);
}

/* Run in a child.  => its status */
static int
in_child(void (*f)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		f();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

static void *
thread_blocked(void *arg)
{
	touch();
	return (void *)(uintptr_t)(is_blocked(SIGSEGV) && is_blocked(SIGUSR1) && !kernel_blocks(SIGSEGV));
}

START_TEST(a_full_mask_is_read_back_and_faults_go_on)
{
	sigset_t all, old, now;
	void *result;
	pthread_t t;

	sigfillset(&all);
	ck_assert_int_eq(sigprocmask(SIG_SETMASK, &all, &old), 0);
	ck_assert_int_eq(sigismember(&old, SIGSEGV), 0);
	touch();
	ck_assert(is_blocked(SIGSEGV) && is_blocked(SIGBUS) && is_blocked(SIGUSR1));
	ck_assert(!kernel_blocks(SIGSEGV) && !kernel_blocks(SIGBUS) && kernel_blocks(SIGUSR1));
	ck_assert_int_eq(pthread_create(&t, NULL, thread_blocked, NULL), 0);
	ck_assert_int_eq(pthread_join(t, &result), 0);
	ck_assert_ptr_nonnull(result);
	ck_assert_int_eq(sigprocmask(SIG_SETMASK, &old, &now), 0);
	ck_assert_int_eq(sigismember(&now, SIGSEGV), 1);
	ck_assert(!is_blocked(SIGSEGV));
	block(SIG_BLOCK, SIGBUS);
	ck_assert(is_blocked(SIGBUS) && !is_blocked(SIGSEGV));
	block(SIG_UNBLOCK, SIGBUS);
	ck_assert(!is_blocked(SIGBUS));
}
END_TEST

static volatile bool was_blocked;

static void
touching_blocked(int sig)
{
	was_blocked = is_blocked(SIGSEGV) && is_blocked(SIGBUS) && is_blocked(SIGUSR2) && !is_blocked(SIGURG);
	touching(sig);
}

START_TEST(a_handler_may_block_everything)
{
	struct sigaction sa = { .sa_handler = touching_blocked, .sa_flags = SA_RESTART }, now;

	sigfillset(&sa.sa_mask);
	sigdelset(&sa.sa_mask, SIGURG);
	ck_assert_int_eq(sigaction(SIGUSR1, &sa, NULL), 0);
	for (int i = 1; i <= 3; i++) {
		ck_assert_int_eq(raise(SIGUSR1), 0);
		ck_assert_int_eq(count, i);
		ck_assert(was_blocked);
		ck_assert(!is_blocked(SIGSEGV) && !is_blocked(SIGUSR2));
	}
	ck_assert_int_eq(sigaction(SIGUSR1, NULL, &now), 0);
	ck_assert(now.sa_handler == touching_blocked);
	ck_assert_int_eq(now.sa_flags & ~0x04000000, SA_RESTART);
	ck_assert_int_eq(sigismember(&now.sa_mask, SIGSEGV), 1);
	ck_assert_int_eq(sigismember(&now.sa_mask, SIGURG), 0);
}
END_TEST

START_TEST(a_handler_is_reset_once)
{
	struct sigaction sa = { .sa_handler = touching, .sa_flags = (int)SA_RESETHAND }, now;

	sigaddset(&sa.sa_mask, SIGSEGV);
	ck_assert_int_eq(sigaction(SIGURG, &sa, NULL), 0);
	ck_assert_int_eq(raise(SIGURG), 0);
	ck_assert_int_eq(raise(SIGURG), 0);
	ck_assert_int_eq(count, 1);
	ck_assert_int_eq(sigaction(SIGURG, NULL, &now), 0);
	ck_assert(now.sa_handler == SIG_DFL);
}
END_TEST

START_TEST(waits_with_a_full_mask_still_fault)
{
	sigset_t all, none, set;
	struct timespec ts = { 1, 0 };
	struct epoll_event ev;
	struct pollfd pfd;
	fd_set fds;
	int ends[2], ep = epoll_create1(0);

	action(SIGALRM, touching, 0);
	sigfillset(&all);
	sigdelset(&all, SIGALRM);
	sigemptyset(&none);
	ck_assert_int_eq(pipe(ends), 0);
	pfd = (struct pollfd){ ends[0], POLLIN, 0 };
	block(SIG_BLOCK, SIGALRM);
	for (int i = 0; i < 4; i++) {
		ualarm(5000, 0);
		FD_ZERO(&fds);
		FD_SET(ends[0], &fds);
		switch (i) {
		case 0:
			ck_assert_int_eq(ppoll(&pfd, 1, &ts, &all), -1);
			break;
		case 1:
			ck_assert_int_eq(pselect(ends[0] + 1, &fds, NULL, NULL, &ts, &all), -1);
			break;
		case 2:
			ck_assert_int_eq(epoll_pwait(ep, &ev, 1, 1000, &all), -1);
			break;
		default:
			ck_assert_int_eq(sigsuspend(&all), -1);
			break;
		}
		ck_assert_int_eq(errno, EINTR);
		ck_assert_int_eq(count, i + 1);
		ck_assert(!is_blocked(SIGSEGV));
	}
	/* signalfd with everything in it */
	sigfillset(&set);
	ck_assert_int_eq(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	ends[0] = signalfd(-1, &set, SFD_NONBLOCK);
	ck_assert_int_eq(raise(SIGUSR1), 0);
	struct signalfd_siginfo si;
	ck_assert_int_eq(read(ends[0], &si, sizeof(si)), (ssize_t)sizeof(si));
	ck_assert_uint_eq(si.ssi_signo, SIGUSR1);
	touch();
}
END_TEST

/*
 * The program's own SIGSEGV
 */

static volatile bool on_alt;
static char *alt_base;
static size_t alt_size;

static void
mend(int sig, siginfo_t *si, void *context)
{
	char here;

	on_alt = alt_base != NULL && &here > alt_base && &here < alt_base + alt_size;
	was_blocked = is_blocked(SIGSEGV);
	touch();
	if (sig == SIGSEGV && si->si_addr == (void *)hole && si->si_code == SEGV_ACCERR)
		count++;
	(void)mprotect((void *)hole, FAKE_PAGE, PROT_READ | PROT_WRITE);
}

static void
mending(int flags)
{
	struct sigaction sa = { .sa_sigaction = mend, .sa_flags = SA_SIGINFO | flags };

	ck_assert_int_eq(sigaction(SIGSEGV, &sa, NULL), 0);
}

static void
fault_once(void)
{
	(void)mprotect((void *)hole, FAKE_PAGE, PROT_NONE);
	*hole = 1;
}

START_TEST(a_fault_of_the_programs_is_its_own)
{
	struct sigaction now;

	mending(0);
	fault_once();
	ck_assert_int_eq(count, 1);
	ck_assert(was_blocked && !on_alt);
	ck_assert(!is_blocked(SIGSEGV));
	block(SIG_BLOCK, SIGBUS);
	fault_once();
	ck_assert_int_eq(count, 2);
	ck_assert(is_blocked(SIGBUS) && !is_blocked(SIGSEGV));
	mending(SA_NODEFER);
	fault_once();
	ck_assert_int_eq(count, 3);
	ck_assert(!was_blocked);
	ck_assert_int_eq(sigaction(SIGSEGV, NULL, &now), 0);
	ck_assert(now.sa_sigaction == mend);
	touch();
}
END_TEST

static void
alt(char *base, size_t n, int flags)
{
	stack_t ss = { .ss_sp = base, .ss_size = n, .ss_flags = flags };

	ck_assert_int_eq(sigaltstack(&ss, NULL), 0);
	alt_base = base;
	alt_size = n;
}

static volatile int alt_flags, alt_error;

static void
look_at_alt(int sig)
{
	stack_t ss, other = { .ss_sp = (char *)hole, .ss_size = 8192 };
	char here;

	on_alt = &here > alt_base && &here < alt_base + alt_size;
	touch();
	(void)sigaltstack(NULL, &ss);
	alt_flags = ss.ss_flags;
	alt_error = sigaltstack(&other, NULL) == 0 ? 0 : errno;
	count++;
}

START_TEST(the_alternate_stack_is_the_programs)
{
	stack_t ss;

	ck_assert_int_eq(sigaltstack(NULL, &ss), 0);
	ck_assert_int_eq(ss.ss_flags, SS_DISABLE);
	/* managed, and small */
	alt(fake_pages(8192), 8192, 0);
	ck_assert_int_eq(sigaltstack(NULL, &ss), 0);
	ck_assert_ptr_eq(ss.ss_sp, alt_base);
	ck_assert_uint_eq(ss.ss_size, 8192);
	ck_assert_int_eq(ss.ss_flags, 0);
	mending(SA_ONSTACK);
	fault_once();
	ck_assert_int_eq(count, 1);
	ck_assert(on_alt);
	mending(0);
	fault_once();
	ck_assert(!on_alt);
	action(SIGUSR1, look_at_alt, SA_ONSTACK);
	for (int i = 0; i < 100; i++) {
		count = 0;
		ck_assert_uint_eq(fake_evict(alt_base, 8192, false), 0);
		ck_assert_int_eq(raise(SIGUSR1), 0);
		ck_assert_int_eq(count, 1);
		ck_assert(on_alt);
		ck_assert_int_eq(alt_flags, SS_ONSTACK);
		ck_assert_int_eq(alt_error, EPERM);
	}
	action(SIGUSR1, look_at_alt, 0);
	ck_assert_int_eq(raise(SIGUSR1), 0);
	ck_assert(!on_alt);
	ck_assert_int_eq(alt_flags, 0);
	/* what it set in the handler */
	ck_assert_int_eq(alt_error, 0);
	ss = (stack_t){ .ss_flags = SS_DISABLE };
	ck_assert_int_eq(sigaltstack(&ss, NULL), 0);
	ck_assert_uint_eq(fake_stats.pinned, 0);
	ss = (stack_t){ .ss_sp = alt_base, .ss_size = 100 };
	ck_assert_int_eq(sigaltstack(&ss, NULL), -1);
	ck_assert_int_eq(errno, ENOMEM);
}
END_TEST

START_TEST(an_alternate_stack_disarms_itself)
{
	stack_t ss;

	alt(fake_pages(16384), 16384, (int)SS_AUTODISARM);
	action(SIGUSR1, look_at_alt, SA_ONSTACK);
	ck_assert_int_eq(raise(SIGUSR1), 0);
	ck_assert(on_alt);
	ck_assert_int_eq(alt_flags & SS_DISABLE, SS_DISABLE);
	ck_assert_int_eq(sigaltstack(NULL, &ss), 0);
	ck_assert_int_eq(ss.ss_flags & (SS_DISABLE | SS_ONSTACK), 0);
	ck_assert_ptr_eq(ss.ss_sp, alt_base);
}
END_TEST

static void
jump(int sig)
{
	touch();
	count++;
	siglongjmp(out, 1);
}

static void
fault_deep(int depth)
{
	volatile char room[200];

	room[0] = room[1] = 0;
	if (depth > 0)
		fault_deep(depth - 1);
	else
		*hole = 1;
	room[1] = room[0];
}

/* Each of them would leave a frame on our alternate stack, were it there that they run. */
START_TEST(handlers_longjmp_away_for_ever)
{
	for (int flags = 0; flags < 2; flags++) {
		if (flags)
			alt(malloc(16384), 16384, 0);
		action(SIGSEGV, jump, flags ? SA_ONSTACK : 0);
		count = 0;
		for (volatile int i = 0; i < 2000; i++)
			if (sigsetjmp(out, 1) == 0) {
				fault_deep(i % 100);
				ck_abort();
			}
		ck_assert_int_eq(count, 2000);
		ck_assert(!is_blocked(SIGSEGV));
		touch();
	}
}
END_TEST

static volatile int bottomless = 1;

static int
overflow(int depth)
{
	volatile char room[1000];

	room[0] = (char)depth;
	return bottomless ? overflow(depth + 1) + room[0] : 0;
}

static void *
overflow_thread(void *arg)
{
	stack_t ss = { .ss_sp = malloc(16384), .ss_size = 16384 };

	if (arg != NULL)
		ck_assert_int_eq(sigaltstack(&ss, NULL), 0);
	if (sigsetjmp(out, 1) == 0)
		(void)overflow(0);
	return arg;
}

static void
overflow_caught(void)
{
	pthread_t t;
	void *result;

	action(SIGSEGV, jump, SA_ONSTACK);
	(void)pthread_create(&t, NULL, overflow_thread, &out);
	(void)pthread_join(t, &result);
	_exit(result == &out ? 5 : 6);
}

static void
overflow_uncaught(void)
{
	pthread_t t;

	action(SIGSEGV, jump, 0);		/* there is no stack to run it on */
	(void)pthread_create(&t, NULL, overflow_thread, NULL);
	(void)pthread_join(t, NULL);
}

START_TEST(a_stack_that_overflows)
{
	int status = in_child(overflow_caught);

	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 5);
	status = in_child(overflow_uncaught);
	ck_assert(WIFSIGNALED(status));
	ck_assert_int_eq(WTERMSIG(status), SIGSEGV);
}
END_TEST

static void
die_by_default(void)
{
	*hole = 1;
}

static void
die_ignoring(void)
{
	signal(SIGSEGV, SIG_IGN);
	*hole = 1;
}

static void
die_blocked(void)
{
	mending(0);
	block(SIG_BLOCK, SIGSEGV);
	*hole = 1;
}

static void
die_second(void)
{
	mending((int)SA_RESETHAND);
	fault_once();
	fault_once();
}

static void
die_of_bus(void)
{
	int fd = memfd_create("short", 0);
	volatile char *p = mmap(NULL, FAKE_PAGE, PROT_READ, MAP_SHARED, fd, 0);

	(void)*p;
}

static void
die_sent(void)
{
	(void)kill(getpid(), SIGSEGV);
	pause();
}

static void
die_raised(void)
{
	touch();
	raise(SIGBUS);
}

static void
die_aborted(void)
{
	touch();
	abort();
}

static void
live_ignoring(void)
{
	signal(SIGSEGV, SIG_IGN);
	raise(SIGSEGV);
	touch();
}

START_TEST(deaths_are_the_right_ones)
{
	static const struct { void (*f)(void); int sig; } how[] = {
		{ die_by_default, SIGSEGV }, { die_ignoring, SIGSEGV }, { die_blocked, SIGSEGV },
		{ die_second, SIGSEGV }, { die_of_bus, SIGBUS }, { die_sent, SIGSEGV }, { die_raised, SIGBUS },
		{ die_aborted, SIGABRT }, { live_ignoring, 0 },
	};

	for (size_t i = 0; i < sizeof(how) / sizeof(how[0]); i++) {
		int status = in_child(how[i].f);

		ck_assert_msg(how[i].sig == 0 ? status == 0 : WIFSIGNALED(status) &&
		    WTERMSIG(status) == how[i].sig, "number %zu: status %#x", i, (unsigned)status);
	}
}
END_TEST

static siginfo_t seen;

static void
note(int sig, siginfo_t *si, void *context)
{
	touch();
	seen = *si;
	count++;
}

START_TEST(a_sigsegv_that_is_sent_waits_while_it_is_blocked)
{
	struct sigaction sa = { .sa_sigaction = note, .sa_flags = SA_SIGINFO };
	struct timespec none = { 0, 0 };
	sigset_t set, now;
	siginfo_t si;

	ck_assert_int_eq(sigaction(SIGSEGV, &sa, NULL), 0);
	ck_assert_int_eq(kill(getpid(), SIGSEGV), 0);
	ck_assert_int_eq(count, 1);
	ck_assert_int_eq(seen.si_code, SI_USER);
	ck_assert_int_eq(seen.si_pid, getpid());
	for (int i = 0; i < 2; i++) {
		count = 0;
		block(SIG_BLOCK, SIGSEGV);
		ck_assert_int_eq(i == 0 ? kill(getpid(), SIGSEGV) : raise(SIGSEGV), 0);
		ck_assert_int_eq(count, 0);
		touch();
		ck_assert_int_eq(sigpending(&now), 0);
		ck_assert_int_eq(sigismember(&now, SIGSEGV), 1);
		block(SIG_UNBLOCK, SIGSEGV);
		ck_assert_int_eq(count, 1);
		ck_assert_int_eq(seen.si_code, i == 0 ? SI_USER : SI_TKILL);
		ck_assert_int_eq(sigpending(&now), 0);
		ck_assert_int_eq(sigismember(&now, SIGSEGV), 0);
	}
	block(SIG_BLOCK, SIGSEGV);
	ck_assert_int_eq(kill(getpid(), SIGSEGV), 0);
	sigemptyset(&set);
	sigaddset(&set, SIGSEGV);
	ck_assert_int_eq(sigtimedwait(&set, &si, &none), SIGSEGV);
	ck_assert_int_eq(si.si_pid, getpid());
	ck_assert_int_eq(sigtimedwait(&set, &si, &none), -1);
	ck_assert_int_eq(errno, EAGAIN);
	count = 0;
	block(SIG_UNBLOCK, SIGSEGV);
	ck_assert_int_eq(count, 0);
}
END_TEST

static void *
wait_thread(void *arg)
{
	sigset_t all;
	int sig = 0;

	sigfillset(&all);
	(void)sigwait(&all, &sig);
	return (void *)(intptr_t)sig;
}

START_TEST(a_thread_that_waits_for_all_signals_gets_them)
{
	for (int i = 0; i < 2; i++) {
		int sig = i == 0 ? SIGSEGV : SIGTERM;
		sigset_t all;
		void *result;
		pthread_t t;

		sigfillset(&all);
		ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, &all, NULL), 0);
		ck_assert_int_eq(pthread_create(&t, NULL, wait_thread, NULL), 0);
		usleep(50000);
		touch();
		ck_assert_int_eq(kill(getpid(), sig), 0);
		ck_assert_int_eq(pthread_join(t, &result), 0);
		ck_assert_int_eq((int)(intptr_t)result, sig);
	}
}
END_TEST

static void
block_on_return(int sig, siginfo_t *si, void *context)
{
	ucontext_t *uc = context;

	sigaddset(&uc->uc_sigmask, SIGSEGV);
	sigaddset(&uc->uc_sigmask, SIGUSR2);
}

START_TEST(a_handler_may_change_the_mask_it_returns_to)
{
	struct sigaction sa = { .sa_sigaction = block_on_return, .sa_flags = SA_SIGINFO };

	ck_assert_int_eq(sigaction(SIGUSR1, &sa, NULL), 0);
	ck_assert_int_eq(raise(SIGUSR1), 0);
	ck_assert(is_blocked(SIGSEGV) && is_blocked(SIGUSR2));
	ck_assert(!kernel_blocks(SIGSEGV) && kernel_blocks(SIGUSR2));
	touch();
}
END_TEST

static volatile uint32_t x87[7];

static void
skip(int sig, siginfo_t *si, void *context)
{
	__asm__ volatile("fnstenv %0" : "=m"(x87));
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 3;
	__asm__ volatile("xorps %%xmm9, %%xmm9; xor %%r12d, %%r12d; fld1" ::: "xmm9", "r12");
	count++;
}

/* What was interrupted goes on with its registers, where the handler said. */
START_TEST(a_context_can_be_edited)
{
	struct sigaction sa = { .sa_sigaction = skip, .sa_flags = SA_SIGINFO };
	double in = 2.5, seen_xmm;
	long r12 = 0;

	ck_assert_int_eq(sigaction(SIGSEGV, &sa, NULL), 0);
	__asm__ volatile("movsd %[in], %%xmm9\n\t"
	    "mov $77, %%r12\n\t"
	    "fld1\n\t"
	    "mov %%r12, -64(%%rsp)\n\t"		/* the red zone */
	    "movb $1, (%[p])\n\t"
	    "fstp %%st(0)\n\t"
	    "movsd %%xmm9, %[out]\n\t"
	    "cmpq $77, -64(%%rsp)\n\t"
	    "jne 1f\n\t"
	    "mov %%r12, %[r12]\n\t"
	    "1:"
	    : [out] "=m"(seen_xmm), [r12] "+m"(r12) : [in] "m"(in), [p] "a"(hole) : "xmm9", "r12", "memory");
	ck_assert_int_eq(count, 1);
	ck_assert(seen_xmm == 2.5);
	ck_assert_int_eq(r12, 77);
	ck_assert_uint_eq(x87[2] & 0xffff, 0xffff);	/* the handler had registers of its own, all empty */
}
END_TEST

static void *frames[32];
static int nframes;

static void
trace(int sig)
{
	nframes = backtrace(frames, 32);
	(void)mprotect((void *)hole, FAKE_PAGE, PROT_READ | PROT_WRITE);
}

__attribute__((__noinline__)) static void
traced_caller(void)
{
	fault_once();
	__asm__ volatile("" ::: "memory");
}

START_TEST(a_handler_sees_whom_it_interrupted)
{
	bool found = false;
	void *warm[2];

	(void)backtrace(warm, 2);
	action(SIGSEGV, trace, 0);
	traced_caller();
	for (int i = 0; i < nframes; i++)
		found |= (uintptr_t)frames[i] - (uintptr_t)traced_caller < 64;
	ck_assert(found);
}
END_TEST

static void
exec_blocked(void)
{
	sigset_t all;

	sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, NULL);
	signal(SIGBUS, SIG_IGN);
	/* SIGSEGV is 11, SIGBUS 7: bits 10 and 6 */
	execl("/bin/sh", "sh", "-c", "read_hex() { sed -n \"s/^$1:[[:space:]]*//p\" /proc/$$/status; }; "
	    "b=$((0x$(read_hex SigBlk) >> 10 & 1)) i=$((0x$(read_hex SigIgn) >> 6 & 1)); exit $((b * 2 + i))",
	    (char *)NULL);
}

START_TEST(exec_hands_on_what_is_blocked_and_ignored)
{
	int status = in_child(exec_blocked);

	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 3);
	/* One that fails changes nothing. */
	block(SIG_BLOCK, SIGSEGV);
	ck_assert_int_eq(execl("/nonexistent", "x", (char *)NULL), -1);
	touch();
	ck_assert(is_blocked(SIGSEGV) && !kernel_blocks(SIGSEGV));
}
END_TEST

START_TEST(a_vfork_child_changes_nothing)
{
	sigset_t all;
	struct sigaction now;
	int status;
	pid_t pid;

	mending(0);
	sigfillset(&all);
	pid = vfork();
	if (pid == 0) {
		struct sigaction dfl = { .sa_handler = SIG_DFL };

		(void)sigprocmask(SIG_SETMASK, &all, NULL);
		(void)sigaction(SIGSEGV, &dfl, NULL);
		touch();
		_exit(is_blocked(SIGSEGV) ? 4 : 5);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(WEXITSTATUS(status), 4);
	ck_assert(!is_blocked(SIGSEGV) && !is_blocked(SIGUSR1));
	ck_assert_int_eq(sigaction(SIGSEGV, NULL, &now), 0);
	ck_assert(now.sa_sigaction == mend);
	fault_once();
	ck_assert_int_eq(count, 1);
}
END_TEST

static void
check_forked(void)
{
	touch();
	_exit(is_blocked(SIGSEGV) && !is_blocked(SIGBUS) ? 7 : 8);
}

START_TEST(a_forked_child_inherits)
{
	int status;

	block(SIG_BLOCK, SIGSEGV);
	status = in_child(check_forked);
	ck_assert_int_eq(WEXITSTATUS(status), 7);
}
END_TEST

static void *
nothing(void *arg)
{
	return NULL;
}

static size_t
mapped(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	size_t n = 0;

	ck_assert_int_eq(fscanf(f, "%zu", &n), 1);
	fclose(f);
	return n;
}

START_TEST(threads_leave_nothing_behind)
{
	size_t before = 0;

	for (int i = 0; i < 600; i++) {
		pthread_t t;

		if (i == 100)
			before = mapped();
		ck_assert_int_eq(pthread_create(&t, NULL, nothing, NULL), 0);
		ck_assert_int_eq(pthread_join(t, NULL), 0);
	}
	ck_assert_uint_le(mapped(), before + 64);
}
END_TEST

static Suite *
suite(void)
{
	Suite *s = suite_create("signals");
	TCase *tc = tcase_create("signals");

	tcase_add_checked_fixture(tc, start, NULL);
	tcase_add_test(tc, a_full_mask_is_read_back_and_faults_go_on);
	tcase_add_test(tc, a_handler_may_block_everything);
	tcase_add_test(tc, a_handler_is_reset_once);
	tcase_add_test(tc, waits_with_a_full_mask_still_fault);
	tcase_add_test(tc, a_fault_of_the_programs_is_its_own);
	tcase_add_test(tc, the_alternate_stack_is_the_programs);
	tcase_add_test(tc, an_alternate_stack_disarms_itself);
	tcase_add_test(tc, handlers_longjmp_away_for_ever);
	tcase_add_test(tc, a_stack_that_overflows);
	tcase_add_test(tc, deaths_are_the_right_ones);
	tcase_add_test(tc, a_sigsegv_that_is_sent_waits_while_it_is_blocked);
	tcase_add_test(tc, a_thread_that_waits_for_all_signals_gets_them);
	tcase_add_test(tc, a_handler_may_change_the_mask_it_returns_to);
	tcase_add_test(tc, a_context_can_be_edited);
	tcase_add_test(tc, a_handler_sees_whom_it_interrupted);
	tcase_add_test(tc, exec_hands_on_what_is_blocked_and_ignored);
	tcase_add_test(tc, a_vfork_child_changes_nothing);
	tcase_add_test(tc, a_forked_child_inherits);
	tcase_add_test(tc, threads_leave_nothing_behind);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	return run_suite(suite());
}
