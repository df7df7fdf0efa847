/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The PLT gate, continued: syscall(), where there is all that the other gate does with a call.
 *
 * A raw fork() would leave parent and child to write to the same frames, a raw close_range() would close the library's
 * descriptors.  The entry is in arch/x86_64/gate_plt.S.  (On i386 there is no table of calls, and no such entry.)
 */

#include <dlfcn.h>
#include <errno.h>
#include <linux/sched.h>
#include <stdarg.h>

#include "gate_plt.h"

typedef long syscall_fn(long nr, ...);

/* Where syscall() goes on. */
syscall_fn *gate_plt_syscall_way(long nr, long a);

/* Does it come back on another stack, or another's? */
static bool
leaves_the_stack(long nr, long a)
{
	uint64_t flags = (uint64_t)a;

	switch (nr) {
	case SYS_vfork:
	case SYS_rt_sigreturn:
		return true;
	case SYS_clone3:
		return !gate_copy(&flags, (const void *)a, sizeof(flags)) || (flags & CLONE_VM) != 0;
	case SYS_clone:
		return (flags & CLONE_VM) != 0;
	default:
		return false;
	}
}

static long
through_the_gate(long nr, ...)
{
	struct gate_call call = { .nr = nr, .sp = (uintptr_t)__builtin_frame_address(0) };
	int error = errno;
	va_list ap;

	va_start(ap, nr);
	for (unsigned i = 0; i < 6; i++)
		call.arg[i] = va_arg(ap, long);
	va_end(ap);
	if (gate_wanted(&call))
		gate_run(&call);
	else
		call.result = gate_make(&call);
	errno = error;
	if ((unsigned long)call.result <= -4096ul)
		return call.result;
	errno = (int)-call.result;
	return -1;
}

syscall_fn *
gate_plt_syscall_way(long nr, long a)
{
	static syscall_fn *libcs;

	if (gate_plt && !leaves_the_stack(nr, a))
		return through_the_gate;
	if (libcs == NULL)
		libcs = (syscall_fn *)dlsym(RTLD_NEXT, "syscall");
	return libcs;
}
