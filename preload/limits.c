/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Limits that a program puts on itself while it runs, and that are in the library's way.
 *
 *	RLIMIT_AS	The managed range is address space, more than any such limit: nothing could be mapped any
 *			more, not even over what is there.  So the kernel is not told.  The program reads back what
 *			it set, its children inherit it, and what it runs by exec gets it from the kernel.
 *	RLIMIT_FSIZE	Swap is a file, a forked child's memory is one.  The program's own files keep the limit.  But
 *			nothing can be paged out past it, so memory is not limited from then on, and one line says so.
 *
 * The kernel keeps the hard limits that it had: otherwise an exec that fails could not be taken back, and a fork
 * could not be made.  (What a process is born with is another matter: shim.c.)
 *
 * A shell that says `ulimit -v' and runs a program is what all of this is for.
 */

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "fork.h"
#include "gate_impl.h"
#include "shim.h"
#include "vmfault.h"

/* The kernel's struct rlimit64. */
struct limit {
	uint64_t cur, max;
};

/* What the program has set.  Who sets one on two threads at once gets some of both. */
static struct {
	_Atomic bool on;
	_Atomic uint64_t cur, max;
} kept[2];

static int
slot_of(long resource)
{
	return resource == RLIMIT_AS ? 0 : resource == RLIMIT_FSIZE ? 1 : -1;
}

static long
kernel(int resource, const struct limit *new, struct limit *old)
{
	return GATE_RAW(SYS_prlimit64, 0, resource, new, old, 0, 0);
}

/* The kernel's soft limit; the hard one stays. */
static long
set_soft(int resource, uint64_t cur)
{
	struct limit l;
	long error = kernel(resource, NULL, &l);

	if (error != 0)
		return error;
	l.cur = cur < l.max ? cur : l.max;
	return kernel(resource, &l, NULL);
}

static long
set(int resource, const struct limit *new, const struct limit *old)
{
	int i = slot_of(resource);
	long error = 0;

	if (new->cur > new->max)
		return -EINVAL;
	if (new->max > old->max && GATE_RAW(SYS_geteuid, 0, 0, 0, 0, 0, 0) != 0)
		return -EPERM;
	if (resource == RLIMIT_FSIZE) {
		error = set_soft(resource, new->cur);
		/* What a child writes of shared frames would lie past the limit. */
		if (new->cur != RLIM64_INFINITY)
			fork_copy_only();
		if (error == 0 && new->cur != RLIM64_INFINITY && shim_config.memory != 0 && !kept[i].on) {
			(void)vmf_set_memory(UINT64_MAX);
			shim_say("runs without a limit of memory from now on: its files are limited (ulimit -f)", NULL);
		}
	}
	if (error == 0) {
		kept[i].cur = new->cur;
		kept[i].max = new->max;
		kept[i].on = true;
	}
	return error;
}

bool
limits_call(struct gate_call *call)
{
	bool both = call->nr == SYS_prlimit64;
	int resource = (int)call->arg[both], i = slot_of(resource);
	void *from = (void *)(both ? call->arg[2] : call->nr == SYS_setrlimit ? call->arg[1] : 0);
	void *to = (void *)(both ? call->arg[3] : call->nr == SYS_setrlimit ? 0 : call->arg[1]);
	struct limit new, old;

	if (i < 0 || (both && call->arg[0] != 0 && call->arg[0] != GATE_RAW(SYS_getpid, 0, 0, 0, 0, 0, 0)))
		return false;
	if (from == NULL && !kept[i].on)
		return false;
	call->result = kernel(resource, NULL, &old);
	if (kept[i].on)
		old = (struct limit){ kept[i].cur, kept[i].max };
	if (call->result == 0 && from != NULL)
		call->result = gate_copy(&new, from, sizeof(new)) ? set(resource, &new, &old) : -EFAULT;
	if (call->result == 0 && to != NULL && !gate_copy(to, &old, sizeof(old)))
		call->result = -EFAULT;
	return true;
}

void
limits_exec(bool begin)
{
	if (kept[0].on)
		(void)set_soft(RLIMIT_AS, begin ? kept[0].cur : RLIM64_INFINITY);
}

void
limits_fork(bool begin)
{
	if (kept[1].on)
		(void)set_soft(RLIMIT_FSIZE, begin ? RLIM64_INFINITY : kept[1].cur);
}
