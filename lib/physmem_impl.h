/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PHYSMEM_IMPL_H
#define PHYSMEM_IMPL_H

/*
 * What the files of physical memory share.
 *
 *	physmem.c	where frames lie, and who may have one
 *	physmem_dirty.c	those that were freed and are still in memory
 *	physmem_bytes.c	what is in them
 */

#include <stdatomic.h>

#include "kern/avl.h"
#include "kern/lock.h"
#include "kern/slab.h"
#include "physmem.h"

#define RUN_SHIFT	9			/* homes of 2 MB and more are aligned to it */
#define KNOWN_RUNS	512			/* runs of dirty frames that are known by their places */

struct run {
	vm_pfn_t base;
	uint32_t npages;
};

struct physmem {
	struct kmutex lock;		/* guards all that follows */
	int fd;				/* constant */
	uint64_t nframes;		/* constant; frames are 1 .. nframes - 1 */
	_Atomic uint64_t budget;	/* changed with the lock; faults read it without */
	uint64_t nused, ndirty;		/* bits set in the bitmaps */
	uint64_t nlent;			/* frames that must stay free */
	uint64_t *used, *dirty;
	uint64_t *fresh;		/* not written since the kernel had it, as far as we know: a hint */
	uint64_t *blocks;		/* of 1 << RUN_SHIFT frames: those that have dirty ones, and maybe others */
	size_t bitmap_bytes;		/* of each of the first three */
	struct avl free;		/* extents; disjoint, not adjacent */
	struct slab extents;
	vm_pfn_t stray, stray_end;	/* the run that strays come from */
	uint64_t low_mark;
	_Atomic bool low;		/* not guarded: a hint; fewer than low_mark are left */

	/* physmem_dirty.c */
	struct run known[KNOWN_RUNS];	/* freed frames, the newest last; some may have been used again */
	uint32_t nknown;
	uint64_t hand;			/* the block that is looked at next for more of them */
	bool flushing;			/* somebody is punching ... */
	uint32_t npunching;		/* ... so many of the ndirty frames at the moment */
	uint64_t least;			/* of ndirty since the interval began */
	uint64_t interval_end;		/* ns; 0: physmem_trim() sees nothing to do */
	uint64_t surplus;		/* frames that were dirty all of the last interval, and still have to go */
	_Atomic bool untended;		/* not guarded: somebody has to call physmem_trim() */
};

extern struct physmem pm;

static inline bool
test_bit(const uint64_t *map, vm_pfn_t pfn)
{
	return map[pfn / 64] >> (pfn % 64) & 1;
}

static inline void
set_bit(uint64_t *map, vm_pfn_t pfn)
{
	map[pfn / 64] |= (uint64_t)1 << (pfn % 64);
}

static inline void
clear_bit(uint64_t *map, vm_pfn_t pfn)
{
	map[pfn / 64] &= ~((uint64_t)1 << (pfn % 64));
}

static inline size_t
blocks_bytes(void)
{
	return (size_t)(((pm.nframes >> RUN_SHIFT) / 64 + 1) * sizeof(uint64_t));
}

/* All of these: => lock held */
void physmem_note_low(void);
/* A dirty frame is used from now on, with what is in it. */
void dirty_take(vm_pfn_t);
vm_pfn_t dirty_any(void);		/* 0: none */

#endif
