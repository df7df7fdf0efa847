/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef FORKS_H
#define FORKS_H

/*
 * FORK_SHARES in the environment: parent and child share frames; else the child is given a copy.
 *
 * What the tests of fork() have in common: how the library is started for them, how a child's end is judged, and what a process
 * may still hold when all is given back.
 *
 * A child that finds a wrong byte aborts, and says so; whoever waits for it fails then, up to the test.  What is
 * counted after a fork is given time: frames that a child had come back when the library notices that it is gone.
 */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fork.h"
#include "suite.h"
#include "support.h"

enum { PATIENCE_MS = 20000 };

/* memory, swap: in pages, 0: none set; mappings: 0: the default.  by_hand: try_fork() is to be used, and not fork() */
static inline void
begin_forks_by(bool by_hand, size_t memory, size_t swap, uint32_t mappings)
{
	struct vmf_config c = VMF_CONFIG_INIT;

	c.memory = memory * PG;
	c.swap_size = swap * PG;
	c.mappings = mappings;
	c.flags = VMF_CONFIG_QUIET | VMF_CONFIG_IO_SYSCALLS;
	expect(vmf_init(&c), 0);
	touch_install();
	expect(fork_enable(by_hand, getenv("FORK_SHARES") != NULL), 0);
}

static inline void
begin_forks(size_t memory, size_t swap, uint32_t mappings)
{
	begin_forks_by(false, memory, swap, mappings);
}

/* fork() that can say why not: -ENOMEM or -EAGAIN. */
static inline pid_t
try_fork(void)
{
	int error = fork_prepare();
	pid_t pid;

	if (error != 0)
		return error;
	pid = fork();
	if (pid != 0)
		fork_parent(pid < 0);
	return pid < 0 ? -errno : pid;
}

/* -1: any of them */
static inline void
expect_good(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		check(errno == EINTR);
	expect_exit(status, 0);
}

static inline struct vmf_stats
statistics(void)
{
	struct vmf_stats s = { .size = sizeof(s) };

	expect(vmf_statistics(&s), 0);
	return s;
}

/* What a process holds of the library's, and of the kernel's. */
struct held {
	uint64_t frames, slots, snapshots, entries, fds;
};

static inline struct held
held_now(void)
{
	struct vmf_stats s = statistics();

	return (struct held){ s.v_page_count - s.v_free_count, s.swap_used, s.snapshots, s.entries, count_fds() };
}

/* All of it is back, soon. */
static inline void
expect_held(struct held want)
{
	uint64_t began = now_ms();
	struct held h;

	while (h = held_now(), memcmp(&h, &want, sizeof(h)) != 0) {
		if (now_ms() - began > PATIENCE_MS)
			die("process %d holds %llu frames, %llu slots, %llu snapshots, %llu entries, %llu descriptors; "
			    "it should be %llu, %llu, %llu, %llu, %llu", (int)getpid(), (unsigned long long)h.frames,
			    (unsigned long long)h.slots, (unsigned long long)h.snapshots, (unsigned long long)h.entries,
			    (unsigned long long)h.fds, (unsigned long long)want.frames, (unsigned long long)want.slots,
			    (unsigned long long)want.snapshots, (unsigned long long)want.entries,
			    (unsigned long long)want.fds);
		usleep(1000);
	}
}

/* So many descriptors are open, soon: what tells of a child that is gone is closed then. */
static inline void
expect_fds(unsigned want)
{
	uint64_t began = now_ms();

	while (count_fds() != want) {
		if (now_ms() - began > PATIENCE_MS)
			die("%u descriptors are open, not %u", count_fds(), want);
		usleep(1000);
	}
}

/* Nobody is below us any more, and nobody was whom we did not wait for. */
static inline void
expect_no_children(void)
{
	check(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
}

#endif
