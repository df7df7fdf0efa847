/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The list of what was written: vm_written.h says what it claims.
 *
 * It is linked by page numbers through the pages themselves, so that the fault handler can lengthen it
 * without memory, and takes one direction only: who is struck is struck on the way along it.
 */

#include "kern/assert.h"
#include "pmap.h"
#include "vm_written.h"

#define HULL_SHARE	16u	/* if no fewer pages of a range are struck, one call for all of it is less */

void
vm_written_link(struct vm_page *m)
{
	struct vm_written *w = &m->object->written;

	KASSERT(kmutex_held(&m->object->lock));
	KASSERT(!(m->flags & (PG_WRITTEN | PG_HOT)));
	m->flags |= PG_WRITTEN;
	m->written_next = w->first;
	w->first = m->pindex;
}

void
vm_written_lost(struct vm_page *m)
{
	struct vm_written *w = &m->object->written;

	KASSERT(kmutex_held(&m->object->lock));
	m->flags &= (uint16_t)~(PG_WRITTEN | PG_HOT);
	w->snapshot = 0;
	w->stale = true;
}

struct vm_page *
vm_written_next(struct vm_object *o, const struct vm_page *m)
{
	vm_pindex_t i = m != NULL ? m->written_next : o->written.first;

	KASSERT(o->written.snapshot != 0);
	if (i == VM_WRITTEN_LAST)
		return NULL;
	return vm_page_lookup(o, i);
}

void
vm_written_end(struct vm_object *o)
{
	struct vm_written *w = &o->written;
	struct vm_page *m;

	KASSERT(kmutex_held(&o->lock));
	if (w->snapshot != 0)
		while ((m = vm_written_next(o, NULL)) != NULL) {
			w->first = m->written_next;
			m->flags &= (uint16_t)~(PG_WRITTEN | PG_HOT);
		}
	for (vm_pindex_t i = 0; w->stale && (m = radix_next(&o->pages, &i)) != NULL; i++)
		m->flags &= (uint16_t)~(PG_WRITTEN | PG_HOT);
	*w = (struct vm_written){ .first = VM_WRITTEN_LAST, .rollbacks = w->rollbacks };
}

/* List the pages of o in [lo, hi) that an object from top down has.  false: one is not resident. */
static bool
list_copied(struct vm_object *o, struct vm_object *top, vm_pindex_t shift, vm_pindex_t lo, vm_pindex_t hi)
{
	for (struct vm_object *c = top; c != o && lo < hi; shift -= c->shadow_offset, c = c->shadow) {
		vm_pindex_t i = lo - MIN(lo, shift);

		/* What it has paged out would have to be asked for, page by page. */
		if (c->pager != NULL)
			return false;
		for (; radix_next(&c->pages, &i) != NULL && i + shift < hi; i++) {
			struct vm_page *m = vm_page_lookup(o, i + shift);

			if (m == NULL)
				return false;
			vm_written_add(m);
		}
	}
	return true;
}

bool
vm_written_begin(struct vm_object *o, struct vm_object *top, vm_pindex_t shift, uint64_t snapshot,
    vm_pindex_t lo, vm_pindex_t hi, bool equal)
{
	struct vm_written *w = &o->written;
	vm_pindex_t list_lo = lo, list_hi = equal ? lo : hi;

	if (w->snapshot != snapshot) {
		vm_written_end(o);
		*w = (struct vm_written){ .snapshot = snapshot, .top = top, .lo = lo, .hi = hi,
		    .first = VM_WRITTEN_LAST, .rollbacks = w->rollbacks };
	} else {
		/* What lies between the old range and the new becomes part of it, and is listed as well. */
		if (lo > w->hi) {
			list_lo = w->hi;
			list_hi = MAX(list_hi, lo);
		} else if (hi < w->lo) {
			list_lo = equal ? hi : lo;
			list_hi = w->lo;
		}
		w->lo = MIN(w->lo, lo);
		w->hi = MAX(w->hi, hi);
	}
	if (list_copied(o, top, shift, list_lo, list_hi))
		return true;
	vm_written_end(o);
	return false;
}

/* Pages next to each other, going up or down. */
struct run {
	vm_pindex_t lo, hi;		/* none: alike */
};

static void
protect(struct vm_object *o, struct run *r, unsigned pmap_flags)
{
	if (r->lo != r->hi)
		vm_object_protect(o, r->lo, r->hi, VM_PROT_READ | VM_PROT_EXECUTE, PMAP_KEEP_WIRED | pmap_flags);
	*r = (struct run){ 0, 0 };
}

static void
protect_later(struct vm_object *o, struct run *r, vm_pindex_t i)
{
	if (r->lo != r->hi && i == r->hi) {
		r->hi++;
	} else if (r->lo != r->hi && i + 1 == r->lo) {
		r->lo--;
	} else {
		protect(o, r, 0);
		*r = (struct run){ i, i + 1 };
	}
}

void
vm_written_settle(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	vm_pindex_t *link = &o->written.first;
	struct run run = { 0, 0 }, hull = { hi, lo };
	uint32_t hot = 0, cold = 0;
	struct vm_page *m;
	bool whole;

	KASSERT(kmutex_held(&o->lock));
	for (m = vm_written_next(o, NULL); m != NULL; m = vm_written_next(o, m)) {
		if (m->pindex < lo || m->pindex >= hi)
			continue;
		hot += (m->flags & PG_HOT) != 0;
		cold += !(m->flags & PG_HOT);
		if (!(m->flags & PG_HOT))
			hull = (struct run){ MIN(hull.lo, m->pindex), MAX(hull.hi, m->pindex + 1) };
	}
	/* Where none stays writable the pmap knows best how to take so many from all. */
	whole = hot == 0 && cold != 0 && (hull.hi - hull.lo) / HULL_SHARE <= cold;
	while (cold != 0 && *link != VM_WRITTEN_LAST) {
		m = vm_page_lookup(o, *link);
		if (m->pindex < lo || m->pindex >= hi || (m->flags & PG_HOT)) {
			link = &m->written_next;
			continue;
		}
		*link = m->written_next;
		m->flags &= (uint16_t)~PG_WRITTEN;
		if (!whole)
			protect_later(o, &run, m->pindex);
	}
	if (whole)
		run = hull;
	/* Once for all of them. */
	protect(o, &run, PMAP_CUT);
}
