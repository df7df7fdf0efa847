/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Advice that is followed at once: will-need, dont-need, free, cold.
 *
 * DONT-NEED is not only advice: who gives it counts on zeros afterwards (malloc implementations do).  Three ways:
 *
 *	BLANK		where, as for the next one, nobody else sees them, and nothing bounds memory: the kernel takes
 *			the memory from under the pages, and they stay what they are, mapped too.  The next touch is
 *			between the kernel and the program
 *	IN PLACE	where nobody else sees the object and nothing lies below it, its pages are freed; what
 *			it had paged out, too.  The entry stays as it is, so that the small
 *			ranges that allocators give up do not cut it into pieces.
 *	REPLACE		else the entry gets a new object: none, which reads as zeros, or a fresh copy of the
 *			file.  Freeing pages of a shadow would bring back the older ones below it;
 *			copies and snapshots of the old object keep what they have.
 *
 * FREE leaves the bytes where they are but marks the page clean (PG_FREE), so the pageout daemon may drop
 * it without writing it anywhere; a write makes it an ordinary modified page again.  Only pages
 * that could be freed in place are marked, and they are kept for good when the object is copied
 * (vm_object_keep_given): a snapshot must not change its mind.  A page that had been paged out before
 * loses that older copy now, or it would come back.
 */

#include "kern/assert.h"
#include "kern/probe.h"
#include "pmap.h"
#include "vm_advise.h"
#include "vm_pager.h"
#include "vm_readahead.h"
#include "vm_view.h"

#define FOREACH_ENTRY(e, map, s, end) \
	for ((e) = vm_map_entry_ge((map), (s)); (e) != NULL && entry_start(e) < (end); \
	    (e) = vm_map_entry_next(e))

/* Pages of the entry's object that the range covers. */
static void
covered(const struct vm_map_entry *e, vm_offset_t s, vm_offset_t end, vm_pindex_t *lo, vm_pindex_t *hi)
{
	*lo = entry_pindex(e, MAX(s, entry_start(e)));
	*hi = entry_pindex(e, MIN(end, entry_end(e)));
}

/*
 * Will-need
 */

/* Read pages [lo, hi) of the chain from o on, whose reference is the caller's and is given back. */
static void
read_chain(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	while (o != NULL) {
		struct vm_object *next;

		(void)vm_readahead_start(o, lo, hi, (uint32_t)MIN(physmem_free_count() / 2, UINT32_MAX));
		vm_object_lock(o);
		next = o->shadow;
		if (next != NULL) {
			lo += o->shadow_offset;
			hi += o->shadow_offset;
			vm_object_reference(next);
		}
		vm_object_unlock(o);
		vm_object_deallocate(o);
		o = next;
	}
}

enum kern_return
vm_map_willneed(struct vm_map *map, vm_offset_t s, vm_offset_t end)
{
	krwlock_read(&map->lock);
	if (!vm_map_is_mapped(map, s, end)) {
		krwlock_read_unlock(&map->lock);
		return KERN_INVALID_ADDRESS;
	}
	for (;;) {
		struct vm_map_entry *e = vm_map_entry_ge(map, s);
		struct vm_object *o;
		vm_pindex_t lo, hi;

		if (e == NULL || entry_start(e) >= end)
			break;
		o = e->map.object;
		covered(e, s, end, &lo, &hi);
		s = entry_end(e);
		if (o == NULL)
			continue;
		vm_object_reference(o);
		krwlock_read_unlock(&map->lock);
		read_chain(o, lo, hi);
		krwlock_read(&map->lock);
	}
	krwlock_read_unlock(&map->lock);
	return KERN_SUCCESS;
}

/*
 * Dont-need
 */

/* May the entry's pages be given up as its own?  Of shared memory others count on them. */
static bool
is_private(const struct vm_map_entry *e)
{
	return !e->shared && (e->map.object == NULL || e->map.object->internal);
}

static void
drop_clean(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	struct vm_page *m;

	vm_object_lock(o);
	for (; (m = radix_next(&o->pages, &lo)) != NULL && lo < hi; lo++) {
		if ((m->flags & (PG_BUSY | PG_MODIFIED)) || m->wire_count != 0)
			continue;
		vm_object_page_protect(m, VM_PROT_NONE);
		vm_page_free(m);
	}
	vm_object_unlock(o);
}

