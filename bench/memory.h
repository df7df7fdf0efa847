/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef BENCH_MEMORY_H
#define BENCH_MEMORY_H

/*
 * How much memory processes take together, each byte of it counted once.
 *
 * Anonymous pages that several of them share are counted in parts, by the kernel (Pss).  Pages of memory files are not
 * taken from there: a frame that nobody has mapped at the moment is memory, too.  The file says itself how many it has, and
 * is counted once, whoever has it open.  Page tables are memory that a fork takes, and are in it.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MEMORY_FAMILY	64u

/* A process and all below it.  => how many */
size_t memory_family(pid_t root, pid_t pids[MEMORY_FAMILY]);

/* Bytes.  Who has ended meanwhile has none. */
uint64_t memory_of(const pid_t *pids, size_t n);

#endif
