/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SIGNALS_H
#define SIGNALS_H

/*
 * The signal gate: the program's signals as they would be without us.
 *
 * SIGSEGV and SIGBUS are page faults here.  The kernel ends a process that faults while the signal is
 * blocked, so the two are in no mask that the kernel sees; what the program believes of them is kept
 * here: a pair of bits for each thread, a table of actions, signals that are pending.
 *
 * Whose the kernel's action is:
 *
 *	SIGSEGV, SIGBUS		the fault handler's (lib/trap.c).  What it declines comes to
 *				signals_deliver(), which it takes for the program's action
 *	a handler of another	signals_wrapper(), which enters it as the kernel would have: the kernel
 *				cannot make a frame where the stack is managed memory and a page of it is
 *				away, and ends the process.  (i386: only a handler that blocks one of the two)
 *	anything else		the program's own
 *
 * The kernel's alternate stack is ours, in every thread: a fault must be heard also where the stack itself is
 * managed memory, and the program's is too small for a fault handler.  Handlers of the program's do not run
 * there, but where they would have run: a frame is built on the program's alternate stack, or below
 * the stack pointer that was interrupted, and the kernel is made to return into it (arch/x86_64/sigframe.c).
 * They may longjmp away, switch contexts, or edit the context, as ever.
 *
 * All of this for a thread that came by libc.  A process that goes on in the memory of another
 * (vfork) has a thread's storage in common with it, and none of the signal state: what it changes is kept
 * apart, as far as the kernel does not know it.
 */

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "gate.h"

typedef uint64_t kset;			/* the kernel's sigset_t: bit sig - 1 */

static inline kset
kset_of(int sig)
{
	return (kset)1 << (sig - 1);
}

#define HIDDEN	((kset)1 << (SIGSEGV - 1) | (kset)1 << (SIGBUS - 1))

/* The kernel's struct sigaction. */
struct kaction {
	void (*handler)(int);
	unsigned long flags;
	void (*restorer)(void);
	kset mask;
};

/*
 * Start, in the first thread: SIGSEGV and SIGBUS leave its mask, and it gets a stack for the fault
 * handler.  Before the first touch of managed memory, and before gate_install().  0 or -ENOMEM.
 */
int signals_init(void);

/*
 * What the program's action for SIGSEGV or SIGBUS was before the fault handler took its place: as vmf_sigaction()
 * returns it.
 */
void signals_adopt(int sig, const struct sigaction *);

/*
 * The program's action, for the fault handler: give it to vmf_sigaction() for both signals,
 * with SA_SIGINFO | SA_NODEFER and an empty mask.  For faults that are not ours, failed ones that are, those of the
 * gate itself (gate_trap), and signals that somebody sent.
 */
void signals_deliver(int sig, siginfo_t *, void *context);

/* Between the gate and this. */

struct signals_call {			/* on the gate's stack while the call runs */
	kset mask;			/* what the kernel is given in place of the program's */
	kset before;			/* what of HIDDEN was blocked */
	struct { const kset *set; size_t size; } pair;	/* pselect6's sixth argument */
	bool swapped;			/* mask is in force, for the time of the call */
	bool waiting;			/* a thread that sigtimedwait()s for one of HIDDEN */
};

/* true: done, call->result is the answer.  Else the call is to be made as it is now, and then the other called. */
bool signals_begin(struct gate_call *, struct signals_call *);
void signals_end(struct gate_call *, struct signals_call *);

/* Is sp on the alternate stack that the program gave to this thread? */
bool signals_on_altstack(uintptr_t sp);

/*
 * fn(arg).  If the stack is managed memory, on ours, with all signals blocked: the library must not run where
 * it takes pages away itself.  fn may be called with signals blocked already, and may fork.
 */
void signals_off_stack(void (*fn)(void *), void *arg);

/* exec hands on what is blocked, and what is ignored. */
struct signals_exec {
	struct kaction action[2];
	bool ignored[2];
	kset blocked;
};
void signals_exec_begin(struct signals_exec *);
void signals_exec_failed(const struct signals_exec *);

/* Does this process run in the memory of another, its host, which waits for it (vfork)? */
bool signals_guest(void);

/* A thread's first call, and its last one. */
extern __thread bool signals_thread_ready __attribute__((__tls_model__("initial-exec")));
void signals_thread_start(void);
void signals_thread_exit(void);
/* In the child of a fork that was made in the gate. */
void signals_forked(void);
/* The same, where pins of the parent's are none of the child's. */
void signals_repin(void);

#endif