/* => locked; none of its pages is busy, wired or viewed.  false: not so, or not all of them, and they have to go */
static bool
blank(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	vm_pindex_t i = lo;
	struct vm_page *m;

	if (!physmem_is_boundless() || o->pager != NULL)
		return false;
	while ((m = radix_next(&o->pages, &i)) != NULL && i < hi) {
		vm_pfn_t first = m->pfn;
		uint32_t n = 0;

		do {
			KASSERT(!(m->flags & PG_FAKE) && !vm_page_is_viewed(m));
			m->flags = (uint16_t)((m->flags & ~(PG_FREE | PG_REFERENCED)) | PG_MODIFIED);
			m = vm_page_lookup(o, ++i);
			n++;
		} while (i < hi && m != NULL && m->pfn == first + n);
		/* A forked child may see them as well. */
		if (physmem_any_frozen(first, n) || !physmem_blank(first, n))
			return false;
	}
	return true;
}

/* => the map is write-locked, and nothing in the range wired */
static bool
discard_in_place(struct vm_map_entry *e, vm_pindex_t lo, vm_pindex_t hi)
{
	struct vm_object *o = e->map.object;
	struct vm_page *m;
	bool ok;

	vm_object_lock(o);
	ok = !e->needs_copy && vm_object_is_sole(o, lo, hi);
	/* Somebody reads or writes a page of it: his bytes must not be found later. */
	for (vm_pindex_t i = lo; ok && (m = radix_next(&o->pages, &i)) != NULL && i < hi; i++)
		ok = !(m->flags & PG_BUSY);
	if (ok && !blank(o, lo, hi)) {
		vm_object_protect(o, lo, hi, VM_PROT_NONE, 0);
		for (vm_pindex_t i = lo; (m = radix_next(&o->pages, &i)) != NULL && i < hi; i++)
			vm_page_free(m);
		if (o->pager != NULL)
			vm_pager_dispose(o->pager, (uint64_t)lo + o->paging_offset, hi - lo);
	}
	vm_object_unlock(o);
	return ok;
}

/* The object at the bottom of what the entry shows, and where in it. */
static struct vm_object *
bottom_of(const struct vm_map_entry *e, vm_pindex_t *lo)
{
	struct vm_object *o = e->map.object, *next;

	vm_object_lock(o);
	for (; (next = o->shadow) != NULL; o = next) {
		*lo += o->shadow_offset;
		vm_object_lock(next);
		vm_object_unlock(o);
	}
	vm_object_unlock(o);
	return o;
}

/* Let the entry show what it showed when it was new.  => map write-locked; clipped to the range */
static enum kern_return
discard_entry(struct vm_map *map, struct vm_map_entry *e, struct vm_reaper *reaper)
{
	vm_pindex_t n = (vm_pindex_t)atop(entry_end(e) - entry_start(e)), lo = e->map.offset, copy_lo;
	/* The entry keeps it: objects of files are not merged. */
	struct vm_object *bottom = bottom_of(e, &lo), *fresh = NULL;
	enum kern_return result;

	if (!vm_map_reserve(reaper, 1))
		return KERN_RESOURCE_SHORTAGE;
	copy_lo = lo;
	if (!bottom->internal) {
		result = vm_object_copy(bottom, lo, lo + n, NULL, &fresh, &copy_lo);
		if (result != KERN_SUCCESS)
			return result;
	}
	vm_map_replace(map, e, fresh, lo - copy_lo, fresh != NULL, reaper);
	return KERN_SUCCESS;
}

/* The part [s, end) of an entry.  => map write-locked */
static enum kern_return
dontneed(struct vm_map *map, struct vm_map_entry *e, vm_offset_t s, vm_offset_t end,
    struct vm_reaper *reaper)
{
	struct vm_object *o = e->map.object;
	vm_pindex_t lo = entry_pindex(e, s), hi = entry_pindex(e, end);

	if (o == NULL)
		return KERN_SUCCESS;
	if (!is_private(e)) {
		drop_clean(o, lo, hi);
		return KERN_SUCCESS;
	}
	if (discard_in_place(e, lo, hi))
		return KERN_SUCCESS;
	if (!vm_map_clip(map, s, end))
		return KERN_RESOURCE_SHORTAGE;
	return discard_entry(map, vm_map_entry_at(map, s), reaper);
}

