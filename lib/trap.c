/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Traps: SIGSEGV and SIGBUS.
 *
 *	in a task's range?	no: it is the program's.  Its own action gets it, as if we were not there
 *	vm_fault_is_done()	yes, by another thread: return, and the instruction runs again
 *	vm_fault()		done: likewise
 *	else			the signal that a kernel would have raised, to the program's action
 *
 *	nothing mapped		SIGSEGV	SEGV_MAPERR
 *	forbidden		SIGSEGV	SEGV_ACCERR
 *	pager failed, or end	SIGBUS	BUS_ADRERR
 *	no frame, none to come	SIGBUS	BUS_OBJERR, and a message
 *
 * Signals.  Our actions block everything but the synchronous signals: no handler of the program's may
 * run on top of ours, for it may touch managed memory while we hold a lock.  The
 * synchronous ones stay open (SA_NODEFER), for a fault inside the library must be heard: it ends
 * the process with a message, and never recurses.  A handler that the program installed after
 * us and that calls ours does not block for us, so we block ourselves.  A SIGSEGV that somebody sent
 * while we work is put off until we are done.
 *
 * The program's action is called with its own mask, but SIGSEGV and SIGBUS stay unblocked in
 * it: a touch of managed memory in a handler would otherwise kill.
 */

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "fork.h"
#include "kern/assert.h"
#include "kern/lock.h"
#include "machdep.h"
#include "task.h"
#include "trap.h"
#include "vm_fault.h"
#include "vm_pin.h"

#define ALT_STACK_SIZE	((size_t)64 * 1024)

/* What the program wants done with SIGSEGV [0] and SIGBUS [1].  Guarded by chain_lock. */
static struct sigaction chain[2];
static struct kmutex chain_lock;

/* Of this thread: how deep in the library; a signal that was put off. */
static __thread unsigned depth __attribute__((__tls_model__("initial-exec")));
static __thread bool put_off __attribute__((__tls_model__("initial-exec")));
static __thread siginfo_t put_off_info __attribute__((__tls_model__("initial-exec")));

bool (*trap_first)(void *);

static pthread_key_t altstack_key;
static bool altstack_key_made;

static void handler(int, siginfo_t *, void *);

static inline unsigned
chain_index(int sig)
{
	return sig == SIGBUS;
}

static inline sys_sigset_t
bit(int sig)
{
	return (sys_sigset_t)1 << (sig - 1);
}

/* The kernel's set out of libc's: its first 64 signals. */
static sys_sigset_t
to_kernel(const sigset_t *set)
{
	sys_sigset_t k;

	memcpy(&k, set, sizeof(k));
	return k;
}

void
trap_enter(sys_sigset_t *old)
{
	sys_block(old);
	if (depth++ == 0)
		fork_enter();
}

void
trap_leave(const sys_sigset_t *old)
{
	if (depth == 1)
		vm_pin_look();
	if (--depth == 0)
		fork_leave();
	locks_assert_none();
	if (depth == 0 && put_off) {
		siginfo_t info = put_off_info;

		put_off = false;
		(void)sys_raise_info(info.si_signo, &info);
	}
	sys_setmask(old);
}

/*
 * Let the default happen.  A real fault is left to happen again; anything else is sent to this
 * thread, blocked until the handler returns, so that a core dump shows the place that was interrupted.
 */
static void
default_action(int sig, const siginfo_t *si, ucontext_t *uc, bool again)
{
	struct sigaction dfl;
	sys_sigset_t mask;

	memset(&dfl, 0, sizeof(dfl));
	dfl.sa_handler = SIG_DFL;
	(void)sigaction(sig, &dfl, NULL);
	if (again)
		return;
	mask = to_kernel(&uc->uc_sigmask) | bit(sig);
	sys_setmask(&mask);
	(void)sys_raise_info(sig, si);
}

/* Hand a signal on to the program.  refault: it is a fault of the kernel's that will come again. */
static void
deliver(int sig, siginfo_t *si, ucontext_t *uc, bool refault)
{
	struct sigaction act;
	sys_sigset_t mask, old;

	trap_enter(&old);
	kmutex_lock(&chain_lock);
	act = chain[chain_index(sig)];
	if (act.sa_flags & (int)SA_RESETHAND)
		chain[chain_index(sig)].sa_handler = SIG_DFL;
	kmutex_unlock(&chain_lock);
	trap_leave(&old);

	if (act.sa_handler == SIG_IGN && si->si_code <= 0)
		return;
	/* A fault cannot be ignored. */
	if (act.sa_handler == SIG_DFL || act.sa_handler == SIG_IGN) {
		default_action(sig, si, uc, refault);
		return;
	}
	mask = to_kernel(&uc->uc_sigmask) | to_kernel(&act.sa_mask);
	if (!(act.sa_flags & SA_NODEFER))
		mask |= bit(sig);
	mask &= ~(bit(SIGSEGV) | bit(SIGBUS));
	sys_setmask(&mask);
	if (act.sa_flags & SA_SIGINFO)
		act.sa_sigaction(sig, si, uc);
	else
		act.sa_handler(sig);
}

