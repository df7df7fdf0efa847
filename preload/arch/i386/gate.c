/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * i386: nothing is rewritten, and handlers are called, not returned into.
 */

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include "signals_impl.h"

int
gate_patch(struct gate_info *info)
{
	(void)info;
	return -ENOTSUP;
}

bool
gate_patch_trap(void *context)
{
	(void)context;
	return false;
}

bool
gate_copy_fault(void *context)
{
	extern const char gate_copy_move[], gate_copy_end[];
	mcontext_t *mc = &((ucontext_t *)context)->uc_mcontext;

	if (mc->gregs[REG_EIP] != (greg_t)(uintptr_t)gate_copy_move)
		return false;
	mc->gregs[REG_EIP] = (greg_t)(uintptr_t)gate_copy_end;
	return true;
}

/* Never used: the kernel's own frames return by themselves. */
void
signals_restorer(void)
{
}

/* Never used: there is no stack of ours. */
void
gate_on_stack(void *top, void (*fn)(void *), void *arg)
{
	(void)top;
	fn(arg);
}

bool
signals_enter(int sig, siginfo_t *si, ucontext_t *uc, const struct kaction *a, kset blocked)
{
	kset before = signals_blocked(), mask;

	memcpy(&mask, &uc->uc_sigmask, sizeof(mask));
	mask |= a->mask;
	if (!(a->flags & (unsigned)SA_NODEFER))
		mask |= kset_of(sig);
	mask &= ~HIDDEN;
	(void)GATE_RAW(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask), 0, 0);
	signals_set_blocked(blocked);
	if (a->flags & (unsigned)SA_SIGINFO)
		((void (*)(int, siginfo_t *, void *))(uintptr_t)a->handler)(sig, si, uc);
	else
		a->handler(sig);
	signals_set_blocked(before);
	return true;
}
