/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Masks: what the program blocks, what it waits for, and what is pending meanwhile.
 *
 * The kernel never sees SIGSEGV and SIGBUS blocked, so when somebody sends one that the program has
 * blocked, it arrives; it is kept, and sent again when the program unblocks it, or handed to
 * sigtimedwait().  A signalfd does not see it.
 */

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "signals_impl.h"

VMF_TLS struct signals_thread signals_thread;
struct signals_process *signals_process;

/*
 * Whose memory is it?
 */

int
signals_pid(void)
{
	int pid = (int)GATE_RAW(SYS_getpid, 0, 0, 0, 0, 0, 0);

	if (signals_process->pid == 0)
		signals_process->pid = pid;
	return pid;
}

bool
signals_guest(void)
{
	return signals_pid() != signals_process->pid;
}

kset
signals_blocked(void)
{
	struct signals_thread *t = &signals_thread;

	if (t->child != 0 && t->child == signals_pid())
		return t->child_blocked;
	return t->blocked;
}

static inline int
index_of(int sig)
{
	return sig == SIGBUS;
}

bool
signals_is_wake(const siginfo_t *si)
{
	return si->si_code == SI_QUEUE && si->si_value.sival_ptr == signals_process;
}

static int
send_again(int sig, const siginfo_t *si)
{
	return (int)GATE_RAW(SYS_rt_tgsigqueueinfo, signals_pid(), GATE_RAW(SYS_gettid, 0, 0, 0, 0, 0, 0),
	    sig, si, 0, 0);
}

/* Take what is pending, of the thread's first.  => false: nothing of that signal */
static bool
take_pending(int sig, siginfo_t *si)
{
	struct signals_thread *t = &signals_thread;
	unsigned bit = 1u << index_of(sig);

	if ((t->pending & kset_of(sig)) && t->pending_pid == signals_pid()) {
		*si = t->info[index_of(sig)];
		t->pending &= ~kset_of(sig);
		return true;
	}
	if (signals_process->pending & bit) {
		siginfo_t info = signals_process->info[index_of(sig)];

		if (__atomic_fetch_and((unsigned *)&signals_process->pending, ~bit, __ATOMIC_ACQ_REL) & bit) {
			*si = info;
			return true;
		}
	}
	return false;
}

static kset
pending(void)
{
	struct signals_thread *t = &signals_thread;
	kset set = t->pending != 0 && t->pending_pid == signals_pid() ? t->pending : 0;
	unsigned process = signals_process->pending;

	if (process & 1u << index_of(SIGSEGV))
		set |= kset_of(SIGSEGV);
	if (process & 1u << index_of(SIGBUS))
		set |= kset_of(SIGBUS);
	return set;
}

void
signals_discard(int sig)
{
	siginfo_t si;

	while (take_pending(sig, &si))
		;
}

void
signals_set_blocked(kset blocked)
{
	struct signals_thread *t = &signals_thread;
	kset before = signals_blocked();
	siginfo_t si;

	if (blocked == before)
		return;
	if (signals_guest()) {
		t->child_blocked = blocked;
		t->child = signals_pid();
		return;
	}
	t->child = 0;
	t->blocked = blocked;
	for (int sig = SIGBUS; sig <= SIGSEGV; sig += SIGSEGV - SIGBUS)
		if ((before & ~blocked & kset_of(sig)) && take_pending(sig, &si))
			(void)send_again(sig, &si);
}

/*
 * A thread that waits for it is woken, by a signal of the same number that has our mark (the kernel does not let
 * us send another thread what it sent itself); signals_end() takes the real one.  A second one of a
 * kind is dropped, as the kernel drops it.
 */
void
signals_pend(int sig, const siginfo_t *si)
{
	struct signals_thread *t = &signals_thread;
	int waiter = signals_process->waiter;
	unsigned bit = 1u << index_of(sig);

	if (si->si_code == SI_TKILL) {
		if (t->pending_pid != signals_pid())
			t->pending = 0;
		if (t->pending & kset_of(sig))
			return;
		t->pending_pid = signals_pid();
		t->info[index_of(sig)] = *si;
		t->pending |= kset_of(sig);
		return;
	}
	if ((signals_process->pending & bit))
		return;
	signals_process->info[index_of(sig)] = *si;
	(void)__atomic_fetch_or((unsigned *)&signals_process->pending, bit, __ATOMIC_ACQ_REL);
	if (waiter != 0) {
		siginfo_t wake = { .si_signo = sig, .si_code = SI_QUEUE };

		wake.si_pid = signals_pid();
		wake.si_value.sival_ptr = signals_process;
		(void)GATE_RAW(SYS_rt_tgsigqueueinfo, signals_pid(), waiter, sig, &wake, 0, 0);
	}
}

/*
 * Calls with masks
 */

static void
mask_set(struct gate_call *call)
{
	const void *set = (const void *)call->arg[1];
	void *oldset = (void *)call->arg[2];
	kset blocked = signals_blocked(), after = blocked, new = 0, visible, old;

	if (set != NULL) {
		if (!gate_copy(&new, set, sizeof(new))) {
			call->result = -EFAULT;
			return;
		}
		if (call->arg[0] == SIG_BLOCK)
			after |= new & HIDDEN;
		else if (call->arg[0] == SIG_UNBLOCK)
			after &= ~new;
		else
			after = new & HIDDEN;
	}
	visible = new & ~HIDDEN;
	call->result = GATE_RAW(SYS_rt_sigprocmask, call->arg[0], set != NULL ? &visible : NULL, &old,
	    sizeof(old), 0, 0);
	if (call->result != 0)
		return;
	signals_set_blocked(after);
	old |= blocked;
	if (oldset != NULL && !gate_copy(oldset, &old, sizeof(old)))
		call->result = -EFAULT;
}

