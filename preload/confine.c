/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A program that confines itself with a filter for system calls (seccomp).
 *
 * From then on the calls that a fault takes may be refused, or end the process; and the filter's author cannot have
 * known of them.  So the program is made one that takes no faults before the kernel hears of the filter: memory
 * without a limit, every page of it in place for good, and whatever comes later is the kernel's (heap.c, mmap.c).
 * A line says so, if there was a limit.
 *
 * fork() still needs what the library needs for it: memfd_create(), pwrite() and so on.
 */

#include <linux/seccomp.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "gate_impl.h"
#include "shim.h"
#include "vmfault.h"

_Atomic bool shim_confined;

static void
confine(void)
{
	struct vmf_region r;

	bool limited = shim_config.memory != 0;

	if (atomic_exchange(&shim_confined, true))
		return;
	if (limited)
		(void)vmf_set_memory(UINT64_MAX);
	/* What has no rights cannot be wired, and is not touched. */
	for (uintptr_t p = shim_lo; p < shim_hi && vmf_region((void *)p, &r) == 0 && (uintptr_t)r.addr < shim_hi;
	    p = (uintptr_t)r.addr + r.size)
		(void)vmf_wire(r.addr, r.size);
	if (limited)
		shim_say("runs without a limit of memory from now on: it confines itself (seccomp)", NULL);
}

void
confine_call(const struct gate_call *call)
{
	if (call->nr == SYS_prctl ? call->arg[0] == PR_SET_SECCOMP :
	    call->arg[0] == SECCOMP_SET_MODE_FILTER || call->arg[0] == SECCOMP_SET_MODE_STRICT)
		confine();
}
