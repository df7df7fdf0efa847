/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The last thread.
 *
 * A process whose threads end one by one, the first one too, ends with the last: libc counts them, and calls
 * exit(0) in that.  It counts ours as well, which never end.  So when a thread of the program's is about to leave
 * we look whether it is the last, and call exit() in libc's place.
 *
 * The kernel knows how many threads there are (/proc/self/task), and alone.c how many are ours.  Of the others those
 * do not count that came by here and are not gone yet: they are written down.
 */

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include "gate_impl.h"
#include "kern/alone.h"
#include "shim.h"
#include "signals_impl.h"

#define LEAVING_MAX	256

static struct {
	_Atomic bool lock;		/* guards the rest */
	uint32_t n;
	int tid[LEAVING_MAX];
	int pid;			/* whose they are: a child has none of them */
} leaving;

static void
lock(void)
{
	while (atomic_exchange(&leaving.lock, true))
		(void)GATE_RAW(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}

/* Strike out who is gone.  => locked */
static void
prune(int pid)
{
	uint32_t k = 0;

	for (uint32_t i = 0; i < leaving.n && leaving.pid == pid; i++)
		if (GATE_RAW(SYS_tgkill, pid, leaving.tid[i], 0, 0, 0, 0) == 0)
			leaving.tid[k++] = leaving.tid[i];
	leaving.n = k;
	leaving.pid = pid;
}

void
threads_forked(void)
{
	atomic_store(&leaving.lock, false);
}

void
thread_leaves(int status)
{
	int pid = (int)GATE_RAW(SYS_getpid, 0, 0, 0, 0, 0, 0);
	bool last;

	if (signals_guest())
		return;
	lock();
	prune(pid);
	last = alone_but(leaving.n);
	if (!last && leaving.n < LEAVING_MAX)
		leaving.tid[leaving.n++] = (int)GATE_RAW(SYS_gettid, 0, 0, 0, 0, 0, 0);
	atomic_store(&leaving.lock, false);
	if (last)
		exit(status);
}
