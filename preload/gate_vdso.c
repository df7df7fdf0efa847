/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Functions that libc has from the vDSO.  They write to memory in user mode, which faults as it should; but for
 * clocks that the vDSO does not know, and on machines whose clock it cannot read, it makes the system call itself,
 * with an instruction that is not libc's.  So managed memory gets its answer by way of the stack.
 *
 * These stand before libc's by name, whatever the gate's mode.
 */

#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

#include "gate_impl.h"

#define EXPORT	__attribute__((__visibility__("default")))

typedef int clock_fn(clockid_t, struct timespec *);
typedef int day_fn(struct timeval *, void *);

static clock_fn *next_gettime, *next_getres;	/* written by everybody who finds them null, with the same */
static day_fn *next_day;

static void *
next_of(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

static bool
is_ours(const void *p, size_t n)
{
	return p != NULL && gate_ops.managed != NULL && gate_ops.managed(p, n);
}

static int
clock_call(clock_fn *next, clockid_t clock, struct timespec *ts)
{
	struct timespec local;
	int result;

	if (!is_ours(ts, sizeof(*ts)))
		return next(clock, ts);
	result = next(clock, &local);
	if (result == 0)
		*ts = local;
	return result;
}

EXPORT int
clock_gettime(clockid_t clock, struct timespec *ts)
{
	if (next_gettime == NULL)
		next_gettime = (clock_fn *)next_of("clock_gettime");
	return clock_call(next_gettime, clock, ts);
}

EXPORT int
clock_getres(clockid_t clock, struct timespec *ts)
{
	if (next_getres == NULL)
		next_getres = (clock_fn *)next_of("clock_getres");
	return clock_call(next_getres, clock, ts);
}

EXPORT int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timeval local;
	int result;

	if (next_day == NULL)
		next_day = (day_fn *)next_of("gettimeofday");
	if (!is_ours(tv, sizeof(*tv)))
		return next_day(tv, zone);
	result = next_day(&local, zone);
	if (result == 0)
		*tv = local;
	return result;
}