/* The signal that a failed fault is. */
static int
signal_of(enum kern_return result, void *addr, siginfo_t *si)
{
	memset(si, 0, sizeof(*si));
	si->si_addr = addr;
	switch (result) {
	case KERN_INVALID_ADDRESS:
		si->si_signo = SIGSEGV;
		si->si_code = SEGV_MAPERR;
		break;
	case KERN_PROTECTION_FAILURE:
		si->si_signo = SIGSEGV;
		si->si_code = SEGV_ACCERR;
		break;
	case KERN_RESOURCE_SHORTAGE:
		klog("no page frame for %p: the memory budget is used up and nothing can be paged out; "
		    "raise vmf_config.memory", addr);
		si->si_signo = SIGBUS;
		si->si_code = BUS_OBJERR;
		break;
	default:
		si->si_signo = SIGBUS;
		si->si_code = BUS_ADRERR;
		break;
	}
	return si->si_signo;
}

static void
handler(int sig, siginfo_t *si, void *context)
{
	ucontext_t *uc = context;
	vm_prot_t type = machdep_fault_type(si, uc);
	struct vm_map *map = NULL;
	enum kern_return result;
	int saved_errno = errno;
	vm_offset_t va;
	sys_sigset_t old;
	siginfo_t info;

	/* It is no fault of memory, and may be where we call libc. */
	if (type == VM_PROT_NONE && si->si_code > 0 && trap_first != NULL && trap_first(context))
		return;
	if (depth != 0) {
		if (si->si_code <= 0) {		/* somebody's kill(); not while we hold locks */
			put_off_info = *si;
			put_off = true;
			return;
		}
		kpanic("fault in the library at address %p, signal %d, code %d",
		    si->si_addr, sig, si->si_code);
	}
	if (sig == SIGSEGV && type != VM_PROT_NONE) {
		trap_enter(&old);
		map = task_at((vm_offset_t)si->si_addr);
		if (map == NULL)
			trap_leave(&old);
	}
	if (map == NULL) {
		deliver(sig, si, uc, si->si_code > 0);
		errno = saved_errno;
		return;
	}
	va = trunc_page((vm_offset_t)si->si_addr);
	result = vm_fault_is_done(map, va, type) ? KERN_SUCCESS : vm_fault(map, va, type, 0);
	task_put(map);
	trap_leave(&old);
	if (result != KERN_SUCCESS)
		deliver(signal_of(result, si->si_addr, &info), &info, uc, false);
	errno = saved_errno;
}

/*
 * Taking and giving back
 */

static void
our_action(struct sigaction *act)
{
	memset(act, 0, sizeof(*act));
	act->sa_sigaction = handler;
	act->sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER;
	(void)sigfillset(&act->sa_mask);
	(void)sigdelset(&act->sa_mask, SIGSEGV);
	(void)sigdelset(&act->sa_mask, SIGBUS);
	(void)sigdelset(&act->sa_mask, SIGILL);
	(void)sigdelset(&act->sa_mask, SIGFPE);
	(void)sigdelset(&act->sa_mask, SIGTRAP);
}

/* A thread ends: its alternate stack goes. */
static void
altstack_free(void *p)
{
	stack_t ss, none = { .ss_flags = SS_DISABLE };

	if (sigaltstack(NULL, &ss) == 0 && ss.ss_sp == p)
		(void)sigaltstack(&none, NULL);
	(void)sys_munmap(p, ALT_STACK_SIZE);
}

int
trap_init(void)
{
	struct sigaction act;

	kmutex_init(&chain_lock, RANK_TRAP);
	if (!altstack_key_made) {
		int error = pthread_key_create(&altstack_key, altstack_free);

		if (error != 0)
			return -error;
		altstack_key_made = true;
	}
	our_action(&act);
	if (sigaction(SIGSEGV, &act, &chain[0]) != 0 || sigaction(SIGBUS, &act, &chain[1]) != 0)
		return -errno;
	return 0;
}

void
trap_fini(void)
{
	static const int sigs[2] = { SIGSEGV, SIGBUS };

	for (int i = 0; i < 2; i++) {
		struct sigaction now;

		if (sigaction(sigs[i], NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) &&
		    now.sa_sigaction == handler)
			(void)sigaction(sigs[i], &chain[i], NULL);
	}
}

int
trap_sigaction(int sig, const struct sigaction *act, struct sigaction *oldact)
{
	struct sigaction new, old;
	sys_sigset_t mask;

	if (sig != SIGSEGV && sig != SIGBUS)
		return -EINVAL;
	if (act != NULL)
		new = *act;
	trap_enter(&mask);
	kmutex_lock(&chain_lock);
	old = chain[chain_index(sig)];
	if (act != NULL)
		chain[chain_index(sig)] = new;
	kmutex_unlock(&chain_lock);
	trap_leave(&mask);
	if (oldact != NULL)
		*oldact = old;
	return 0;
}

int
trap_thread_attach(void)
{
	stack_t ss, now;
	void *p;

	if (sigaltstack(NULL, &now) != 0)
		return -EINVAL;
	if (!(now.ss_flags & SS_DISABLE))
		return -EALREADY;
	p = sys_mmap(NULL, ALT_STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sys_is_err(p))
		return -ENOMEM;
	ss = (stack_t){ .ss_sp = p, .ss_size = ALT_STACK_SIZE };
	if (pthread_setspecific(altstack_key, p) != 0) {
		(void)sys_munmap(p, ALT_STACK_SIZE);
		return -ENOMEM;
	}
	(void)sigaltstack(&ss, NULL);
	return 0;
}

int
trap_thread_detach(void)
{
	void *p = pthread_getspecific(altstack_key);

	if (p == NULL)
		return -EINVAL;
	(void)pthread_setspecific(altstack_key, NULL);
	altstack_free(p);
	return 0;
}
