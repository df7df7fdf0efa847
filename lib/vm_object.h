/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_OBJECT_H
#define VM_OBJECT_H

/*
 * Memory objects: what is mapped.
 *
 *            copy
 *      +-----------+
 *      |           v			S has no page of its own at i: it is read
 *   +-----+ shadow +-----+		through to B.  B may be anything; if B is
 *   |  B  |<-------|  S  |		written, and B->copy is S, B's old page is
 *   +-----+        +-----+		PUSHED to S first (asymmetric copy).  If S is
 *					written, B's page is COPIED UP (symmetric).
 *
 * A SHADOW object holds what differs from the object below it, seen from above.  A
 * COPY object is a shadow whose backing object is still written: it must get
 * every page before that page changes.  An object has at most one copy; a newer
 * copy is put between the object and the older one:  O <- C2 <- C1.
 *
 * The copy covers pages [shadow_offset, shadow_offset + size) of the object; a newer
 * copy covers at least what an older one does, so a push goes to O->copy or
 * nowhere.
 *
 * Which lock guards a member: O the object's own, R the reverse map's (written
 * with it held for writing and, where both are named, O too: read under either), P
 * the pagers' (object cache), c constant after creation.
 *
 * LOCK ORDER among objects: down the chain, top first.  A copy object, being above, is
 * only tried while its backing object is held.
 */

#include "kern/avl.h"
#include <sys/queue.h>

#include "kern/lock.h"
#include "kern/radix.h"
#include "kern/types.h"
#include "physmem.h"
#include "vm_page.h"

struct pmap;
struct vm_pager;
struct vm_object;
struct vm_run;

/* An object as it is mapped somewhere: the reverse map's link, part of a map entry.  All: R. */
struct vm_mapping {
	LIST_ENTRY(vm_mapping) link;	/* in object->mappings, if object is not null */
	struct vm_object *object;
	struct pmap *pmap;
	vm_offset_t start, end;
	vm_pindex_t offset;		/* page of the object that is at start */
};

#define OBJ_DEAD	0x02	/* O: being terminated */
#define OBJ_CUT		0x04	/* O: part of a cut that is not complete: writers wait */
#define OBJ_FROZEN	0x20	/* O: being rolled back: who would see it waits */
#define OBJ_PIPWNT	0x08	/* O: somebody waits for paging_in_progress to be 0 */
#define OBJ_CACHED	0x10	/* O and P: unreferenced, in the object cache */
#define OBJ_GIVEN	0x80	/* O: may have pages that are PG_FREE */

/* What has been written since a rollback: vm_written.h.  All: O. */
struct vm_written {
	uint64_t snapshot;		/* its serial; 0: that is not known */
	struct vm_object *top;		/* what the snapshot has, not referenced: the snapshot lives */
	vm_pindex_t lo, hi;		/* the pages that are meant */
	vm_pindex_t first;		/* of the list */
	uint8_t rollbacks;		/* counts them, from 1 to 7 and round */
	bool stale;			/* pages are marked that no list has */
};

struct vm_object {
	struct kmutex lock;
	uint32_t ref_count;		/* O: mappings, shadows above, snapshots, faults under way */
	uint32_t paging_in_progress;	/* O: faults with a busy page here: no collapse, no end */
	uint32_t wired_pages;		/* O */
	uint16_t flags;			/* OBJ_* */
	bool internal;			/* c: anonymous: its pager, if any, is the default pager */
	bool owned;			/* c: made for an entry to write to, not to hold a copy */
	vm_pindex_t size;		/* c; in pages */
	struct radix pages;		/* O: pindex to vm_page */

	struct vm_object *shadow;	/* O, R: the object below, referenced */
	vm_pindex_t shadow_offset;	/* O, R: our page 0 is its page shadow_offset */
	struct vm_object *copy;		/* O: the copy above, not referenced; copy->shadow == this */
	LIST_HEAD(, vm_object) children; /* R: the objects that shadow this one */
	LIST_ENTRY(vm_object) sibling;	/* R */
	LIST_HEAD(, vm_mapping) mappings; /* R */

	struct vm_pager *pager;		/* O; c for external objects */
	vm_pindex_t paging_offset;	/* O: our page 0 is the pager's page paging_offset */

