/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KVJOB_H
#define KVJOB_H

/*
 * The job that kvsnap does with either kind of memory, and what is measured at it.
 */

#include <ftw.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kvmem.h"

#define MB		((uint64_t)1 << 20)
#define MOST_SNAPSHOTS	64
#define MOST_THREADS	64

struct options {
	unsigned snapshots, threads;
	unsigned rate;			/* updates a second of each thread; 0: all it can */
	uint64_t data;			/* bytes of files at most */
	const char *dir;
	bool keep;
};

extern struct options options;
extern char image_dir[PATH_MAX - 64];

/*
 * Times of updates go into buckets, 32 to each doubling, in two sets: while no
 * snapshot is there, and from taking one until it is saved.
 */
#define BUCKETS	(64 * 32)

enum phase { CALMLY, SAVING, PHASES };

struct times {
	uint64_t bucket[BUCKETS];	/* of nanoseconds */
	uint64_t count;
	uint64_t worst;
};

struct result {
	double call[MOST_SNAPSHOTS], save[MOST_SNAPSHOTS];	/* microseconds */
	uint64_t extra[MOST_SNAPSHOTS];				/* bytes */
	struct times times[PHASES];
	double span[PHASES];					/* microseconds, all of them */
	uint64_t stalls, stalled;	/* updates over 1 ms while saving, their nanoseconds */
	bool log_full;
};

/* The time that this share of the updates did not exceed, in microseconds. */
double times_at(const struct times *, double share);

/* The files to load: a callback of nftw(). */
int add_file(const char *path, const struct stat *, int type, struct FTW *);
size_t file_count(void);
uint64_t file_bytes(void);
uint64_t file_blocks(void);

/* The name of a saved image; 0 is the base. */
const char *image_name(char *buf, size_t len, const struct kv_memory *, unsigned n);

/*
 * Do it all; the result is complete if everything was right.  Called in a process of its
 * own, so that nothing else is in its memory.  => the exit status
 */
int job(const struct kv_memory *, struct result *);

#endif
