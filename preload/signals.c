/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Actions: the table of what the program wants, and how a signal gets there.
 *
 * The table holds each action as the program set it.  A reader is a signal handler, which takes no lock: a
 * counter is odd while an entry is written, and a writer has all signals blocked, so that a reader waits
 * for another thread only.  Whether an entry is still true the kernel knows: SA_RESETHAND takes the action away
 * there, so what is read back is the table's entry only if the kernel still has what goes with it.
 */

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include "signals_impl.h"

static struct kaction table[SIGNALS + 1];	/* guarded by sequence */
static _Atomic unsigned sequence;		/* odd: being written */

static inline bool
is_hidden(int sig)
{
	return sig == SIGSEGV || sig == SIGBUS;
}

static inline bool
is_handler(void (*h)(int))
{
	return h != SIG_DFL && h != SIG_IGN;
}

static void
table_lock(kset *old)
{
	kset all = ~HIDDEN;
	unsigned seq;

	(void)GATE_RAW(SYS_rt_sigprocmask, SIG_BLOCK, &all, old, sizeof(all), 0, 0);
	do
		seq = sequence & ~1u;
	while (!__atomic_compare_exchange_n((unsigned *)&sequence, &seq, seq + 1, false, __ATOMIC_ACQ_REL,
	    __ATOMIC_RELAXED));
}

static void
table_unlock(const kset *old)
{
	sequence++;
	(void)GATE_RAW(SYS_rt_sigprocmask, SIG_SETMASK, old, NULL, sizeof(*old), 0, 0);
}

