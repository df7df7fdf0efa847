/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The way around the gate, for the library itself: link it into the shim with --wrap=syscall.
 *
 * lib/kern/sys.c makes its system calls with libc's syscall(), whose instruction has been rewritten.  They would
 * pass the gate while the library holds locks, and its signal masks would be taken for the program's.
 */

#include <errno.h>
#include <stdarg.h>

#include "gate_impl.h"

long __wrap_syscall(long nr, ...);

long
__wrap_syscall(long nr, ...)
{
	long a[6], result;
	va_list ap;

	va_start(ap, nr);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	result = gate_raw(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
	if ((unsigned long)result <= -4096ul)
		return result;
	errno = (int)-result;
	return -1;
}
