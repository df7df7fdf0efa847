/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PHYSMEM_H
#define PHYSMEM_H

/*
 * Physical memory: a sparse memfd, cut into frames.
 *
 * An offset of the memfd costs nothing until it is touched, so "how much
 * memory" and "where in the memfd" are separate questions.  The first is the
 * budget, a hard limit on frames in use.  The second is placement: every object
 * reserves a run of frames as long as itself, its HOME, and page i of the object
 * lives in frame i of the home, so that neighbours in an object are neighbours
 * in the memfd and the kernel merges their mappings into one.  Where a home
 * frame is taken (a page can move to another object and keep its frame), or
 * the frame space is exhausted, a STRAY frame serves.
 *
 * The life of a frame:
 *
 *	clean	never touched, or given back to the kernel: reads as zeros
 *	used	belongs to a page
 *	dirty	freed, still holds its last owner's bytes, still resident
 *
 *	clean --alloc--> used --free--> dirty --physmem_flush()--> clean
 *	                  ^----alloc, zeroed or to be overwritten---|
 *
 * used + dirty frames never exceed the budget, except while that is being made smaller: then no frame is
 * given out until they fit.
 *
 * A process that was forked, and shares its parent's frames (physmem_freeze.c), has a memfd of its own for what it
 * takes; its frames are numbered from physmem_base on.  Lower ones are INHERITED: they can be read, and that is all.
 */

#include "kern/types.h"

/* A reserved run of frames.  Guarded by the lock of the object that owns it. */
struct physmem_home {
	vm_pfn_t base;		/* first frame, counted from where this process's begin: physmem_at() */
	uint32_t npages;	/* 0: none */
};

enum physmem_fill {
	PHYSMEM_ZERO,		/* must read as zeros */
	PHYSMEM_OVERWRITE,	/* the caller overwrites all of it before anyone sees it */
	PHYSMEM_LENT		/* likewise; of those that were lent */
};

int physmem_init(uint64_t budget_pages, uint64_t max_span);	/* 0 or -errno */
void physmem_fini(void);
int physmem_fd(void);
int physmem_fd_of(vm_pfn_t);		/* where that frame lies, at its number times the size of a page */

extern vm_pfn_t physmem_base;		/* constant, but in a forked child */

static inline vm_pfn_t
physmem_at(const struct physmem_home *home)
{
	return physmem_base + home->base;
}

static inline bool
physmem_is_inherited(vm_pfn_t pfn)
{
	return pfn < physmem_base;
}

/*
 * physmem_freeze.c: while a child sees them, frames that were in use at the fork stay as they are.
 *
 * physmem_freeze()	all that are used are FROZEN: not to be written, and freed only for us.  A newer one covers
 *			all that the older ones do.  *id: its name; a number that lives is made wider.  0 or -ENOMEM
 * physmem_freeze_end()	... but for what was made young: frames that are given out from now on are free to be written
 * physmem_thaw()	nobody needs it any more
 */
#define PHYSMEM_FREEZES	8u		/* that can live at the same time */
int physmem_freeze(uint32_t *id);
void physmem_freeze_end(void);
void physmem_thaw(uint32_t id);
void physmem_make_young(vm_pfn_t);	/* it is not frozen: nobody else sees it */
/* A frame that was freed while it was frozen, and still is, is ours again, with what is in it.  false: it is not one */
bool physmem_take_back(vm_pfn_t);
/*
 * All processes that see it write it (VMF_INHERIT_SHARE): it is not frozen, nor is it given to anybody else while one of
 * them lives.  => used, not young; the library is closed
 * false: no memory
 */
bool physmem_make_common(vm_pfn_t);
bool physmem_is_common(vm_pfn_t);
bool physmem_has_common(void);
bool physmem_is_frozen(vm_pfn_t);	/* inherited, or frozen, and not common; a hint that may be late to see a thaw */
bool physmem_any_frozen(vm_pfn_t, uint32_t n);
bool physmem_has_frozen(void);		/* does a freeze live?  A hint */
struct physmem_freeze_counts {
	uint64_t frozen, young, superseded;	/* frames */
	uint32_t live;				/* freezes */
};
void physmem_freeze_counts(struct physmem_freeze_counts *);
/* Is there room for another process's frames above ours? */
bool physmem_can_inherit(void);
/* A memfd for a child's frames.  A descriptor or -errno */
int physmem_another(void);
/* In the child: our frames are inherited, and that is where new ones are.  0 or -errno */
int physmem_inherit(int fd);

