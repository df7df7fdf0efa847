/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The program changes its user, and the library's threads go with it.
 *
 * To the kernel each thread has credentials of its own.  setuid() and its like are to change them all, so libc makes the
 * same call in every thread, by a signal, and in the caller at last; and when not all of them get the same answer
 * it ends the process.  A program with one thread may well have changed that one before, by capset() or
 * prctl(PR_SET_KEEPCAPS): who gives up root and keeps a capability does.  The library's threads know nothing of that,
 * and would be refused what the caller is allowed, or be allowed what it is refused.
 *
 * So what a thread of the library's answers is what the caller is going to be told: by the kernel's rule, and by the
 * credentials that the caller had as it sent the signal.  It does change with the caller as far as it may.
 * A thread of the program's is none of our business.
 */

#include <errno.h>
#include <linux/capability.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/types.h>

#include "gate_impl.h"
#include "kern/alone.h"
#include "shim.h"
#include "vmfault.h"

#define SIGSETXID	33		/* libc's; a program cannot send it */
#define UNCHANGED	((uint32_t)-1)

enum { USER, GROUP };

/* Of the thread that sends.  Only one does at a time, and says the same each time. */
static struct {
	_Atomic bool may[2];		/* it has CAP_SETUID, CAP_SETGID */
	_Atomic uint32_t id[2][3];	/* real, effective, saved */
} caller;

static void
note_caller(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct cap[2] = { 0 };
	uint32_t id[2][3];

	(void)GATE_RAW(SYS_capget, &head, cap, 0, 0, 0, 0);
	atomic_store(&caller.may[USER], (cap[0].effective >> CAP_SETUID & 1) != 0);
	atomic_store(&caller.may[GROUP], (cap[0].effective >> CAP_SETGID & 1) != 0);
	(void)GATE_RAW(SYS_getresuid, &id[USER][0], &id[USER][1], &id[USER][2], 0, 0, 0);
	(void)GATE_RAW(SYS_getresgid, &id[GROUP][0], &id[GROUP][1], &id[GROUP][2], 0, 0, 0);
	for (int of = 0; of < 2; of++)
		for (int i = 0; i < 3; i++)
			atomic_store(&caller.id[of][i], id[of][i]);
}

/* Is it one of those that have these bits? */
static bool
is_one(int of, long id, unsigned which)
{
	if ((uint32_t)id == UNCHANGED)
		return true;
	for (int i = 0; i < 3; i++)
		if ((which >> i & 1) && (uint32_t)id == atomic_load(&caller.id[of][i]))
			return true;
	return false;
}

/* May the caller do that?  setresuid(2), setreuid(2), setuid(2), setgroups(2) */
static bool
is_allowed(const struct gate_call *call)
{
	enum { REAL = 1, EFFECTIVE = 2, SAVED = 4, ANY = 7 };
	const long *id = call->arg;
	int of = call->nr == SYS_setuid || call->nr == SYS_setreuid || call->nr == SYS_setresuid ? USER : GROUP;

	if (atomic_load(&caller.may[of]))
		return true;
	switch (call->nr) {
	case SYS_setresuid:
	case SYS_setresgid:
		return is_one(of, id[0], ANY) && is_one(of, id[1], ANY) && is_one(of, id[2], ANY);
	case SYS_setreuid:
	case SYS_setregid:
		return is_one(of, id[0], REAL | EFFECTIVE) && is_one(of, id[1], ANY);
	case SYS_setuid:
	case SYS_setgid:
		return is_one(of, id[0], REAL | SAVED);
	default:
		return false;
	}
}

bool
credentials_call(struct gate_call *call)
{
	size_t groups = call->nr == SYS_setgroups ? (size_t)call->arg[0] * sizeof(gid_t) : 0;

	if (call->nr == SYS_tgkill) {
		if (call->arg[2] == SIGSETXID)
			note_caller();
		return false;
	}
	if (!alone_is_ours())
		return false;
	if (!shim_managed((const void *)call->arg[1], groups))
		groups = 0;
	if (!is_allowed(call)) {
		call->result = -EPERM;
		return true;
	}
	if (groups != 0)
		(void)vmf_fault_in((void *)call->arg[1], groups, VMF_PROT_READ);
	call->result = gate_make(call);
	if (groups != 0)
		(void)vmf_fault_release((void *)call->arg[1], groups);
	if (call->result == -EPERM)
		call->result = 0;
	return true;
}
