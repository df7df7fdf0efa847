/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Objects that would look past us.
 *
 * With RTLD_DEEPBIND an object finds in what it is linked with, libc, what others find in us: its free() is libc's,
 * and meets blocks of ours (PHP's extensions are opened so).  Hence nothing is.  The sanitizers, whose malloc() has the
 * same trouble, refuse such a call; to go on without the flag matters only to an object that brings a function of a
 * name that the program has, too, and wants its own.
 *
 * libc looks at who calls dlopen(): at its namespace, and at where it says that its objects lie (DT_RUNPATH).  So
 * the wrapper must not be that, and jumps to the next: arch/ARCH/dlopen.S.
 */

#include <dlfcn.h>

#include "shim.h"

_Static_assert(RTLD_DEEPBIND == 8, "arch/ARCH/dlopen.S");

extern __typeof__(&dlopen) dlopen_next;
__typeof__(&dlopen) dlopen_next;

void
dlopen_find_next(void)
{
	dlopen_next = (__typeof__(dlopen_next))(uintptr_t)dlsym(RTLD_NEXT, "dlopen");
}