/* The mask of a call that waits: ours, without HIDDEN.  => false: *result says why not */
static bool
mask_swap(struct gate_call *call, struct signals_call *sc, int arg)
{
	if (call->arg[arg] == 0 || call->arg[arg + 1] != sizeof(kset))
		return true;
	if (!gate_copy(&sc->mask, (const void *)call->arg[arg], sizeof(kset))) {
		call->result = -EFAULT;
		return false;
	}
	sc->before = signals_blocked();
	sc->swapped = true;
	signals_set_blocked(sc->mask & HIDDEN);
	sc->mask &= ~HIDDEN;
	call->arg[arg] = (long)&sc->mask;
	return true;
}

/* pselect6: a pointer to a pointer to the mask, and its size. */
static bool
mask_swap_pair(struct gate_call *call, struct signals_call *sc)
{
	struct gate_call inner = { 0 };

	if (call->arg[5] == 0)
		return true;
	if (!gate_copy(&sc->pair, (const void *)call->arg[5], sizeof(sc->pair))) {
		call->result = -EFAULT;
		return false;
	}
	inner.arg[0] = (long)sc->pair.set;
	inner.arg[1] = (long)sc->pair.size;
	if (!mask_swap(&inner, sc, 0)) {
		call->result = inner.result;
		return false;
	}
	sc->pair.set = (const kset *)inner.arg[0];
	call->arg[5] = (long)&sc->pair;
	return true;
}

/* A mask that is only read: a copy of it, that the kernel can reach. */
static bool
mask_copy(struct gate_call *call, struct signals_call *sc, int arg, int size)
{
	if (call->arg[arg] == 0 || call->arg[size] != sizeof(kset))
		return true;
	if (!gate_copy(&sc->mask, (const void *)call->arg[arg], sizeof(kset))) {
		call->result = -EFAULT;
		return false;
	}
	call->arg[arg] = (long)&sc->mask;
	return true;
}

/* sigtimedwait: what is pending here is the answer; else the kernel looks, for all that is asked. */
static bool
wait_begin(struct gate_call *call, struct signals_call *sc)
{
	siginfo_t si;

	if (!mask_copy(call, sc, 0, 3))
		return true;
	if (call->arg[0] != (long)&sc->mask || !(sc->mask & HIDDEN))
		return false;
	for (int sig = SIGBUS; sig <= SIGSEGV; sig += SIGSEGV - SIGBUS) {
		if (!(sc->mask & kset_of(sig)) || !take_pending(sig, &si))
			continue;
		call->result = sig;
		if (call->arg[1] != 0 && !gate_copy((void *)call->arg[1], &si, sizeof(si)))
			call->result = -EFAULT;
		return true;
	}
	sc->waiting = true;
	signals_process->waiter = (int)GATE_RAW(SYS_gettid, 0, 0, 0, 0, 0, 0);
	return false;
}

bool
signals_begin(struct gate_call *call, struct signals_call *sc)
{
	stack_t new, old;
	kset set;

	sc->swapped = false;
	sc->waiting = false;
	switch (call->nr) {
	case SYS_rt_sigaction:
		return signals_sigaction(call);
	case SYS_rt_sigprocmask:
		if (call->arg[3] != sizeof(kset))
			return false;
		mask_set(call);
		return true;
	case SYS_rt_sigpending:
		if ((size_t)call->arg[1] > sizeof(kset))
			return false;
		call->result = GATE_RAW(SYS_rt_sigpending, &set, sizeof(set), 0, 0, 0, 0);
		set |= pending();
		if (call->result == 0 && !gate_copy((void *)call->arg[0], &set, (size_t)call->arg[1]))
			call->result = -EFAULT;
		return true;
	case SYS_sigaltstack:
		if (call->arg[0] != 0 && !gate_copy(&new, (const void *)call->arg[0], sizeof(new))) {
			call->result = -EFAULT;
			return true;
		}
		call->result = signals_sigaltstack(call->sp, call->arg[0] != 0 ? &new : NULL, &old);
		if (call->result == 0 && call->arg[1] != 0 &&
		    !gate_copy((void *)call->arg[1], &old, sizeof(old)))
			call->result = -EFAULT;
		return true;
	case SYS_rt_sigtimedwait:
		return wait_begin(call, sc);
	case SYS_rt_sigsuspend:
		return !mask_swap(call, sc, 0);
	case SYS_ppoll:
		return !mask_swap(call, sc, 3);
	case SYS_pselect6:
		return !mask_swap_pair(call, sc);
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
		return !mask_swap(call, sc, 4);
	case SYS_signalfd:
	case SYS_signalfd4:
		return !mask_copy(call, sc, 1, 2);
	default:
		return false;
	}
}

void
signals_end(struct gate_call *call, struct signals_call *sc)
{
	siginfo_t si;

	if (sc->swapped)
		signals_set_blocked(sc->before);
	if (!sc->waiting)
		return;
	signals_process->waiter = 0;
	if ((call->result == SIGSEGV || call->result == SIGBUS) && take_pending((int)call->result, &si) &&
	    call->arg[1] != 0)
		(void)gate_copy((void *)call->arg[1], &si, sizeof(si));
}
