/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdatomic.h>
#include <string.h>

#include "kern/alone.h"
#include "kern/sys.h"

#define DIR_LINKS	2		/* that any directory has */

static _Atomic int ours;
static _Atomic uint32_t made, begun;	/* threads, since the process began */
static __thread bool mine __attribute__((__tls_model__("initial-exec")));	/* this thread is one of them */

bool
alone_is_ours(void)
{
	return mine;
}

static void *
begin(void *fn)
{
	void *(*run)(void *);

	memcpy(&run, &fn, sizeof(run));
	mine = true;
	atomic_fetch_add(&begun, 1);
	return run(NULL);
}

int
alone_thread(pthread_t *thread, void *(*fn)(void *))
{
	sys_sigset_t old;
	void *arg;
	int error;

	memcpy(&arg, &fn, sizeof(arg));
	sys_block(&old);		/* it is born with the mask of who makes it */
	error = pthread_create(thread, NULL, begin, arg);
	sys_setmask(&old);
	atomic_fetch_add(&ours, error == 0);
	atomic_fetch_add(&made, error == 0);
	return -error;
}

void
alone_join(pthread_t thread)
{
	(void)pthread_join(thread, NULL);
	atomic_fetch_sub(&ours, 1);
}

void
alone_forked(void)
{
	atomic_store(&ours, 0);
	atomic_store(&made, 0);
	atomic_store(&begun, 0);
}

void
alone_settle(void)
{
	while (atomic_load(&begun) < atomic_load(&made))
		sys_yield();
}

int
alone_number(void)
{
	return atomic_load(&ours);
}

bool
alone(void)
{
	struct sys_stat st;

	return sys_stat_path("/proc/self/task", &st) == 0 && st.links == DIR_LINKS + (uint32_t)atomic_load(&ours) + 1;
}
