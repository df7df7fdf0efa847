/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KVMEM_H
#define KVMEM_H

/*
 * Memory that can be snapshotted while it is written, in two ways: managed by
 * vmfault, and plain memory with fork().  The index above does not know which.
 *
 * There are two areas, so that a snapshot has to be of both at one instant: the
 * index, and the log of the updates that were made to it.  One snapshot exists at a
 * time:
 *
 *	take	returns at once; the writers go on
 *	save	writes its image to a file, in the background, while they do
 *	extra	what it costs in memory by now
 *	drop	gives it back
 *
 * Functions return 0, or a negative errno with a message printed.
 */

#include <stddef.h>
#include <stdint.h>

enum kv_which { KV_INDEX, KV_LOG, KV_AREAS };

struct kv_area {
	void *addr;
	size_t size;		/* a multiple of the page size */
};

typedef void kv_progress(uint64_t done, uint64_t total);

struct kv_memory {
	const char *name;
	const char *file;	/* what its files are called */
	int (*start)(struct kv_area area[KV_AREAS]);	/* sizes are given, addresses returned */
	void (*stop)(void);
	/* fd: where the snapshot will be saved; *us: what the one call took that took it */
	int (*take)(int fd, double *us);
	int (*save)(int fd, kv_progress *progress);
	uint64_t (*extra)(void);
	int (*drop)(void);
};

extern const struct kv_memory kv_vmfault, kv_fork;

double kv_clock(void);		/* microseconds */

#endif
