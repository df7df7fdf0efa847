/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Keeping chains short: collapse and bypass.
 *
 *	MERGE: we are all that uses the object below.
 *
 *		us -> backing -> S	becomes		us + backing -> S
 *
 *	Its pages become ours where we have none; the rest is freed.  What it had
 *	paged out becomes ours with its pager, or page by page if we have one too.
 *
 *	BYPASS: others use it as well, but we see none of its pages.
 *
 *		us -> backing -> S	becomes		us -> S <- backing
 *
 * What makes it right:
 *   - No fault is under way in either (paging_in_progress): a placeholder of a
 *     fault's in us would look like a page of ours and hide the one below.
 *   - If backing is the copy of S, S is still being written, and what is pushed must
 *     go on reaching us.  After a merge we take backing's place as S's copy.  A
 *     bypass would cut us off from the pushes, so there is none.
 *   - If a closed view owes pages to backing (vm_view.c), it will have them and does not show it
 *     yet.  There is no bypass until it has.
 *   - If we were backing's copy and now do without it, it need not push to us.
 *   - Pages keep their frames, so no mapping changes.  A page that is freed was
 *     hidden by ours and has been unmapped from all above us when ours came.
 */

#include "kern/assert.h"
#include "vm_meter.h"
#include "vm_object.h"
#include "vm_pager.h"
#include "vm_written.h"

/* Does o have the page itself, in memory or in its pager? */
static bool
has_own(struct vm_object *o, vm_pindex_t i)
{
	return vm_page_lookup(o, i) != NULL || vm_object_paged_out(o, i);
}

/* Where page i of backing is in us.  false: outside. */
static bool
seen_at(const struct vm_object *us, vm_pindex_t i, vm_pindex_t *at)
{
	*at = i - us->shadow_offset;
	return i >= us->shadow_offset && *at < us->size;
}

/* Link `us' under S instead of under what it shadows now.  => all locked */
static void
relink(struct vm_object *us, struct vm_object *s, vm_pindex_t by)
{
	krwlock_write(&vm_rmap_lock);
	LIST_REMOVE(us, sibling);
	us->shadow = s;
	us->shadow_offset += by;
	if (s != NULL)
		LIST_INSERT_HEAD(&s->children, us, sibling);
	krwlock_write_unlock(&vm_rmap_lock);
}

/* Make what backing has paged out ours.  false: not all of it; what was moved is right. */
static bool
merge_pagers(struct vm_object *us, struct vm_object *backing)
{
	struct vm_pager *theirs = backing->pager;
	vm_pindex_t i, at;

	if (theirs == NULL)
		return true;
	if (us->pager == NULL) {
		us->pager = theirs;
		us->paging_offset = backing->paging_offset + us->shadow_offset;
		backing->pager = NULL;
		for (i = 0; radix_next(&us->pages, &i) != NULL; i++)
			vm_pager_dispose(theirs, (uint64_t)i + us->paging_offset, 1);
		/* What lies outside of us is nobody's any more. */
		vm_pager_dispose(theirs, 0, us->paging_offset);
		i = us->shadow_offset + us->size;
		if (i < backing->size)
			vm_pager_dispose(theirs, (uint64_t)i + backing->paging_offset, backing->size - i);
		return true;
	}
	if (us->pager->ops != theirs->ops || !theirs->ops->queryable || theirs->ops->move == NULL)
		return false;
	for (i = 0; i < backing->size; i++) {
		if (!vm_object_paged_out(backing, i))
			continue;
		if (seen_at(us, i, &at) && !has_own(us, at) &&
		    !theirs->ops->move(us->pager, (uint64_t)at + us->paging_offset, theirs,
		    (uint64_t)i + backing->paging_offset))
			return false;
	}
	return true;
}

/* Make backing's resident pages ours, or free them.  false: no memory; what was moved is right. */
static bool
merge_pages(struct vm_object *us, struct vm_object *backing, uint32_t *moved)
{
	vm_pindex_t i = 0, at;
	struct vm_page *p;

	for (; (p = radix_next(&backing->pages, &i)) != NULL; i++) {
		KASSERT(!(p->flags & PG_FAKE));
		if (!seen_at(us, i, &at) || has_own(us, at)) {
			vm_page_free(p);
			continue;
		}
		if (!vm_page_rename(p, us, at))
			return false;
		p->flags |= PG_MODIFIED;	/* our pager has not got it */
		++*moved;
	}
	return true;
}

