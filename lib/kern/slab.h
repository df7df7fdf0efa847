/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KERN_SLAB_H
#define KERN_SLAB_H

/*
 * Fixed-size allocation on mmap: what the fault path allocates from.  No
 * malloc, no libc lock.  A slab grows by chunks and keeps them until
 * slab_fini().  Builds with assertions of level 2 poison freed items and check
 * the poison when they are given out again.
 */

#include <stddef.h>
#include <stdint.h>

#include "kern/lock.h"

struct slab {
	struct kmutex lock;		/* RANK_SLAB; guards all below */
	const char *name;
	uint32_t size;			/* bytes of an item, rounded up to its alignment */
	uint32_t chunk;			/* bytes of a chunk */
	void *free;			/* list of freed items */
	char *bump, *bump_end;		/* never used part of the newest chunk */
	void *chunks;			/* list of all chunks */
	uint64_t bytes;			/* in chunks */
	uint64_t used;			/* items given out */
};

/* Alignment is a power of two, at most 64.  No memory is taken yet. */
void slab_init(struct slab *, const char *name, size_t size, size_t align);
/* A zeroed item, or null where the kernel has no more memory. */
void *slab_alloc(struct slab *);
void slab_free(struct slab *, void *);
/* Give every chunk back.  => all items are gone. */
void slab_fini(struct slab *);

/* Whole pages, zeroed, counted; null where the kernel refuses. size is rounded up to pages. */
void *kmem_alloc(size_t size);
void kmem_free(void *, size_t size);
void kmem_trim(void);			/* give back what is kept for the next kmem_alloc() */
/* Bytes taken by all slabs and kmem_alloc()s of the library. */
uint64_t kmem_bytes(void);

#endif