/* physmem_fork.c: another memfd, which holds what ours does in frames that are used.  0 or -errno */
int physmem_copy_all(int *fd);
int physmem_copy_frame(int fd, vm_pfn_t);	/* one frame's bytes; 0 or -errno */
/* In a forked child: that is the memfd from now on.  => the old window is gone.  0 or -errno */
int physmem_forked(int fd);

/* Reserve npages frames, aligned as large as the run is, up to 1 GB.  false: none that long is free. */
bool physmem_reserve(uint32_t npages, struct physmem_home *);
void physmem_unreserve(struct physmem_home *);

/*
 * A frame: `want` if it is free (0: no wish), else a stray.  0: the budget is
 * used up.  Takes dirty frames before it gives up.
 */
vm_pfn_t physmem_alloc(vm_pfn_t want, enum physmem_fill);
/*
 * Up to n frames in a row, the first of which is `want', all of them clean or all of them with whatever they hold, as
 * far as that goes without a look at anything else.  Returns how many.
 */
uint32_t physmem_alloc_row(vm_pfn_t want, uint32_t n, bool *clean);
void physmem_unalloc_row(vm_pfn_t, uint32_t n);	/* so many clean ones were not needed, and are as they were */
void physmem_free(vm_pfn_t);
void physmem_free_many(const vm_pfn_t *, uint32_t n);
/*
 * Take up to n dirty frames in a row, from *base on, with whatever they hold: the kernel need neither
 * take them back nor clear others.  Returns how many; 0: there are none worth it.
 */
uint32_t physmem_recycle(uint32_t n, vm_pfn_t *base);
/*
 * Set n frames aside that nobody gets but who asks for PHYSMEM_LENT ones: the kernel is going to use as much memory
 * in their place.  false: they would leave fewer than so many.
 */
bool physmem_lend(uint32_t n, uint64_t leave);
void physmem_lend_end(uint32_t n);
/* Give dirty frames back to the kernel, the oldest first.  Returns how many; 0: it refuses, or others are at it. */
uint32_t physmem_flush(uint32_t most);
extern uint64_t physmem_linger;		/* an interval, nanoseconds; it is tests that want it shorter */
/*
 * Give back a few of those that nobody took for an interval, or two.  To be called again after so many nanoseconds;
 * EVENT_FOREVER: when physmem_is_untended().  => one thread at a time
 */
int64_t physmem_trim(void);
bool physmem_is_untended(void);		/* once: there are dirty frames, and nobody calls physmem_trim() */
/* True if it holds nothing but zeros, or the kernel no memory for it: then none is taken. => nobody can touch it. */
bool physmem_is_zero(vm_pfn_t);

bool physmem_differ(vm_pfn_t, vm_pfn_t);	/* do they hold different bytes? */
void physmem_zero(vm_pfn_t);
bool physmem_blank(vm_pfn_t, uint32_t n);		/* have the kernel take their memory: n in a row are zeros.  false: it refuses */
void physmem_zero_row(vm_pfn_t, uint32_t n);	/* n in a row; with no memory of the kernel's, as far as it will */
void physmem_copy(vm_pfn_t from, vm_pfn_t to, uint32_t n);	/* n frames in a row; not overlapping */

/* Copy n pages from there, which may be managed memory.  0 or -errno; then some may be copied. => no lock held */
int physmem_write(vm_pfn_t to, const void *from, uint32_t n);

struct physmem_counts {
	uint64_t budget, used, dirty;
};
void physmem_counts(struct physmem_counts *);
uint64_t physmem_budget(void);
bool physmem_is_boundless(void);	/* is the budget more than all frames? */
void physmem_set_budget(uint64_t budget_pages);
void physmem_set_low(uint64_t low_mark);	/* fewer free frames than this are few */
/*
 * Is used + dirty <= budget?  Dirty frames that are in the way are given back first, as far as the
 * kernel takes them.
 */
bool physmem_fits(void);
uint64_t physmem_free_count(void);	/* frames that may still be allocated; a moment's truth */
extern const char physmem_freed;	/* an event: frames may have become free */
extern const char physmem_plenty;	/* an event: some dozens may have */
bool physmem_is_low(void);		/* fewer than the mark are left; a hint, cheap */
bool physmem_is_unused(vm_pfn_t, uint32_t n);	/* none of n frames in a row is used */
bool physmem_used(vm_pfn_t);		/* for audits */

#endif
