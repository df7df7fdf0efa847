/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Descriptors.
 *
 * The library has some: its frames, its swap, its ring.  They are moved out of the way, so that the program gets
 * the numbers that it would have had; and for the program they are not there: a daemon that closes all of its
 * descriptors closes all but ours, and who looks which numbers are open (fstat, fcntl, ioctl, dup) does not find ours.  Who
 * insists on one of them (dup2) is told that it is busy.  /proc/self/fd does list them.
 */

#include <errno.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE	(1U << 1)
#endif

#include "gate_impl.h"
#include "kern/sys.h"
#include "shim.h"

#define ROOM		64		/* numbers below the limit that ours come from */
#define USUAL_LIMIT	1024u		/* the kernel's table of descriptors grows with the largest one */

void
descriptors_start(void)
{
	struct rlimit rl;
	uint64_t limit = USUAL_LIMIT;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < limit)
		limit = rl.rlim_cur;
	sys_fd_base = limit > 2 * ROOM ? (int)limit - ROOM : 0;
}

/* close_range() around ours. */
static long
close_some(unsigned first, unsigned last, unsigned flags)
{
	long result = first <= last ? 0 : -EINVAL;

	while (first <= last && result == 0) {
		unsigned end = first;

		while (end < last && !sys_owns((int)(end + 1)) && end + 1 < SYS_FDS_MAX)
			end++;
		if (end + 1 >= SYS_FDS_MAX)
			end = last;
		if (!sys_owns((int)first)) {
			result = GATE_RAW(SYS_close_range, first, end, flags, 0, 0, 0);
			flags &= ~CLOSE_RANGE_UNSHARE;
		} else {
			end = first;
		}
		if (end == UINT32_MAX)
			break;
		first = end + 1;
	}
	return result;
}

bool
descriptors_call(struct gate_call *call)
{
	int fd = (int)call->arg[0];

	switch (call->nr) {
	case SYS_close:
	case SYS_dup:
	case SYS_fcntl:
	case SYS_fstat:
#ifdef SYS_newfstatat
	case SYS_newfstatat:		/* which is how libc does fstat() */
#endif
	case SYS_ioctl:
	case SYS_statx:
		if (!sys_owns(fd))
			return false;
		call->result = -EBADF;
		return true;
#ifdef SYS_dup2
	case SYS_dup2:
#endif
	case SYS_dup3:
		if (!sys_owns(fd) && !sys_owns((int)call->arg[1]))
			return false;
		call->result = sys_owns(fd) ? -EBADF : -EBUSY;
		return true;
	case SYS_close_range:
		call->result = close_some((unsigned)call->arg[0], (unsigned)call->arg[1], (unsigned)call->arg[2]);
		return true;
	default:
		return false;
	}
}
