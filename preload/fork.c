/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * fork().
 *
 * Memory that is not watched is the kernel's, and so is its fork().  Else the library makes the copy
 * (lib/fork.c), and here is what must stand around that.  Handlers of pthread_atfork() are called in the
 * child in the order in which they were registered, in the parent's preparations the other way round:
 *
 *	ours, before the library starts		child: what is allocated now is boot memory
 *	the library's				prepare: stop and copy; child: be whole, make threads
 *	ours, after it				prepare: libc's list of files; child: back to jemalloc
 *	jemalloc's, at its first use		its locks
 *	the program's
 *
 * A clone that is not libc's (a program's own, _Fork) calls no handlers: there all of it happens at the clone.
 *
 * So when the library stops the other threads, all locks that fork() is going to need are held: none
 * of them is with a thread that waits for us.  libc's list of files is taken by fork() itself only after
 * the preparations, and who is in fopen() holds it while he touches the heap: hence we take it first.
 */

#include <pthread.h>
#include <stdbool.h>
#include <sys/single_threaded.h>
#include <time.h>

#include "fork.h"
#include "shim.h"
#include "stats.h"

/* glibc's, exported, recursive, and declared nowhere. */
void _IO_list_lock(void);
void _IO_list_unlock(void);

static bool list_locked;		/* by the thread that forks */
static __thread bool libcs __attribute__((__tls_model__("initial-exec")));
static uint64_t began;			/* when it began to */

static uint64_t
now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void
lock_files(void)
{
	libcs = true;
	uint64_t t = now();

	list_locked = !__libc_single_threaded;
	if (list_locked)
		_IO_list_lock();
	/* Nobody else gets here before we are done. */
	began = t;
}

static void
unlock_files(void)
{
	libcs = false;
	if (list_locked)
		_IO_list_unlock();
	stats_fork(now() - began);
}

static void
child_begins(void)
{
	threads_forked();
	shim_restart(false);
}

/* libc has made the list's lock anew. */
static void
child_is_whole(void)
{
	stats_start(shim_config.stats, shim_config.quiet);
	libcs = false;
	if (shim_config.chaos != 0)
		(void)chaos_start();
	shim_restart(true);
}

bool
fork_is_libcs(void)
{
	return libcs;
}

void
fork_raw_child(void)
{
	child_begins();
	(void)fork_child_threads();
	child_is_whole();
}

void
fork_start(void)
{
	(void)pthread_atfork(NULL, NULL, child_begins);
}

int
fork_started(bool by_gate)
{
	int error = fork_enable(by_gate, shim_config.fork_mode == FORK_FAST);

	return error != 0 ? error : -pthread_atfork(lock_files, unlock_files, child_is_whole);
}
