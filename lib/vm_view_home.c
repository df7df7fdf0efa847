/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Bringing home what was written to private views.
 *
 * Of each page that the kernel has copied: the copy gets what the frame holds, unless it has the page; then
 * the frame gets what the mapping shows.  After that the mapping is a shared one again.  The order makes it safe to
 * give up on the way, and to begin again.
 *
 * Meanwhile the view is busy: whoever wants its pages waits.  No lock is held while bytes are moved into frames, for
 * they are read from managed memory.
 */

#include <errno.h>

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/probe.h"
#include "kern/sys.h"
#include "physmem.h"
#include "vm_fault.h"
#include "vm_fault_state.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_pager.h"
#include "vm_view_impl.h"
#include "vm_written.h"

#define BATCH		64u		/* pages at a time */
#define TRIES		100u		/* to copy into frames, in all ... */
#define AGAIN_NS	((int64_t)1000 * 1000)	/* ... with so much time between two of them */

void
vv_owe(struct vm_view *v, struct vm_object *c)
{
	c->ref_count++;
	c->owed++;
	v->copy = c;
}

/* => nothing locked */
static void
quit(struct vm_object *c)
{
	vm_object_lock(c);
	c->owed--;
	vm_object_unlock(c);
	vm_object_deallocate(c);
}

#define NOT_ABOVE	((vm_pindex_t)-1)

/* Which page of o is page 0 of c?  NOT_ABOVE: c does not see o any more.  => both locked */
static vm_pindex_t
distance(const struct vm_object *c, const struct vm_object *o)
{
	vm_pindex_t n = 0;

	krwlock_read(&vm_rmap_lock);
	for (; c != NULL && c != o; c = c->shadow)
		n += c->shadow_offset;
	krwlock_read_unlock(&vm_rmap_lock);
	return c != NULL ? n : NOT_ABOVE;
}

/*
 * Give the copy page i of the object, as its frame has it, unless it has one.
 * *wait: null, or the page to wait for before it is tried again, with that ticket.
 * => both locked
 */
static enum kern_return
push(struct vm_view *v, vm_pindex_t i, struct vm_page **wait, uint32_t *ticket)
{
	struct vm_object *c = v->copy;
	vm_pindex_t shift = distance(c, v->object);
	struct vm_page *m = vm_page_lookup(v->object, i), *theirs;

	*wait = NULL;
	if (shift == NOT_ABOVE || i < shift || i - shift >= c->size)
		return KERN_SUCCESS;
	theirs = vm_page_lookup(c, i - shift);
	if ((m->flags & PG_BUSY) || (theirs != NULL && (theirs->flags & PG_BUSY))) {
		*wait = m->flags & PG_BUSY ? m : theirs;
		*ticket = event_prepare(*wait);
		(*wait)->flags |= PG_WANTED;
		return KERN_SUCCESS;
	}
	if (theirs != NULL || vm_object_paged_out(c, i - shift))
		return KERN_SUCCESS;
	if (c->pager != NULL && !c->pager->ops->queryable)
		return KERN_RESOURCE_SHORTAGE;	/* such a pager came since; they are for tests */
	return vm_fault_push_to(c, i - shift, m, PHYSMEM_LENT) ? KERN_SUCCESS : KERN_RESOURCE_SHORTAGE;
}

/* => busy by us, closed; nothing locked */
static enum kern_return
push_all(struct vm_view *v, const uint64_t *changed)
{
	enum kern_return result = KERN_SUCCESS;

	for (uint32_t k = 0; v->copy != NULL && k < PMAP_LEAF_PAGES && result == KERN_SUCCESS;) {
		struct vm_page *wait = NULL;
		uint32_t ticket = 0;

		vm_object_lock(v->copy);
		vm_object_lock(v->object);
		for (uint32_t n = 0; n < BATCH && k < PMAP_LEAF_PAGES && result == KERN_SUCCESS; n++) {
			if (vv_is_set(changed, k))
				result = push(v, vv_first(v) + k, &wait, &ticket);
			if (wait != NULL)
				break;
			k++;
		}
		vm_object_unlock(v->object);
		vm_object_unlock(v->copy);
		PROBE("vm_view: between pushes");
		if (wait != NULL)
			(void)event_wait(wait, ticket, EVENT_FOREVER);
	}
	return result;
}