/*
 * => both locked, and backing is ours alone.
 * => true: backing is gone.
 */
static bool
merge(struct vm_object *us, struct vm_object *backing)
{
	struct vm_object *s = backing->shadow;
	uint32_t moved = 0, before = us->pages.count;
	struct vm_pager *old_pager;

	/* What our pager has must hide what backing has: it must tell. */
	if (us->pager != NULL && !us->pager->ops->queryable)
		return false;
	if (s != NULL)
		vm_object_lock(s);
	/* Resident pages first: has_own() must not take backing's paged-out pages for ours. */
	if (!merge_pages(us, backing, &moved) || !merge_pagers(us, backing)) {
		if (s != NULL)
			vm_object_unlock(s);
		return false;
	}
	relink(us, s, backing->shadow_offset);
	if (s != NULL) {
		krwlock_write(&vm_rmap_lock);
		LIST_REMOVE(backing, sibling);
		krwlock_write_unlock(&vm_rmap_lock);
		if (s->copy == backing)
			s->copy = us;
		vm_object_unlock(s);
	}
	if (backing->home.npages != 0 && moved > before) {
		/* Most pages are at home in its home. */
		physmem_unreserve(&us->home);
		us->home = backing->home;
		us->home_first = backing->home_first -
		    ((int64_t)us->shadow_offset - backing->shadow_offset);
		us->home_tried = true;
	} else {
		physmem_unreserve(&backing->home);
	}
	/* The others' pages keep their frames, too, and one of the two is away. */
	if (moved != 0 && us->pages.count != 0)
		vm_object_strays(us);
	vm_object_strays_end(backing);
	old_pager = backing->pager;
	vm_object_unlock(backing);
	if (old_pager != NULL)
		handle_put(&old_pager->handle);
	vm_object_free(backing);
	vm_count(v_collapses);
	return true;
}

/* => both locked.  true: us no longer shadows backing, which is unlocked. */
static bool
bypass(struct vm_object *us, struct vm_object *backing)
{
	struct vm_object *s = backing->shadow;
	vm_pindex_t i, at;

	/* What we see through it may be still to come. */
	if (backing->owed != 0)
		return false;
	/* The page that stood in the way last time probably still does. */
	if (us->bypass_hint >= us->shadow_offset && us->bypass_hint < backing->size &&
	    radix_lookup(&backing->pages, us->bypass_hint) != NULL &&
	    seen_at(us, us->bypass_hint, &at) && !has_own(us, at))
		return false;
	for (i = us->shadow_offset; radix_next(&backing->pages, &i) != NULL &&
	    seen_at(us, i, &at); i++)
		if (!has_own(us, at)) {
			us->bypass_hint = i;
			return false;
		}
	if (backing->pager != NULL) {
		if (!backing->pager->ops->queryable)
			return false;
		for (at = 0; at < us->size && at + us->shadow_offset < backing->size; at++)
			if (vm_object_paged_out(backing, at + us->shadow_offset) && !has_own(us, at))
				return false;
	}
	if (s != NULL) {
		vm_object_lock(s);
		if (s->copy == backing) {
			vm_object_unlock(s);
			return false;
		}
		s->ref_count++;
	}
	relink(us, s, backing->shadow_offset);
	if (s != NULL)
		vm_object_unlock(s);
	if (backing->copy == us) {
		/* Nor do we follow any more what is written to it. */
		backing->copy = NULL;
		vm_written_end(backing);
	}
	backing->ref_count--;
	KASSERT(backing->ref_count > 0);
	vm_object_unlock(backing);
	us->bypass_hint = 0;
	vm_count(v_bypasses);
	return true;
}

void
vm_object_collapse(struct vm_object *us)
{
	struct vm_object *backing;

	KASSERT(kmutex_held(&us->lock));
	while ((backing = us->shadow) != NULL && us->paging_in_progress == 0) {
		bool done;

		vm_object_lock(backing);
		done = backing->internal && !(backing->flags & OBJ_DEAD) &&
		    backing->paging_in_progress == 0 &&
		    (backing->ref_count == 1 ? merge(us, backing) : bypass(us, backing));
		if (!done) {
			vm_object_unlock(backing);
			return;
		}
	}
}