enum kern_return
vm_map_dontneed(struct vm_map *map, vm_offset_t s, vm_offset_t end)
{
	enum kern_return result = vm_map_lock_range(map, s, end, true);
	struct vm_reaper reaper = { 0 };
	struct vm_map_entry *e;

	if (result != KERN_SUCCESS)
		return result;
	if (vm_map_is_held(map, s, end))
		result = KERN_BUSY;
	FOREACH_ENTRY(e, map, s, end)
		if (e->wired_count != 0)
			result = KERN_BUSY;
	for (vm_offset_t at = s, to; result == KERN_SUCCESS && at < end; at = to) {
		e = vm_map_entry_at(map, at);
		to = MIN(end, entry_end(e));
		result = dontneed(map, e, at, to, &reaper);
	}
	vm_map_simplify(map, s, end);
	krwlock_write_unlock(&map->lock);
	vm_map_reap(&reaper);
	return result;
}

/*
 * Free and cold
 */

/* => locked */
static void
give_up(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	vm_object_protect(o, lo, hi, VM_PROT_READ | VM_PROT_EXECUTE, PMAP_KEEP_WIRED);
	while (lo < hi) {
		vm_pindex_t i = lo;
		struct vm_page *m = radix_next(&o->pages, &i);
		bool ours = m != NULL && i < hi && !(m->flags & PG_BUSY) && m->wire_count == 0;

		/* What is paged out goes at once, but not from under a page that somebody is busy with. */
		i = m != NULL ? MIN(i, hi) : hi;
		if (o->pager != NULL && i + ours > lo)
			vm_pager_dispose(o->pager, (uint64_t)lo + o->paging_offset, i + ours - lo);
		if (ours) {
			m->flags = (uint16_t)((m->flags & ~(PG_MODIFIED | PG_REFERENCED)) | PG_FREE);
			vm_page_deactivate(m);
		}
		lo = i + 1;
	}
}

enum kern_return
vm_map_free(struct vm_map *map, vm_offset_t s, vm_offset_t end)
{
	enum kern_return result = vm_map_lock_range(map, s, end, true);
	struct vm_map_entry *e;

	if (result != KERN_SUCCESS)
		return result;
	FOREACH_ENTRY(e, map, s, end) {
		struct vm_object *o = e->map.object;
		vm_pindex_t lo, hi;

		if (o == NULL || !is_private(e) || e->needs_copy)
			continue;
		covered(e, s, end, &lo, &hi);
		vm_object_lock(o);
		if (vm_object_is_sole(o, lo, hi)) {
			o->flags |= OBJ_GIVEN;
			give_up(o, lo, hi);
		}
		vm_object_unlock(o);
	}
	krwlock_write_unlock(&map->lock);
	return KERN_SUCCESS;
}

/* Pages [lo, hi) of the chain from o on.  => o locked, unlocked at return */
static void
cool(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	for (;;) {
		struct vm_object *next = o->shadow;
		struct vm_page *m;

		for (vm_pindex_t i = lo; (m = radix_next(&o->pages, &i)) != NULL && i < hi; i++) {
			if ((m->flags & PG_BUSY) || m->wire_count != 0)
				continue;
			m->flags &= (uint16_t)~PG_REFERENCED;
			vm_page_deactivate(m);
		}
		if (next == NULL)
			break;
		lo += o->shadow_offset;
		hi += o->shadow_offset;
		vm_object_lock(next);
		vm_object_unlock(o);
		o = next;
	}
	vm_object_unlock(o);
}

enum kern_return
vm_map_cold(struct vm_map *map, vm_offset_t s, vm_offset_t end)
{
	struct vm_map_entry *e;

	krwlock_read(&map->lock);
	if (!vm_map_is_mapped(map, s, end)) {
		krwlock_read_unlock(&map->lock);
		return KERN_INVALID_ADDRESS;
	}
	FOREACH_ENTRY(e, map, s, end) {
		vm_pindex_t lo, hi;

		if (e->map.object == NULL)
			continue;
		/* A touch is seen again. */
		pmap_protect(map->pmap, MAX(s, entry_start(e)), MIN(end, entry_end(e)), VM_PROT_NONE,
		    PMAP_KEEP_WIRED);
		covered(e, s, end, &lo, &hi);
		vm_object_lock(e->map.object);
		cool(e->map.object, lo, hi);
	}
	krwlock_read_unlock(&map->lock);
	return KERN_SUCCESS;
}