/* The frames get what the mapping shows.  => nobody else looks at these; readable */
static enum kern_return
bring(const struct vm_view *v, vm_pfn_t pfn, const uint64_t *changed, const vm_pfn_t *other)
{
	uint32_t k = 0, n = 0, tries = 0;

	for (; k < PMAP_LEAF_PAGES; k += n) {
		const void *from = (const void *)(v->va + ((vm_offset_t)k << PAGE_SHIFT));
		vm_pfn_t to = other[k] != 0 ? other[k] : pfn + k;
		int error;

		for (n = 1; k + n < PMAP_LEAF_PAGES && vv_is_set(changed, k + n) == vv_is_set(changed, k) &&
		    (other[k + n] != 0 ? other[k + n] : pfn + k + n) == to + n; n++)
			;
		if (!vv_is_set(changed, k))
			continue;
		while ((error = physmem_write(to, from, n)) != 0) {
			uint32_t ticket = event_prepare(v);

			if (tries++ == TRIES)
				return KERN_RESOURCE_SHORTAGE;
			/* Somebody took the right to read as well (vm_map_cold()). */
			if (error == -EFAULT)
				pmap_view_close(v->pmap, v->va);
			else
				(void)event_wait(v, ticket, AGAIN_NS);
		}
		vm_count_n(v_views_home, n);
	}
	return KERN_SUCCESS;
}

/*
 * What was written cannot go to frames that are frozen: others for them.  other[]: all 0, where the own one will do.
 * false: there are not enough; some may have been taken.  => nothing locked
 */
static bool
take_others(vm_pfn_t pfn, const uint64_t *changed, vm_pfn_t *other)
{
	for (uint32_t k = 0; k < PMAP_LEAF_PAGES; k++)
		if (vv_is_set(changed, k) && physmem_is_frozen(pfn + k) &&
		    (other[k] = physmem_alloc(0, PHYSMEM_LENT)) == 0)
			return false;
	return true;
}

static void
give_others(const vm_pfn_t *other)
{
	for (uint32_t k = 0; k < PMAP_LEAF_PAGES; k++)
		if (other[k] != 0)
			physmem_free(other[k]);
}

/* Pages move to these frames.  Nobody maps the old ones but the view, which is about to end.  => locked.  Whether any did */
static bool
move_to_others(const struct vm_view *v, const vm_pfn_t *other)
{
	struct vm_object *o = v->object;
	bool any = false;

	for (uint32_t k = 0; k < PMAP_LEAF_PAGES; k++)
		if (other[k] != 0) {
			struct vm_page *m = vm_page_lookup(o, vv_first(v) + k);
			vm_pfn_t old = m->pfn;

			m->pfn = other[k];
			physmem_free(old);
			any = true;
		}
	if (any)
		vm_object_strays(o);
	return any;
}

bool
vv_take(struct vm_view *v)
{
	struct vm_object *o = v->object, *c = o->copy;

	if (!v->closed && c != NULL) {
		if (!vm_object_lock_try(c)) {
			vm_object_unlock(o);
			PROBE("vm_view: copy busy");
			sys_yield();
			return false;
		}
		if (c->ref_count > 0)
			vv_owe(v, c);
		vm_object_unlock(c);
	}
	v->closed = v->busy = true;
	vm_object_pip_add(o);
	return true;
}

/* What its mapping may do once it is home: write, unless somebody has to be told.  => locked */
static unsigned
rights_at_home(const struct vm_view *v)
{
	const struct vm_object *o = v->object;
	bool told = (o->copy != NULL && o->copy != v->served) || o->written.snapshot != 0 || (o->flags & (OBJ_CUT | OBJ_FROZEN));

	return told ? PTE_R : PTE_R | PTE_W;
}

/*
 * So many pages were written while there was a copy: all over?  That it was not is known only when another
 * copy has ended it.  => locked
 */
static void
learn(const struct vm_view *v, const struct vm_object *copy, uint32_t written)
{
	bool dense = written >= DENSE_PAGES;

	if (!v->populated && (dense || (copy != NULL && v->object->copy != copy)))
		pmap_dense_set(v->pmap, v->va, dense);
}

/* What the mapping may touch again has been touched; and what was written, or may be from now on, is modified.  => locked */
static void
mark(const struct vm_view *v, const uint64_t *changed, unsigned rights)
{
	void *page[BATCH];

	for (uint32_t k = 0, n; k < PMAP_LEAF_PAGES; k += n) {
		n = radix_run(&v->object->pages, vv_first(v) + k, MIN(BATCH, PMAP_LEAF_PAGES - k), page);
		KASSERT(n != 0);
		for (uint32_t i = 0; i < n; i++) {
			struct vm_page *m = page[i];

			if (rights != 0 || vv_is_set(changed, k + i))
				m->flags |= PG_REFERENCED;
			if ((rights & PTE_W) || vv_is_set(changed, k + i))
				vm_written_modify(m);
		}
	}
}