struct kaction
signals_action(int sig)
{
	struct kaction a;
	unsigned seq;

	do {
		seq = sequence;
		a = table[sig];
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while ((seq & 1) || seq != sequence);
	return a;
}

/* Set an entry and, with the table locked, what the kernel has.  => what the kernel says */
static long
table_set(int sig, const struct kaction *new, struct kaction *old, const struct kaction *kernel,
    struct kaction *kernel_old)
{
	long result = 0;
	kset mask;

	table_lock(&mask);
	*old = table[sig];
	if (new != NULL)
		table[sig] = *new;
	if (kernel_old != NULL)
		result = GATE_RAW(SYS_rt_sigaction, sig, kernel, kernel_old, sizeof(kset), 0, 0);
	if (result != 0)
		table[sig] = *old;
	table_unlock(&mask);
	return result;
}

void
signals_adopt(int sig, const struct sigaction *sa)
{
	struct kaction a = { .handler = sa->sa_handler, .flags = (unsigned)sa->sa_flags }, old;

	memcpy(&a.mask, &sa->sa_mask, sizeof(a.mask));
	(void)table_set(sig, &a, &old, NULL, NULL);
}

/* Another thread of the parent's may have been writing; it is not here. */
void
signals_forked(void)
{
	if (sequence & 1)
		sequence++;
	(void)signals_pid();
}

/* What the kernel is given for the program's action. */
static struct kaction
kernel_action(const struct kaction *a, bool guest)
{
	struct kaction k = *a;

	k.mask &= ~HIDDEN;
	if (!is_handler(a->handler))
		return k;
	if (GATE_ARCH_FRAMES) {
		k.flags |= SA_RESTORER_FLAG;
		k.restorer = signals_restorer;
	}
	/* A guest's handlers are not in the table, which is its host's. */
	if (!guest && (GATE_ARCH_FRAMES || (a->mask & HIDDEN))) {
		k.handler = (void (*)(int))(uintptr_t)signals_wrapper;
		k.flags |= (unsigned)SA_SIGINFO | (GATE_ARCH_FRAMES ? (unsigned)SA_ONSTACK : 0);
		k.mask = ~HIDDEN;
	}
	return k;
}

/* rt_sigaction.  => false: it is the kernel's to say what is wrong with it */
bool
signals_sigaction(struct gate_call *call)
{
	int sig = (int)call->arg[0];
	const void *act = (const void *)call->arg[1];
	void *oldact = (void *)call->arg[2];
	struct kaction new = { 0 }, old, kernel, kernel_old;
	bool guest;

	if (sig < 1 || sig > SIGNALS || sig == SIGKILL || sig == SIGSTOP || call->arg[3] != sizeof(kset))
		return false;
	if (act != NULL && !gate_copy(&new, act, sizeof(new))) {
		call->result = -EFAULT;
		return true;
	}
	new.mask &= ~(kset_of(SIGKILL) | kset_of(SIGSTOP));
	guest = act != NULL && signals_guest();
	if (is_hidden(sig)) {
		/* A guest needs its host's fault handler until it execs. */
		call->result = table_set(sig, act != NULL && !guest ? &new : NULL, &old, NULL, NULL);
		if (act != NULL && !guest && new.handler == SIG_IGN)
			signals_discard(sig);
	} else {
		if (act != NULL)
			kernel = kernel_action(&new, guest);
		call->result = table_set(sig, act != NULL && !guest ? &new : NULL, &old,
		    act != NULL ? &kernel : NULL, &kernel_old);
		if (kernel_old.handler != (void (*)(int))(uintptr_t)signals_wrapper &&
		    kernel_old.handler != old.handler)
			old = kernel_old;	/* reset by SA_RESETHAND, or from before our time */
	}
	if (call->result == 0 && oldact != NULL && !gate_copy(oldact, &old, sizeof(old)))
		call->result = -EFAULT;
	return true;
}

/*
 * Delivery
 */

/*
 * The default, which is death, at the place that was interrupted.  A fault comes again by itself.  Anything
 * else is sent to this thread, and waits until the handler has returned.
 */
static void
take_default(int sig, const siginfo_t *si, bool again)
{
	struct kaction dfl = { .handler = SIG_DFL };
	kset bit = kset_of(sig);

	(void)GATE_RAW(SYS_rt_sigaction, sig, &dfl, NULL, sizeof(kset), 0, 0);
	if (again)
		return;
	(void)GATE_RAW(SYS_rt_sigprocmask, SIG_BLOCK, &bit, NULL, sizeof(bit), 0, 0);
	(void)GATE_RAW(SYS_rt_tgsigqueueinfo, GATE_RAW(SYS_getpid, 0, 0, 0, 0, 0, 0),
	    GATE_RAW(SYS_gettid, 0, 0, 0, 0, 0, 0), sig, si, 0, 0);
}

/* Into the handler.  What is blocked while it runs is the kernel's context's, and for HIDDEN, ours. */
static void
enter(int sig, siginfo_t *si, ucontext_t *uc, const struct kaction *a)
{
	kset blocked = signals_blocked() | (a->mask & HIDDEN);

	if (!(a->flags & (unsigned)SA_NODEFER))
		blocked |= kset_of(sig) & HIDDEN;
	if (!signals_enter(sig, si, uc, a, blocked))
		take_default(SIGSEGV, si, false);	/* as the kernel does */
}

void
signals_deliver(int sig, siginfo_t *si, void *context)
{
	bool sent = si->si_code <= 0, again;
	struct kaction a, dfl = { .handler = SIG_DFL };

	if (gate_trap(context) || (sent && signals_is_wake(si)))
		return;
	a = signals_action(sig);
	if (sent && (signals_blocked() & kset_of(sig))) {
		signals_pend(sig, si);
		return;
	}
	if (sent && a.handler == SIG_IGN)
		return;
	/* A fault can be neither ignored nor blocked. */
	if (!is_handler(a.handler) || (signals_blocked() & kset_of(sig))) {
		again = !sent && sig == SIGSEGV;
		take_default(sig, si, again);
		return;
	}
	if (a.flags & (unsigned)SA_RESETHAND)
		(void)table_set(sig, &dfl, &(struct kaction){ 0 }, NULL, NULL);
	enter(sig, si, context, &a);
}

void
signals_wrapper(int sig, siginfo_t *si, void *context)
{
	struct kaction a = signals_action(sig);

	if (a.handler == SIG_IGN)
		return;
	if (a.handler == SIG_DFL) {	/* changed since the kernel chose us */
		(void)GATE_RAW(SYS_rt_tgsigqueueinfo, GATE_RAW(SYS_getpid, 0, 0, 0, 0, 0, 0),
		    GATE_RAW(SYS_gettid, 0, 0, 0, 0, 0, 0), sig, si, 0, 0);
		return;
	}
	enter(sig, si, context, &a);
}

/*
 * exec
 */

static const int hidden[2] = { SIGSEGV, SIGBUS };

void
signals_exec_begin(struct signals_exec *state)
{
	struct kaction ignore = { .handler = SIG_IGN };

	for (int i = 0; i < 2; i++) {
		state->ignored[i] = signals_action(hidden[i]).handler == SIG_IGN &&
		    GATE_RAW(SYS_rt_sigaction, hidden[i], &ignore, &state->action[i], sizeof(kset), 0, 0) == 0;
	}
	state->blocked = signals_blocked();
	if (state->blocked != 0)
		(void)GATE_RAW(SYS_rt_sigprocmask, SIG_BLOCK, &state->blocked, NULL, sizeof(kset), 0, 0);
}

void
signals_exec_failed(const struct signals_exec *state)
{
	if (state->blocked != 0)
		(void)GATE_RAW(SYS_rt_sigprocmask, SIG_UNBLOCK, &state->blocked, NULL, sizeof(kset), 0, 0);
	for (int i = 0; i < 2; i++)
		if (state->ignored[i])
			(void)GATE_RAW(SYS_rt_sigaction, hidden[i], &state->action[i], NULL, sizeof(kset), 0, 0);
}
