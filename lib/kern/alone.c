/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdatomic.h>
#include <string.h>

#include "kern/alone.h"
#include "kern/probe.h"
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

void
alone_settle(void)
{
	while (atomic_load(&begun) < atomic_load(&made))
		sys_yield();
}

static void *
begin(void *arg)
{
	void *(*run)(void *);

	memcpy(&run, &arg, sizeof(run));
	mine = true;
	PROBE("alone: begins");
	sys_deafen(true);
	atomic_fetch_add(&begun, 1);
	arg = run(NULL);
	sys_deafen(false);
	return arg;
}

int
alone_thread(pthread_t *thread, void *(*fn)(void *))
{
	sys_sigset_t old;
	void *arg;
	int error;

	memcpy(&arg, &fn, sizeof(arg));
	/* It is born with the mask of who makes it, who may fault on managed memory here: begin() does the rest. */
	sys_block(&old);
	error = pthread_create(thread, NULL, begin, arg);
	sys_setmask(&old);
	if (error == 0) {
		atomic_fetch_add(&ours, 1);
		atomic_fetch_add(&made, 1);
		alone_settle();
	}
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