enum kern_return
vv_bring_home(struct vm_view *v)
{
	struct vm_object *o = v->object, *copy;
	uint64_t changed[PMAP_LEAF_WORDS] = { 0 };
	vm_pfn_t pfn = vm_page_lookup(o, vv_first(v))->pfn, other[PMAP_LEAF_PAGES] = { 0 };
	enum kern_return result;
	/* What is written after the copy has gone says nothing about how it will be after the next. */
	bool telling = v->copy != NULL || !(pmap_view_rights(v->pmap, v->va) & PTE_W);

	pmap_view_close(v->pmap, v->va);
	vm_object_unlock(o);
	PROBE("vm_view: closed");
	pmap_view_changed(v->va, changed);
	result = push_all(v, changed);
	PROBE("vm_view: pushed");
	if (result == KERN_SUCCESS && !take_others(pfn, changed, other))
		result = KERN_RESOURCE_SHORTAGE;
	if (result == KERN_SUCCESS)
		result = bring(v, pfn, changed, other);
	if (result != KERN_SUCCESS)
		give_others(other);
	PROBE("vm_view: brought");
	vm_object_lock(o);
	copy = v->copy;
	v->busy = false;
	if (result == KERN_SUCCESS) {
		unsigned rights = vv_is_frozen(v) ? 0 : rights_at_home(v);

		if (move_to_others(v, other))
			rights = 0;
		pmap_view_end(v->pmap, v->va, rights);
		learn(v, copy, telling ? vv_count(changed) : v->nchanged);
		mark(v, changed, rights);
		vv_unlink(v);
	}
	vm_object_pip_done(o);
	vm_object_unlock(o);
	event_wake(v);
	if (result == KERN_SUCCESS) {
		if (copy != NULL)
			quit(copy);
		slab_free(&vv.slab, v);
	}
	return result;
}

void
vv_wait(struct vm_view *v)
{
	uint32_t ticket = event_prepare(v);

	vm_object_unlock(v->object);
	PROBE("vm_view: wait for busy view");
	(void)event_wait(v, ticket, EVENT_FOREVER);
}

enum kern_return
vm_view_home(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	enum kern_return result = KERN_SUCCESS;
	struct vm_view *v;

	while (result == KERN_SUCCESS) {
		vm_object_lock(o);
		v = vv_in(o, lo, hi);
		if (v == NULL) {
			vm_object_unlock(o);
			break;
		}
		if (v->busy)
			vv_wait(v);
		else if (vv_take(v))
			result = vv_bring_home(v);
	}
	return result;
}

/* Call what for the pages of each object that is mapped in [s, end), until something fails.  => the map locked */
static enum kern_return
each_object(struct vm_map *map, vm_offset_t s, vm_offset_t end,
    enum kern_return (*what)(struct vm_object *, vm_pindex_t, vm_pindex_t))
{
	enum kern_return result = KERN_SUCCESS;
	struct vm_map_entry *e;

	if (atomic_load_explicit(&vv.n, memory_order_relaxed) == 0)
		return KERN_SUCCESS;
	for (e = vm_map_entry_ge(map, s); e != NULL && entry_start(e) < end && result == KERN_SUCCESS;
	    e = vm_map_entry_next(e))
		if (e->map.object != NULL)
			result = what(e->map.object, entry_pindex(e, MAX(s, entry_start(e))),
			    entry_pindex(e, MIN(end, entry_end(e))));
	return result;
}

enum kern_return
vm_view_settle(struct vm_map *map, vm_offset_t s, vm_offset_t end)
{
	return each_object(map, s, end, vm_view_home);
}

/* Does nobody need what is in the view, once its pages [lo, hi) are not mapped any more?  => locked */
static bool
is_droppable(const struct vm_view *v, vm_pindex_t lo, vm_pindex_t hi)
{
	return !v->closed && vv_first(v) >= lo && vv_first(v) + PMAP_LEAF_PAGES <= hi;
}

/* Bring home what must not be dropped, or drop the rest. */
static enum kern_return
drop_or_keep(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi, bool dropping)
{
	enum kern_return result = KERN_SUCCESS;
	vm_pindex_t at = lo;
	struct vm_view *v;

	vm_object_lock(o);
	while (result == KERN_SUCCESS && (v = vv_in(o, at, hi)) != NULL) {
		bool droppable = is_droppable(v, lo, hi);

		if (v->busy) {
			vv_wait(v);
			vm_object_lock(o);
			continue;
		}
		at = vv_first(v) + PMAP_LEAF_PAGES;
		if (droppable == dropping && dropping) {
			pmap_view_end(v->pmap, v->va, 0);
			vv_unlink(v);
			slab_free(&vv.slab, v);
		} else if (droppable == dropping) {
			vm_object_unlock(o);
			result = vm_view_home(o, at - PMAP_LEAF_PAGES, at);
			vm_object_lock(o);
		}
	}
	vm_object_unlock(o);
	return result;
}

static enum kern_return
keep_needed(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	return drop_or_keep(o, lo, hi, false);
}

static enum kern_return
drop_unneeded(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	return drop_or_keep(o, lo, hi, true);
}

enum kern_return
vm_view_keep(struct vm_map *map, vm_offset_t s, vm_offset_t end)
{
	return each_object(map, s, end, keep_needed);
}

void
vm_view_drop(struct vm_map *map, vm_offset_t s, vm_offset_t end)
{
	(void)each_object(map, s, end, drop_unneeded);
}
