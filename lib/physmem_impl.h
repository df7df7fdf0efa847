/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PHYSMEM_IMPL_H
#define PHYSMEM_IMPL_H

/*
 * What the files of physical memory share.
 *
 *	physmem.c	where frames lie, and who may have one
 *	physmem_dirty.c	those that were freed and are still in memory
 *	physmem_freeze.c those that a forked child sees as well
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

struct freeze {
	uint32_t id;			/* ascending; 0: a free place */
	bool live;
	uint64_t *superseded;		/* frames that were freed while this was the newest */
	uint64_t *blocks;		/* of them */
};

#define OLDER_MOST	16u

struct physmem {
	struct kmutex lock;		/* guards all that follows */
	int fd;				/* constant, but in a forked child; so are the next ones */
	uint64_t nframes;		/* frames are physmem_base + 1 .. nframes - 1 */
	uint32_t nolder;
	struct {
		vm_pfn_t base;		/* ascending */
		int fd;
	} older[OLDER_MOST];		/* where inherited frames lie */
	_Atomic uint64_t budget;	/* changed with the lock; faults read it without */
	uint64_t nused, ndirty;		/* bits set in the bitmaps */
	uint64_t nlent;			/* frames that must stay free */
	uint64_t *used, *dirty;
	uint64_t *fresh;		/* not written since the kernel had it, as far as we know: a hint */
	uint64_t *blocks;		/* of 1 << RUN_SHIFT frames: those that have dirty ones, and maybe others */
	size_t bitmap_bytes;		/* of each of the first three */
	struct avl free;		/* extents; disjoint, not adjacent; counted from physmem_base, as homes are */
	uint32_t high;			/* no extent has ever been taken from here on */
	struct slab extents;
	vm_pfn_t stray, stray_end;	/* what is left of the run that strays come from, counted likewise */
	struct avl stray_runs;		/* all such runs */
	vm_pfn_t stray_hand;		/* where to go on looking for one that can serve again */
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

	/* physmem_freeze.c */
	_Atomic uint32_t nfreezes;	/* that live; a look without the lock is a hint */
	bool freezing;			/* what is given out is not young */
	struct freeze freeze[PHYSMEM_FREEZES];
	uint32_t ids;			/* names given */
	_Atomic uint64_t *young;	/* frames that nobody else sees, while there are freezes; a look is a hint */
	uint64_t *young_blocks;		/* those that have some, and maybe others */
	uint64_t nyoung, nsuperseded;
	_Atomic uint64_t *common;	/* frames that several processes write; null: there are none.  A look is a hint */
	uint64_t *common_blocks;	/* those that have some, and maybe others */
};

extern struct physmem pm;

void freeze_young(vm_pfn_t);		/* => lock held, not young */
bool freeze_forget(vm_pfn_t);		/* ... nor is it any more.  Returns whether it was.  => lock held */
/* A used frame is given up.  => lock held.  true: that is all, for somebody else sees it */
bool freeze_keeps(vm_pfn_t);
void freeze_fini(void);
void freeze_forked(void);

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

/* It belongs to somebody from now on.  => lock held */
static inline void
mark_used(vm_pfn_t pfn)
{
	set_bit(pm.used, pfn);
	pm.nused++;
	if (pm.nfreezes != 0 && !pm.freezing)
		freeze_young(pfn);
}

static inline size_t
blocks_bytes(void)
{
	return (size_t)(((pm.nframes >> RUN_SHIFT) / 64 + 1) * sizeof(uint64_t));
}

/* All of these: => lock held */
void physmem_note_low(void);
/* One frame is nobody's any more; and when those at hand are done with: */
void dirty_free(vm_pfn_t);
void dirty_freed(void);
/* A dirty frame is used from now on, with what is in it. */
void dirty_take(vm_pfn_t);
vm_pfn_t dirty_any(void);		/* 0: none */

#endif
