/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Stacks for signals: ours, which the kernel knows, and the program's, which it believes in.
 */

#include <errno.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "signals_impl.h"

#define PAGE		((size_t)4096)
#define FAULT_STACK	((size_t)64 * 1024)	/* for the fault handler, beside the kernel's frame */
#define ALT_STACK_MIN	((size_t)2048)		/* the kernel's MINSIGSTKSZ */

__thread bool signals_thread_ready __attribute__((__tls_model__("initial-exec")));
static size_t frame_size;			/* AT_MINSIGSTKSZ, in pages; constant after signals_init() */

/* The lowest page is a guard. */
static size_t
own_size(void)
{
	return FAULT_STACK + frame_size + PAGE;
}

static void
own_set(void)
{
	stack_t ss = {
		.ss_sp = (char *)signals_thread.own + PAGE,
		.ss_size = own_size() - PAGE,
	};

	(void)GATE_RAW(SYS_sigaltstack, &ss, NULL, 0, 0, 0, 0);
}

void
signals_thread_start(void)
{
	struct signals_thread *t = &signals_thread;

	signals_thread_ready = true;
	if (!GATE_ARCH_FRAMES)
		return;
	t->own = gate_map(own_size(), 0);
	if (t->own == NULL)
		return;			/* as without one: on the thread's stack */
	(void)GATE_RAW(SYS_mprotect, t->own, PAGE, PROT_NONE, 0, 0, 0);
	own_set();
}

static void
alt_unpin(struct signals_thread *t)
{
	if (t->pin.size != 0)
		gate_ops.unpin(&t->pin);
	t->pin.size = 0;
}

/* The kernel will read frames there, when handlers return. */
static void
alt_pin(struct signals_thread *t, const stack_t *ss)
{
	alt_unpin(t);
	if (ss->ss_size == 0 || gate_ops.managed == NULL || !gate_ops.managed(ss->ss_sp, ss->ss_size))
		return;
	t->pin = (struct gate_pin){ .addr = ss->ss_sp, .size = ss->ss_size, .write = true };
	if (gate_ops.pin(&t->pin) != 0)
		t->pin.size = 0;
}

void
signals_repin(void)
{
	struct gate_pin *pin = &signals_thread.pin;

	if (pin->size != 0 && gate_ops.pin(pin) != 0)
		pin->size = 0;
}

/* => no signal but a fault of our own may come between this and the end of the thread: libc blocks them */
void
signals_thread_exit(void)
{
	struct signals_thread *t = &signals_thread;
	stack_t none = { .ss_flags = SS_DISABLE };
	void *own = t->own;

	alt_unpin(t);
	signals_disarm();
	if (own == NULL)
		return;
	t->own = NULL;
	(void)GATE_RAW(SYS_sigaltstack, &none, NULL, 0, 0, 0, 0);
	gate_unmap(own, own_size());
}

int
signals_init(void)
{
	kset old, hidden = HIDDEN;

	signals_process = gate_map(PAGE, 0);
	if (signals_process == NULL)
		return -ENOMEM;
	(void)GATE_RAW(SYS_madvise, signals_process, PAGE, MADV_WIPEONFORK, 0, 0, 0);
	(void)signals_pid();
	frame_size = (getauxval(AT_MINSIGSTKSZ) + PAGE - 1) & -PAGE;
	(void)GATE_RAW(SYS_rt_sigprocmask, SIG_UNBLOCK, &hidden, &old, sizeof(old), 0, 0);
	signals_thread.blocked = old & HIDDEN;
	signals_thread_start();
	return !GATE_ARCH_FRAMES || signals_thread.own != NULL ? 0 : -ENOMEM;
}

bool
signals_on_altstack(uintptr_t sp)
{
	const stack_t *ss = &signals_thread.alt;

	return ss->ss_size != 0 && sp > (uintptr_t)ss->ss_sp && sp <= (uintptr_t)ss->ss_sp + ss->ss_size;
}

bool
signals_on_own_stack(uintptr_t sp)
{
	uintptr_t own = (uintptr_t)signals_thread.own;

	return own != 0 && sp > own && sp <= own + own_size();
}

