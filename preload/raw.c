/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The library's signal actions, past the gate (as gate_wrap.c is for other calls).
 *
 * The library sets them by libc's sigaction(), which is wrapped when the shim is linked (ld --wrap), and ends up
 * here.  The gate would take them for the program's.
 */

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

#include "gate_impl.h"
#include "signals_impl.h"

int __wrap_sigaction(int sig, const struct sigaction *act, struct sigaction *oldact);

static long
answer(long r)
{
	if ((unsigned long)r < -4095ul)
		return r;
	errno = (int)-r;
	return -1;
}

int
__wrap_sigaction(int sig, const struct sigaction *act, struct sigaction *oldact)
{
	struct kaction new = { 0 }, old;
	long r;

	if (act != NULL) {
		new.handler = act->sa_handler;
		new.flags = (unsigned)act->sa_flags;
		if (GATE_ARCH_FRAMES) {
			new.flags |= SA_RESTORER_FLAG;
			new.restorer = signals_restorer;
		}
		memcpy(&new.mask, &act->sa_mask, sizeof(new.mask));
	}
	r = answer(GATE_RAW(SYS_rt_sigaction, sig, act != NULL ? &new : NULL, &old, sizeof(kset), 0, 0));
	if (r == 0 && oldact != NULL) {
		memset(oldact, 0, sizeof(*oldact));
		oldact->sa_handler = old.handler;
		oldact->sa_flags = (int)(old.flags & ~SA_RESTORER_FLAG);
		memcpy(&oldact->sa_mask, &old.mask, sizeof(old.mask));
	}
	return (int)r;
}
