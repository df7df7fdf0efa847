/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_VIEW_H
#define VM_VIEW_H

/*
 * Private views of a copied object: see vm_view.c.
 *
 * While a page is viewed its frame holds what the object's copies see, and the kernel what the
 * object's own mapping sees.  Whoever wants the object's page brings it home first.  The object's
 * views say which are viewed, and not the pages: after a fork() the first who writes to a page of ours waits for the
 * kernel to copy it, and a leaf's pages fill eight.
 */

#include "kern/types.h"
#include "vm_object.h"

struct faultstate;
struct vm_map;

struct vm_view {
	struct avl_node node;		/* O: in the object's; key: its first page */
	TAILQ_ENTRY(vm_view) link;	/* V: in the list of all */
	struct vm_object *object;	/* constant */
	struct pmap *pmap;		/* constant; the only mapping, and where in it */
	vm_offset_t va;
	struct vm_object *copy;		/* O: closed: who needs what the frames hold; referenced, or null */
	const struct vm_object *served;	/* O: the copy that has all pages of the leaf; or null.  For comparison only */
	bool closed;			/* O: nobody writes any more; younger copies want what the kernel has */
	bool busy;			/* O: somebody is at it: wait */
	bool populated;			/* O: who opened it had all of it copied: no sign that all was written */
	uint32_t nchanged;		/* O: pages that had been written when the keeper looked last */
};

void vm_view_init(void);
void vm_view_fini(void);		/* => there are none */
int vm_view_start(void);		/* its thread; 0 or -errno */
void vm_view_stop(void);

/*
 * Are n leaves of the pmap from va on of one entry that nobody else shows, and the copy c (null: nobody) the only one that
 * sees first_object?  => both objects and the map locked
 */
bool vm_view_is_eligible(const struct faultstate *, const struct vm_object *c, vm_offset_t va, size_t n);
/*
 * Are n pages from lo on in memory, at rest, `ours' excepted, and their frames in a row?  The first frame, or 0.
 * => locked
 */
vm_pfn_t vm_view_row(struct vm_object *, vm_pindex_t lo, uint32_t n, const struct vm_page *ours);
/*
 * The fault is about to push a page of first_object to c, or to copy it because its frame is frozen (then c may be null):
 * let the kernel copy it, and all others of its leaf, instead.
 * false: nothing has changed.  => both locked, fs->m busy, the map locked
 */
bool vm_view_open(struct faultstate *, struct vm_object *c);
bool vm_page_in_view(const struct vm_page *);
static inline bool
vm_page_is_viewed(const struct vm_page *m)	/* => locked */
{
	return m->object->views.root != NULL && vm_page_in_view(m);
}
/* May page m be read as what it was when the view began?  => locked; viewed; `below': by a copy */
bool vm_view_may_read(const struct vm_page *, bool below);
/* Does its mapping have these rights already?  => as before */
bool vm_view_serves(const struct vm_page *, vm_prot_t);
/*
 * End the views of pages [lo, hi): what was written comes home.
 * => the object is referenced.  No object locked.
 * => KERN_RESOURCE_SHORTAGE: some stay, nothing is lost.
 */
enum kern_return vm_view_home(struct vm_object *, vm_pindex_t lo, vm_pindex_t hi);
/* Likewise of all that is viewed in [s, e) of a map.  => the map locked, no object */
enum kern_return vm_view_settle(struct vm_map *, vm_offset_t s, vm_offset_t e);
/*
 * [s, e) is going to be unmapped: bring home what others will need (and nothing is lost if that fails), ...
 * => write-locked
 */
enum kern_return vm_view_keep(struct vm_map *, vm_offset_t s, vm_offset_t e);
/* ... and, when nothing can fail any more, let go of the rest. */
void vm_view_drop(struct vm_map *, vm_offset_t s, vm_offset_t e);
/* May its copy c show other bytes in [lo, hi) than the object, although it has no pages?  => locked */
bool vm_view_differs(struct vm_object *, const struct vm_object *c, vm_pindex_t lo, vm_pindex_t hi);
/*
 * A new copy of pages [lo, hi) has been put above the object; `old' was there before, or nothing was.  => all locked;
 * the object's mappings are about to lose the right to write
 */
void vm_view_cut(struct vm_object *, vm_pindex_t lo, vm_pindex_t hi, struct vm_object *old);
/*
 * The object's copy has gone: who writes to a view makes the kernel copy for nobody.  So let nobody; the first one to
 * come brings the leaf home, and finds it writable.  => referenced, not locked
 */
void vm_view_still(struct vm_object *);
/* Memory is short: bring some home.  false: there is nothing.  => nothing locked */
bool vm_view_reclaim(void);
bool vm_view_any(void);			/* is there one?  A moment's truth */
void vm_view_hold(void);		/* have the keeper stand still: no view is busy by it */
void vm_view_go_on(void);
void vm_view_thawed(void);		/* frames are frozen no longer: what was left alone can come home */
#ifdef VMF_TESTING
void vm_view_step(void);		/* do what it would with the next view.  => it stands still */
#endif
void vm_view_forked(void);		/* in a child */

#endif