	struct physmem_home home;	/* O: frames reserved for us */
	int64_t home_first;		/* O: our page that belongs into its first frame */
	bool home_tried;		/* O */
	struct radix runs;		/* O: of a file: pindex >> 9 to the run for those pages */
	TAILQ_HEAD(vm_run_list, vm_run) run_list;	/* O: ditto, oldest first */
	TAILQ_ENTRY(vm_object) away_link;	/* in the list of vm_homecoming.c, if `away' */
	bool away;			/* O, to write with the list's lock as well: pages may be away from home */
	bool away_seen;			/* O: one was, since the last round began */
	vm_pindex_t away_hand;		/* O: where to go on looking for them */
	vm_pindex_t bypass_hint;	/* O: a page that stood in the way of the last bypass */

	struct vm_written written;	/* O */
	struct avl views;		/* O: private views of ours (vm_view.h), by their first page */
	uint32_t owed;			/* O: closed views, of an object below, whose frames hold what we show */

	struct vm_object *cut_next;	/* owned by the cut under way */
	bool cut_listed;		/* ditto: it is in the cut's list */
	struct vm_object *cut_from;	/* ditto: where the placeholders' pages are to be copied from ... */
	vm_pindex_t cut_offset;		/* ... and at what offset; chains may grow meanwhile */
	TAILQ_ENTRY(vm_object) cache;	/* P */
};

#define VM_WRITTEN_LAST	UINT32_MAX

#define VM_CHAIN_MAX	16	/* deeper pages are copied up even to be read */

struct vm_cut;

static inline void vm_object_lock(struct vm_object *o) { kmutex_lock(&o->lock); }
static inline void vm_object_unlock(struct vm_object *o) { kmutex_unlock(&o->lock); }
static inline bool vm_object_lock_try(struct vm_object *o) { return kmutex_trylock(&o->lock); }

void vm_object_init(void);
void vm_object_fini(void);
uint64_t vm_object_count(void);

/*
 * A new anonymous object of so many pages, with one reference. owned: an entry will write to it.
 * Null: no memory.
 */
struct vm_object *vm_object_allocate(vm_pindex_t npages, bool owned);
/*
 * Pages [lo, hi), which `map' showed, are being unmapped: free those that nobody can see any more.
 * => not locked; `map' still names the object, and no pmap maps the pages through it
 */
void vm_object_page_remove(struct vm_object *, const struct vm_mapping *map, vm_pindex_t lo,
    vm_pindex_t hi);
/* The object of a pager, new or found, with a reference more.  Null: no memory. */
struct vm_object *vm_object_for_pager(struct vm_pager *);
void vm_object_reference(struct vm_object *);	/* => not locked */
/* => no lock is held; may write pages out, and take a chain down with it, iteratively. */
void vm_object_deallocate(struct vm_object *);
/* The users' handle of the pager is gone: drop its object from the cache. */
void vm_object_uncache(struct vm_pager *);

/*
 * Put a new shadow over what a mapping shows, and let it show that, from page 0 on.  The mapping's
 * reference becomes the shadow's.  false: no memory.
 */
bool vm_object_shadow(struct vm_mapping *);

/*
 * Asymmetric copy of pages [lo, hi): *copy, referenced, holds the contents of
 * now, for ever; page p of the object is page p - *copy_lo of it.  Nobody can write to those
 * pages without a fault when this returns, but for wired ones.  These are copied at once, or,
 * in a cut, by vm_cut_collect().  In a cut writers of the object wait until vm_cut_thaw().
 * => KERN_RESOURCE_SHORTAGE: nothing has changed.  No object is locked.
 */
enum kern_return vm_object_copy(struct vm_object *, vm_pindex_t lo, vm_pindex_t hi, struct vm_cut *,
    struct vm_object **copy, vm_pindex_t *copy_lo);

/*
 * A cut: copies of several objects at one instant.  Writers of the objects wait from their own copy until
 * vm_cut_thaw(), so nobody can write to one object what it learnt after another was copied.  One cut
 * happens at a time: who begins one waits, holding no lock, until the last one has ended.
 */
struct vm_cut {
	struct vm_object *objects;	/* those that are frozen or cut; referenced */
	struct vm_object *copies;	/* copies whose wired pages are still to be filled; referenced */
};
void vm_cut_begin(struct vm_cut *);
void vm_cut_add(struct vm_cut *, struct vm_object *);	/* null: nothing.  => not locked */
/*
 * Copy the wired pages of all objects of the cut.  They stay writable, so this comes last: when nothing
 * else can change, a second look that finds them as they were copied proves that all of
 * them were so at one instant.
 * => the maps are still locked
 */
void vm_cut_collect(struct vm_cut *);
void vm_cut_thaw(struct vm_cut *);	/* let the objects' writers go on.  => no lock held */
void vm_cut_end(struct vm_cut *);	/* let the next cut begin */