void
signals_off_stack(void (*fn)(void *), void *arg)
{
	uintptr_t sp = (uintptr_t)__builtin_frame_address(0);
	kset all = ~HIDDEN, old;

	/* A child of vfork() has its host's. */
	if (gate_ops.managed == NULL || !gate_ops.managed((void *)sp, 1) || !signals_thread_ready ||
	    signals_thread.own == NULL || signals_guest()) {
		fn(arg);
		return;
	}
	(void)GATE_RAW(SYS_rt_sigprocmask, SIG_BLOCK, &all, &old, sizeof(all), 0, 0);
	gate_on_stack((char *)signals_thread.own + own_size(), fn, arg);
	(void)GATE_RAW(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof(old), 0, 0);
}

/* What of it is pinned stays so: a frame on it may yet be read. */
void
signals_disarm(void)
{
	signals_thread.alt = (stack_t){ 0 };
}

/* sigaltstack(2), of the program's. */
long
signals_sigaltstack(uintptr_t sp, const stack_t *new, stack_t *old)
{
	struct signals_thread *t = &signals_thread;
	bool on = signals_on_altstack(sp) && !(t->alt.ss_flags & (int)SS_AUTODISARM);
	int mode;

	if (!GATE_ARCH_FRAMES) {
		mode = (int)GATE_RAW(SYS_sigaltstack, new, old, 0, 0, 0, 0);
		if (mode == 0 && new != NULL)
			alt_pin(t, (new->ss_flags & SS_DISABLE) ? &(stack_t){ 0 } : new);
		return mode;
	}
	*old = t->alt;
	if (t->alt.ss_size == 0)
		old->ss_flags = SS_DISABLE | (t->alt.ss_flags & (int)SS_AUTODISARM);
	else if (on)
		old->ss_flags |= SS_ONSTACK;
	if (new == NULL)
		return 0;
	if (on)
		return -EPERM;
	mode = new->ss_flags & ~(int)SS_AUTODISARM;
	if (mode != 0 && mode != SS_ONSTACK && mode != SS_DISABLE)
		return -EINVAL;
	if (mode != SS_DISABLE && new->ss_size < ALT_STACK_MIN)
		return -ENOMEM;
	signals_disarm();
	if (mode != SS_DISABLE) {
		t->alt = *new;
		t->alt.ss_flags &= (int)SS_AUTODISARM;
	}
	alt_pin(t, &t->alt);
	return 0;
}

/*
 * A context is about to be taken up again: the kernel sets the mask and the alternate stack to
 * what stands in it.  In frames of ours that is what the program believes; in the kernel's,
 * HIDDEN is there only if the handler put it there.
 */
void
signals_return(ucontext_t *uc)
{
	struct signals_thread *t = &signals_thread;
	kset mask;
	bool ours = (uc->uc_flags & FRAME_OURS) != 0;

	if (!gate_copy(&mask, &uc->uc_sigmask, sizeof(mask)))
		return;
	uc->uc_flags &= ~FRAME_OURS;
	if (ours && (uc->uc_stack.ss_sp != t->alt.ss_sp || uc->uc_stack.ss_size != t->alt.ss_size))
		(void)signals_sigaltstack((uintptr_t)uc, &uc->uc_stack, &(stack_t){ 0 });
	/* One that is deaf stays so, as far as it was where libc's setuid() interrupted it. */
	if (gate_ops.deaf == NULL || !gate_ops.deaf()) {
		signals_set_blocked((mask & HIDDEN) | (ours ? 0 : signals_blocked()));
		mask &= ~HIDDEN;
		(void)gate_copy(&uc->uc_sigmask, &mask, sizeof(mask));
	}
	uc->uc_stack = (stack_t){
		.ss_sp = t->own != NULL ? (char *)t->own + PAGE : NULL,
		.ss_size = t->own != NULL ? own_size() - PAGE : 0,
		.ss_flags = t->own != NULL ? 0 : SS_DISABLE,
	};
}
