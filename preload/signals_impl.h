/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SIGNALS_IMPL_H
#define SIGNALS_IMPL_H

/*
 * Between the files of the signal gate.
 */

#include <ucontext.h>

#include "gate_arch.h"
#include "gate_impl.h"
#include "signals.h"

#define SIGNALS		64
#define SA_RESTORER_FLAG	0x04000000u	/* the kernel's SA_RESTORER, which no header of libc's has */
#ifndef SS_AUTODISARM
#define SS_AUTODISARM	(1U << 31)
#endif

/* In uc_flags of a frame that we made.  The kernel never sees it. */
#define FRAME_OURS	(1UL << (sizeof(long) * 8 - 2))

/* Of a thread; written by itself only. */
struct signals_thread {
	kset blocked;		/* of HIDDEN: what the program believes is blocked */
	int child;		/* a vfork child that runs on this thread's storage, or 0 */
	kset child_blocked;	/* the same, for that child */
	kset pending;		/* of HIDDEN: sent to this thread, and blocked */
	int pending_pid;	/* in which process */
	siginfo_t info[2];	/* of those */
	stack_t alt;		/* the alternate stack that the program set; ss_size 0: none */
	struct gate_pin pin;	/* what of it is managed, held while it is set; size 0: nothing */
	void *own;		/* ours */
};

extern VMF_TLS struct signals_thread signals_thread;

/* What a fork wipes (MADV_WIPEONFORK), and vfork does not. */
struct signals_process {
	int pid;		/* whose this memory is; 0: just forked */
	_Atomic int waiter;	/* a thread in sigtimedwait() for one of HIDDEN; 0: none */
	_Atomic unsigned pending;	/* 1 << i: HIDDEN's number i was sent to the process, and is blocked */
	siginfo_t info[2];	/* of those; guarded by the bit */
};

extern struct signals_process *signals_process;

/* This process; it is noted as the owner of its memory if there is none. */
int signals_pid(void);

kset signals_blocked(void);
void signals_set_blocked(kset);		/* and what was pending and is blocked no more is sent again */
/* Sent and blocked: keep it. */
void signals_pend(int sig, const siginfo_t *);
void signals_discard(int sig);
/* Was it only sent to wake a thread in sigtimedwait(), and came late? */
bool signals_is_wake(const siginfo_t *);

/* Actions. */
struct kaction signals_action(int sig);
bool signals_sigaction(struct gate_call *);
void signals_wrapper(int sig, siginfo_t *, void *context);

/* Alternate stacks. */
long signals_sigaltstack(uintptr_t sp, const stack_t *new, stack_t *old);

/*
 * arch: the program's handler, with `blocked' of HIDDEN blocked meanwhile.  Where there are frames
 * (GATE_ARCH_FRAMES) it is entered when the signal handler that got *context returns, on the program's alternate stack
 * if the action says so, else below the interrupted stack.  Elsewhere it is called.
 * => false: there is no room for the frame
 */
bool signals_enter(int sig, siginfo_t *si, ucontext_t *context, const struct kaction *, kset blocked);
/* The kernel's alternate stack of this thread, which is ours: is sp on it? */
bool signals_on_own_stack(uintptr_t sp);
/* arch: fn(arg), on another stack.  => top is a multiple of 16 */
void gate_on_stack(void *top, void (*fn)(void *), void *arg);
/* A handler was entered on the program's alternate stack: SS_AUTODISARM takes it away. */
void signals_disarm(void);
/* arch: where such handlers return to; what the kernel's own frames return to, too. */
void signals_restorer(void);
/* Called by it: the context that is about to be taken up again. */
void signals_return(ucontext_t *context);

#endif
