/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PMAP_H
#define PMAP_H

/*
 * The physical map: what the kernel has been told to map where.
 *
 * THE CONTRACT (Mach's, with UML's emulation of the bits):
 *   - A mapping may be forgotten at any time unless it is wired; the next touch
 *     faults and brings it back.
 *   - What a page may be used for is never more than it was entered with.
 *   - Modified bits are exact, referenced bits are estimates: both are kept in
 *     vm_page by those who enter (a page is entered writable only when it is, or
 *     may at once be, MODIFIED).
 *   - When a call that takes rights away returns, no thread has them any more.
 *   - Above this file nobody changes a managed mapping by system call.
 *
 * A large run that can be written is PARKED when rights are taken from it (pmap_park.c): it loses them all, in
 * microseconds whatever its size.
 *
 * A pmap keeps, for each page of its range, a pte: the frame that the kernel maps
 * there and with what protection, exactly.  A pte with a frame but no rights is
 * inaccessible memory that is one mprotect away from use; a pte of 0 is
 * reserved address space.
 *
 * The kernel limits the mappings of a process (vm.max_map_count): a mapping is
 * a maximal run of ptes that it can merge.  pmap counts them as it changes
 * them.  When they near the budget it forgets chunks whole; it never fails for
 * lack of mappings.
 *
 * A page that is written, in the midst of many that only may be read, splits a mapping, and what takes
 * the right away again merges three: that costs the kernel several times as much as the
 * rights themselves.  So a lone page is kept APART, in a mapping of its own whatever its rights: the
 * next snapshot finds it there, and so does the next write.
 *
 * Locks: pmap->lock inside; callers hold whatever keeps the pages from
 * changing owner (the object's lock).  No call waits for a page.
 */

#include <sys/queue.h>

#include "kern/lock.h"
#include "kern/types.h"

#ifndef PMAP_LEAF_SHIFT		/* some tests have small ones */
#define PMAP_LEAF_SHIFT	9
#endif
#define PMAP_LEAF_PAGES	(1u << PMAP_LEAF_SHIFT)	/* 2 MB */

typedef uint32_t pt_entry_t;		/* pfn << 4 | flags */
#define PTE_R		1u
#define PTE_W		2u
#define PTE_X		4u
#define PTE_WIRED	8u
#define PTE_PROT	(PTE_R | PTE_W | PTE_X)
#define PTE_PFN(pte)	((vm_pfn_t)((pte) >> 4))
#define PTE_MAKE(pfn, f) ((pt_entry_t)(pfn) << 4 | (f))

#define PMAP_LEAF_WORDS	((PMAP_LEAF_PAGES + 63) / 64)

struct pmap_leaf {
	uint16_t nvalid;	/* ptes with rights */
	uint16_t nwrite;	/* ... with the right to write */
	uint16_t nexec;		/* ... with the right to execute */
	uint16_t nwired;
	uint16_t nframe;	/* ptes with a frame */
	uint16_t napart;	/* ... kept apart */
	bool parked;		/* it lost all rights at once, and less than half have come back */
	bool stale;		/* many of these were not written between the last two protects */
	bool view;		/* a private view (pmap_view.c): the ptes say what may be done to the frames; */
	bool view_write;	/* ... it can be written */
	uint32_t avoid;		/* a hint: a view would not last, until the pmap's epoch is that; 0: nothing is known */
	uint32_t dense;		/* a hint: all of it is likely to be written until the pmap's epoch is that; 0: is not */
	uint64_t write[PMAP_LEAF_WORDS];	/* a bit for each pte that nwrite counts */
	uint64_t apart[PMAP_LEAF_WORDS];	/* a bit for each pte that napart counts */
	pt_entry_t pte[PMAP_LEAF_PAGES];
};

struct pmap_dir;

struct pmap {
	struct kmutex lock;		/* guards all below */
	vm_offset_t base;		/* constant; first address */
	vm_size_t size;			/* constant */
	struct pmap_dir **dir;		/* one for each GB; null where nothing is */
	uint32_t ndir;			/* constant */
	uint32_t epoch;			/* PMAP_CUTs: the clock of the hints */
	bool dense;			/* the leaf that was looked at last was written all over */
	uint32_t hand;			/* where forgetting goes on: a leaf's number */
	uint64_t runs;			/* kernel mappings that the ptes make */
	uint64_t napart;		/* pages kept apart */
	uint32_t nleaves;
	TAILQ_ENTRY(pmap) link;		/* guarded by the list's lock in pmap.c */
};

