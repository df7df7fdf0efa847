/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A signal frame, made by hand.
 *
 * The kernel put its frame on our alternate stack.  The program's handler is to run elsewhere, with that stack
 * free again: for the next fault, and for ever if the handler longjmps away.  So the frame is
 * copied to where the kernel would have put it, and the context that we were called with is made to be the
 * entry of the handler; returning from ours then is entering the program's.
 *
 *	high	the interrupted stack, its red zone; or the top of the program's alternate stack
 *		floating-point state, 64 bytes aligned
 *		siginfo
 *		ucontext			<- the kernel's rt_sigframe
 *	low	return address			<- stack pointer at the handler's entry, 8 mod 16
 */

#include <stddef.h>
#include <string.h>

#include "signals_impl.h"

#define RED_ZONE	128
#define FX_SIZE		512		/* of the state without extensions */
#define FX_MAGIC	464		/* where in it the kernel says that there are some, ... */
#define FX_EXTENDED	468		/* ... and how long it is with them */
#define EFLAGS_CLEAR	0x10500		/* TF, DF, RF: as at the entry of any function */

#define SIGINFO_SIZE	128

/* What the kernel has of a ucontext_t: libc's goes on, with a larger mask and room that the kernel does not fill. */
struct kcontext {
	unsigned long flags;
	void *link;
	stack_t stack;
	mcontext_t mcontext;
	kset sigmask;
};

_Static_assert(offsetof(struct kcontext, sigmask) == offsetof(ucontext_t, uc_sigmask), "ucontext");

struct frame {
	void (*restorer)(void);
	struct kcontext uc;
	unsigned char info[SIGINFO_SIZE];
};

static size_t
fp_size(const void *fp)
{
	uint32_t magic, size;

	memcpy(&magic, (const char *)fp + FX_MAGIC, sizeof(magic));
	memcpy(&size, (const char *)fp + FX_EXTENDED, sizeof(size));
	return magic == FP_XSTATE_MAGIC1 ? size : FX_SIZE;
}

/* The highest address that the frame may take. */
static uintptr_t
frame_top(const ucontext_t *uc, bool on_alt)
{
	const stack_t *alt = &signals_thread.alt;
	uintptr_t sp = (uintptr_t)uc->uc_mcontext.gregs[REG_RSP], here = (uintptr_t)__builtin_frame_address(0);

	if (on_alt && alt->ss_size != 0 && !signals_on_altstack(sp))
		return ((uintptr_t)alt->ss_sp + alt->ss_size) & -(uintptr_t)16;
	sp -= RED_ZONE;
	/* Without a stack of ours the frame that we run in is on that stack, too. */
	if (!signals_on_own_stack(here) && here < sp && sp - here < (size_t)1 << 20)
		sp = here - 4096;
	return sp;
}

bool
signals_enter(int sig, siginfo_t *si, ucontext_t *uc, const struct kaction *a, kset blocked)
{
	mcontext_t *mc = &uc->uc_mcontext;
	const stack_t *alt = &signals_thread.alt;
	uintptr_t top = frame_top(uc, (a->flags & (unsigned)SA_ONSTACK) != 0), sp = top;
	bool onto_alt = signals_on_altstack(top);
	kset mask;
	void *fp = NULL;
	struct frame f;

	if (mc->fpregs != NULL) {
		sp = (sp - fp_size(mc->fpregs)) & -(uintptr_t)64;
		fp = (void *)sp;
	}
	sp = ((sp - sizeof(f)) & -(uintptr_t)16) - 8;
	if (onto_alt && sp < (uintptr_t)alt->ss_sp)
		return false;

	f.restorer = signals_restorer;
	memcpy(&f.uc, uc, sizeof(f.uc));
	memcpy(f.info, si, SIGINFO_SIZE);
	mask = f.uc.sigmask;
	f.uc.flags |= FRAME_OURS;
	f.uc.mcontext.fpregs = fp;
	f.uc.stack = *alt;
	if (alt->ss_size == 0)
		f.uc.stack.ss_flags = SS_DISABLE;
	f.uc.sigmask |= signals_blocked();
	if (fp != NULL && !gate_copy(fp, mc->fpregs, fp_size(mc->fpregs)))
		return false;
	if (!gate_copy((void *)sp, &f, sizeof(f)))
		return false;

	if (onto_alt && (alt->ss_flags & (int)SS_AUTODISARM))
		signals_disarm();
	mask |= a->mask;
	if (!(a->flags & (unsigned)SA_NODEFER))
		mask |= kset_of(sig);
	mask &= ~HIDDEN;
	memcpy(&uc->uc_sigmask, &mask, sizeof(mask));
	mc->fpregs = NULL;			/* the handler starts with a clean one */
	mc->gregs[REG_RIP] = (long long)(uintptr_t)a->handler;
	mc->gregs[REG_RSP] = (long long)sp;
	mc->gregs[REG_RDI] = sig;
	mc->gregs[REG_RSI] = (long long)(sp + offsetof(struct frame, info));
	mc->gregs[REG_RDX] = (long long)(sp + offsetof(struct frame, uc));
	mc->gregs[REG_RAX] = 0;
	mc->gregs[REG_EFL] &= ~EFLAGS_CLEAR;
	signals_set_blocked(blocked);
	return true;
}

bool
gate_copy_fault(void *context)
{
	extern const char gate_copy_move[], gate_copy_end[];
	mcontext_t *mc = &((ucontext_t *)context)->uc_mcontext;

	if (mc->gregs[REG_RIP] != (long long)(uintptr_t)gate_copy_move)
		return false;
	mc->gregs[REG_RIP] = (long long)(uintptr_t)gate_copy_end;
	return true;
}
