/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PRELOAD_STATS_H
#define PRELOAD_STATS_H

/*
 * What the shim counts beside the library, and what becomes of all the numbers: they are published for
 * `vmfault stat' while the process runs, and written to VMFAULT_STATS when it ends.
 */

#include <stdint.h>

/* Relaxed atomics; X(name) is what the number is called outside. */
#define STATS_COUNTERS(X) \
	X(forks)		/* fork()s of a process that has managed memory ... */ \
	X(fork_ns)		/* ... the nanoseconds that the parent spent in them, all together ... */ \
	X(fork_ns_max)		/* ... and in the one that took longest */ \
	X(gate_sites)		/* gauge: system call instructions that were rewritten; stays */ \
	X(gate_pins)		/* buffers of system calls that had to be held */ \
	X(chaos_evictions)	/* pages that VMFAULT_CHAOS evicted */

struct stats_counters {
#define X(name) uint64_t name;
	STATS_COUNTERS(X)
#undef X
};
extern struct stats_counters stats_counters;

#define stats_add(name, by)	((void)__atomic_fetch_add(&stats_counters.name, (by), __ATOMIC_RELAXED))
#define stats_count(name)	stats_add(name, 1)
#define stats_set(name, n)	__atomic_store_n(&stats_counters.name, (n), __ATOMIC_RELAXED)

/* A fork() took so long, in the parent. */
void stats_fork(uint64_t ns);

/*
 * After vmf_init(), and again in a child that has the library anew: counting starts at zero.  file is
 * shim_config.stats, and stays where it is; quiet: no message if it cannot be written.
 */
void stats_start(const char *file, int quiet);

/*
 * The process is about to end: write the file.  Does nothing if that was done, in a vfork()ed child, or
 * where none was asked for.  Signal-safe; errno is kept.
 */
void stats_exit(void);

#endif