/*
 * A strategy: how the kernel is told.  Each returns 0 or a negative errno; after
 * an error the range may be mapped in part the old way, in part the new.
 */
struct pmap_ops {
	const char *name;
	/* Map n frames from pfn at va with these rights (none: inaccessible). */
	int (*map)(vm_offset_t va, size_t n, vm_pfn_t pfn, unsigned pte_prot);
	/* Change the rights of n frames that are mapped there; in a row from pfn, unless `spans'. */
	int (*protect)(vm_offset_t va, size_t n, vm_pfn_t pfn, unsigned pte_prot);
	bool spans;		/* protect() does not care which frames they are */
	/* Keep n mapped frames in mappings of their own, or merge them with their like.  May be null. */
	int (*keep_apart)(vm_offset_t va, size_t n, bool apart);
	/* Make it reserved address space. */
	int (*unmap)(vm_offset_t va, vm_size_t size);
	bool park;		/* large runs lose their rights by pmap_park.c */
	bool view;		/* leaves may be mapped private (pmap_view.c) */
};

extern const struct pmap_ops pmap_view_ops;	/* the next one, and writers get private views */
extern const struct pmap_ops pmap_park_ops;	/* the next one, and large runs are parked */
extern const struct pmap_ops pmap_mprotect_ops;	/* mprotect what is mapped, mmap what is not */
extern const struct pmap_ops pmap_mmap_ops;	/* mmap anew for every change */

/*
 * budget: kernel mappings at most, of all pmaps together; 0: find out.  strategy null: the best that this kernel
 * can.  => frames are there
 */
void pmap_init(const struct pmap_ops *, uint32_t budget);
int pmap_start(void);		/* its thread; 0 or -errno.  Without it what is parked stays until the end */
void pmap_stop(void);
void pmap_hold(void);		/* its thread changes nothing until pmap_go_on() */
void pmap_go_on(void);
/*
 * In a forked child, which has its own frames at the same places, and in the pmap's range only address space:
 * map what is wired, forget all else.  0 or -errno
 */
int pmap_forked(struct pmap *);
void park_forked(void);		/* ... before all others: what was parked is gone */
struct pmap *pmap_create(vm_offset_t base, vm_size_t size);	/* => the range is reserved; null: no memory */
void pmap_destroy(struct pmap *);				/* => nothing is mapped any more */
void pmap_fini(void);						/* => every pmap is destroyed */
void pmap_views_forked(bool again);				/* in a child: no views, or again what it takes for them */

/*
 * Enter n pages from va: pte[i] says frame, rights and wiring of page i; 0 leaves page i
 * as it is.  pte[centre] is what the call is for; of the others those are left out (and
 * set to 0) that are wired or mapped with these rights already, and when mappings are short all that would
 * not be in one with the centre.  *entered says how many were entered.
 * [home_lo, home_hi) around va and home_pfn, the frame of home_lo, say what else is
 * going to be mapped near it: the pmap may map that, inaccessible, on the way.  home_pfn 0: not known.
 * => KERN_RESOURCE_SHORTAGE: no memory for a leaf, or the kernel refuses
 *    mappings even after everything that can be forgotten is forgotten.
 */
enum kern_return pmap_enter(struct pmap *, vm_offset_t va, uint32_t n, pt_entry_t *pte,
    uint32_t centre, vm_offset_t home_lo, vm_offset_t home_hi, vm_pfn_t home_pfn,
    uint32_t *entered);

#define PMAP_KEEP_WIRED	1u	/* leave wired pages as they are */
#define PMAP_KEEP_VIEWS	2u	/* ... and private views: nothing that is written there reaches a frame */
#define PMAP_CUT	4u	/* it is for a snapshot or a fork: what is known of leaves (hints) grows older */

