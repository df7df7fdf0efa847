/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_VIEW_IMPL_H
#define VM_VIEW_IMPL_H

/*
 * What the files of the private views share.
 *
 *	vm_view.c	opening; what others may do meanwhile
 *	vm_view_home.c	bringing home, letting go
 *	vm_view_keep.c	the thread that looks after them
 */

#include <pthread.h>
#include <stdatomic.h>

#include "kern/hold.h"
#include "kern/lock.h"
#include "kern/slab.h"
#include "pmap.h"
#include "vm_view.h"

#define LEAF_SIZE	((vm_size_t)PMAP_LEAF_PAGES << PAGE_SHIFT)
#define GROUP_MOST	16u		/* leaves that become views together; a power of two */
#define DENSE_PAGES	(PMAP_LEAF_PAGES / 5 + PMAP_LEAF_PAGES % 5)	/* changed: the rest will follow */

/* Of all objects together. */
struct vm_views {
	struct kmutex lock;		/* RANK_VIEW, V; guards what follows */
	TAILQ_HEAD(, vm_view) all;	/* those that were looked at last at the end */
	_Atomic uint32_t n;		/* a look without the lock is a hint */
	struct slab slab;
	_Atomic uint64_t opened;	/* when one was, last */
	pthread_t thread;
	_Atomic bool stop;
	char work;			/* its address: what the keeper waits on */
	_Atomic bool running;		/* there is that thread */
	struct hold hold;
};

extern struct vm_views vv;

static inline bool
vv_is_set(const uint64_t *map, uint32_t k)
{
	return map[k / 64] >> (k % 64) & 1;
}

static inline vm_pindex_t
vv_first(const struct vm_view *v)
{
	return (vm_pindex_t)v->node.key;
}

/* It is in no view: is it in memory, at rest but for `ours', and only for those who map it?  => locked */
static inline bool
vv_may_view(const struct vm_page *m, const struct vm_page *ours)
{
	return m->wire_count == 0 && !(m->flags & (PG_FAKE | PG_LAUNDRY | PG_FREE)) &&
	    (!(m->flags & PG_BUSY) || m == ours) && !physmem_is_common(m->pfn);
}

/* Pages of a leaf that are not in the row of the others, and where that begins. */
#define MEND_MOST	64u
struct vm_view_mend {
	vm_pfn_t base;
	uint32_t n;
	struct pmap_away away[MEND_MOST];
};
/*
 * vm_view_mend.c: find them in the leaf from page lo on, and take their places in the row for them again.  false: there are
 * too many, or somebody has such a place.  At the end, if a view was opened, they are there; else all is as it was.
 * => locked
 */
bool vv_mend(struct vm_object *, vm_pindex_t lo, const struct vm_page *ours, struct vm_view_mend *);
void vv_mend_end(struct vm_object *, vm_pindex_t lo, const struct vm_view_mend *, bool opened);

uint32_t vv_count(const uint64_t map[PMAP_LEAF_WORDS]);		/* bits that are set */
/* The first view that has pages of [lo, hi), or null.  => locked */
struct vm_view *vv_in(struct vm_object *, vm_pindex_t lo, vm_pindex_t hi);
void vv_unlink(struct vm_view *);		/* it is over.  => locked */
/* The frames are what c shows, and not o: c must stay above o until the view is home.  => locked, c, too */
void vv_owe(struct vm_view *, struct vm_object *c);
bool vv_is_frozen(const struct vm_view *);	/* a forked child sees some of its frames.  => locked */

/* => locked, not busy.  At return busy by us and closed; or not locked, and to be tried again. */
bool vv_take(struct vm_view *);
/* => busy by us; locked, unlocked at return */
enum kern_return vv_bring_home(struct vm_view *);
void vv_wait(struct vm_view *);			/* until somebody is done with it.  => locked, not at return */

#endif