/* Give the memory of an object back.  => empty, unlinked, nobody can find it. */
void vm_object_free(struct vm_object *);

/* Merge with, or bypass, what is below as far as possible.  => locked, and so at the end. */
void vm_object_collapse(struct vm_object *);

void vm_object_pip_add(struct vm_object *);	/* => locked */
void vm_object_pip_done(struct vm_object *);	/* => locked */

/*
 * Homes (vm_home.c).  Where page pindex would best live; 0: anywhere.  => locked
 */
vm_pfn_t vm_object_home_frame(struct vm_object *, vm_pindex_t);
/* The run of frames that page pindex has its place in, and the object's page at its start.  => locked */
bool vm_object_home(struct vm_object *, vm_pindex_t pindex, struct physmem_home *, int64_t *first);
void vm_object_home_release(struct vm_object *);	/* => empty, going */
/* Coming home (vm_homecoming.c).  The object has pages that are away from home.  => locked */
void vm_object_strays(struct vm_object *);
void vm_object_strays_end(struct vm_object *);		/* it has none, or is going.  => locked, or nobody finds it */
void vm_homecoming_init(void);
int vm_homecoming_start(void);				/* the thread; 0 or -errno */
void vm_homecoming_stop(void);
void vm_homecoming_hold(bool);				/* have nobody moved, or go on */
void vm_homecoming_thawed(void);			/* no child sees our frames any more */
/* Is nobody going to move, unless there is a thaw, or mappings run short?  => not held, and not about to be */
bool vm_homecoming_rest(void);
void vm_homecoming_forked(void);			/* in a child */
#ifdef VMF_TESTING
uint32_t vm_homecoming_step(void);			/* bring a few home; how many.  => no object locked */
#endif
void vm_home_init(void);
void vm_home_fini(void);
/*
 * Are pages [lo, hi) seen through one mapping only, and is there nothing below or above them? If
 * that one may be written they are nobody else's.  => locked
 */
bool vm_object_is_sole(struct vm_object *, vm_pindex_t lo, vm_pindex_t hi);
/* It is going to be copied: what was given up (PG_FREE) and is still there stays.  => locked */
void vm_object_keep_given(struct vm_object *);
/* Does the object's pager have the page?  => locked; only for queryable pagers, else false. */
bool vm_object_paged_out(struct vm_object *, vm_pindex_t);

/*
 * The reverse map.  vm_rmap_lock guards which object is mapped where and
 * which object shadows which.
 */
extern struct krwlock vm_rmap_lock;		/* RANK_RMAP */

void vm_mapping_set(struct vm_mapping *, struct vm_object *, vm_pindex_t offset);	/* null: unlink */
void vm_mapping_resize(struct vm_mapping *, vm_offset_t start, vm_offset_t end, vm_pindex_t offset);

/* Keep at most prot for pages [lo, hi) in every mapping of the object itself.  => locked */
void vm_object_protect(struct vm_object *, vm_pindex_t lo, vm_pindex_t hi, vm_prot_t prot,
    unsigned pmap_flags);
/*
 * Unmap the pages [lo, hi), all of which the object has, and none of them wired, wherever they are
 * mapped. => locked
 */
void vm_object_unmap(struct vm_object *, vm_pindex_t lo, vm_pindex_t hi);
/*
 * Unmap pages [lo, hi), none of them being wired, and leave no trace of them in the pmaps.  => locked
 * => false: others shadow the object; nothing was done
 */
bool vm_object_forget(struct vm_object *, vm_pindex_t lo, vm_pindex_t hi);
/*
 * Is it mapped, or shadowed?  => locked: if not, nobody sees a page through it until it is unlocked, for who would
 * has to lock it
 */
bool vm_object_is_seen(struct vm_object *);
/* Keep at most prot in every mapping of the page, through whatever chain.  => its object locked */
void vm_object_page_protect(struct vm_page *, vm_prot_t prot);
/*
 * The bytes of page m are now in frame `to' as well, which is going to be its frame: nobody maps the old one any more.
 * => locked
 */
void vm_object_page_move(struct vm_page *m, vm_pfn_t to);
/*
 * `top' has, or is about to have, a page of its own at pindex that differs from m
 * further down: unmap m from all that is mapped through top.  Where it is wired there,
 * `with' is entered in its place, and takes over the wirings.
 * => m's object and top are locked.  with: in top, busy, filled.
 */
void vm_object_shoot(struct vm_object *top, vm_pindex_t pindex, struct vm_page *m,
    struct vm_page *with);
bool vm_object_page_mapped(struct vm_page *);	/* for assertions.  => its object locked */

#endif