/* Take rights away: keep at most prot in [s, e). */
void pmap_protect(struct pmap *, vm_offset_t s, vm_offset_t e, vm_prot_t prot, unsigned flags);
/* Forget the pages, wired or not, and make the range reserved address space. */
void pmap_remove(struct pmap *, vm_offset_t s, vm_offset_t e);
/* The same where something stays mapped, for the next fault to find: what is known of leaves stays known. */
void pmap_unmap(struct pmap *, vm_offset_t s, vm_offset_t e);
/* Keep at most prot for the page at va if the frame there is pfn.  Wired pages too. */
void pmap_page_limit(struct pmap *, vm_offset_t va, vm_pfn_t pfn, vm_prot_t prot);
/* The pte of va; 0 where nothing is. */
pt_entry_t pmap_extract(struct pmap *, vm_offset_t va);
/*
 * What may be done to the page at va, PTE_R, PTE_W and PTE_X, as far as can be said without a lock: others may be changing
 * it at the moment.
 */
unsigned pmap_peek(const struct pmap *, vm_offset_t va);
/* As pmap_extract(); *parked: much of what is around it was forgotten at once, and has not come back. */
pt_entry_t pmap_look(struct pmap *, vm_offset_t va, bool *parked);
void pmap_change_wiring(struct pmap *, vm_offset_t va, bool wired);	/* => the pte is valid */

/*
 * Private views (pmap_view.c): of a whole leaf, whose frames, in a row from pfn on, stay as they are until
 * it ends.  Until then nothing is entered there, nothing removed, and nothing wired.
 */
void pmap_view_around(struct pmap *, vm_offset_t va, size_t leaves, size_t *before, size_t *after);
struct pmap_away {
	uint32_t page;		/* of the leaf */
	vm_pfn_t pfn;		/* the frame that has its bytes */
};
/*
 * `away', of one leaf: pages that are in other frames.  The view shows them from the start, as if they had been written.
 * false: not possible.  => none wired; nobody can write what is away
 */
bool pmap_view_open(struct pmap *, vm_offset_t va, vm_pfn_t pfn, size_t leaves, const struct pmap_away *away, uint32_t naway);
bool pmap_has_views(void);
/* A view of the leaf at va had to end for a page that was held.  For some time none is to be opened. */
void pmap_view_avoid(struct pmap *, vm_offset_t va);
bool pmap_view_avoided(struct pmap *, vm_offset_t va);
/* Is that so, or are more than a few pages of the leaf written without one? */
bool pmap_wants_own(struct pmap *, vm_offset_t va);
void pmap_view_close(struct pmap *, vm_offset_t va);		/* it can be read, not written */
/* The view at va, and those after it that are like it, so many leaves at most, lose the right to write. */
void pmap_view_still(struct pmap *, vm_offset_t va, size_t leaves);
unsigned pmap_view_rights(struct pmap *, vm_offset_t va);	/* PTE_R, PTE_W: the program's; 0: none, or no view */
/* Set a bit for each page that is not what its frame is.  => nobody can write */
void pmap_view_changed(vm_offset_t va, uint64_t changed[PMAP_LEAF_WORDS]);
void pmap_view_end(struct pmap *, vm_offset_t va, unsigned pte_prot);	/* show the frames; 0: nothing */

/* Is all of the leaf at va likely to be written between two snapshots?  A few times after each other it was (or was not). */
bool pmap_dense(struct pmap *, vm_offset_t va);
void pmap_dense_set(struct pmap *, vm_offset_t va, bool);

uint64_t pmap_mappings(void);			/* in use, all pmaps */
uint64_t pmap_mappings_max(void);
bool pmap_mappings_short(void);			/* near the budget: enter what takes few */
/* Count the mappings of a pmap anew, walking every pte: for audits. */
uint64_t pmap_count_runs(struct pmap *);
/* Does it take two mappings for neighbours of which these are the ptes? */
bool pte_boundary(pt_entry_t, pt_entry_t);
/* The first address from va on that can be written, but for private views, and its pte; 0: none. */
vm_offset_t pmap_next_write(struct pmap *, vm_offset_t va, pt_entry_t *pte);
/* The first address from va on whose pte is not 0, and that pte; 0: none. */
vm_offset_t pmap_next(struct pmap *, vm_offset_t va, pt_entry_t *pte);

#endif
