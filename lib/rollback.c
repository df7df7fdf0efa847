/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Rollback: the ranges become what the snapshot holds, at one instant.
 *
 * Two ways, chosen for each entry:
 *
 *	IN PLACE	where the entry still shows the object O that the snapshot was taken of:
 *			the pages that were written since lie in the copy objects between the
 *			snapshot and O, so only those are copied back.  Also where the entry is shared
 *			or wired, and must keep its object.
 *	REPLACE		else: the entry gets the snapshot's own object, needs_copy.  No byte is moved.
 *
 * Copying back is writing: other snapshots must get the old pages first, and that may need frames
 * that are not there.  So it is done in steps:
 *
 *	1. with the maps locked: mark the entries in transition, freeze the objects (OBJ_FROZEN: whoever
 *	   would see them waits), and take every right to the pages away
 *	2. make every page ready to be written; if that fails, thaw: nothing has changed
 *	3. with the maps locked again: replace; then write the pages, which cannot fail any more
 *	4. thaw
 */

#include <errno.h>

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/probe.h"
#include "kern/slab.h"
#include "pmap.h"
#include "snapshot.h"
#include "snapshot_impl.h"
#include "task.h"
#include "vm_fault.h"
#include "vm_meter.h"

/* One entry's part of a rollback. */
struct part {
	struct vm_map *map;
	const struct piece *piece;
	vm_offset_t start, end;
	uint64_t *dirty;		/* in place: a bit for each page to be copied back; null: replace */
	size_t bytes;			/* of it */
};

struct rollback {
	struct part *part;
	size_t n, bytes;
	struct vm_cut frozen;
	struct vm_reaper reaper;
};

/* The page of the piece's object that an address of the part must show. */
static vm_pindex_t
piece_pindex(const struct snapshot *s, const struct part *p, vm_offset_t va)
{
	size_t offset = va - (vm_offset_t)s->range[p->piece->range].addr;

	return p->piece->offset + (vm_pindex_t)((offset - p->piece->start) >> PAGE_SHIFT);
}

/*
 * Mark what [first, first + n) of `from' has that object `to', page to_first, has not: the pages of the objects
 * between the two.  false: `to' is not below `from' at that place.
 */
static bool
mark_between(struct vm_object *from, vm_pindex_t first, struct vm_object *to, vm_pindex_t to_first,
    uint32_t n, uint64_t *dirty)
{
	struct vm_object *o = from, *next;
	bool found;

	vm_object_lock(o);
	while (o != to && (next = o->shadow) != NULL) {
		for (vm_pindex_t i = first; radix_next(&o->pages, &i) != NULL && i - first < n; i++)
			dirty[(i - first) / 64] |= (uint64_t)1 << ((i - first) % 64);
		for (uint32_t i = 0; o->pager != NULL && i < n; i++)
			if (vm_object_paged_out(o, first + i))
				dirty[i / 64] |= (uint64_t)1 << (i % 64);
		first += o->shadow_offset;
		vm_object_lock(next);
		vm_object_unlock(o);
		o = next;
	}
	found = o == to && first == to_first;
	vm_object_unlock(o);
	return found;
}

/* Decide how an entry is rolled back.  => map write-locked; the entry lies in one piece */
static int
plan(struct snapshot *s, struct rollback *rb, struct vm_map *map, struct vm_map_entry *e,
    const struct piece *piece)
{
	uint32_t npages = (uint32_t)atop(entry_end(e) - entry_start(e));
	struct part *p = &rb->part[rb->n];
	bool below;

	if (e->needs_copy && e->map.object == piece->object && e->map.offset ==
	    piece->offset + (vm_pindex_t)atop(entry_start(e) -
	    (vm_offset_t)s->range[piece->range].addr - piece->start))
		return 0;			/* it shows the snapshot itself */
	*p = (struct part){ .map = map, .piece = piece, .start = entry_start(e), .end = entry_end(e) };
	p->bytes = (npages + 63) / 64 * sizeof(uint64_t);
	p->dirty = kmem_alloc(p->bytes);
	if (p->dirty == NULL)
		return -ENOMEM;
	rb->n++;
	below = piece->object != NULL && e->map.object != NULL && !e->needs_copy &&
	    mark_between(piece->object, piece_pindex(s, p, p->start), e->map.object, e->map.offset,
	    npages, p->dirty);
	if (below)
		return 0;
	if (e->shared || e->wired_count != 0) {
		for (uint32_t i = 0; i < npages; i++)
			p->dirty[i / 64] |= (uint64_t)1 << (i % 64);
		return vm_map_entry_own(e) ? 0 : -ENOMEM;
	}
	kmem_free(p->dirty, p->bytes);
	p->dirty = NULL;
	return vm_map_reserve(&rb->reaper, 1) ? 0 : -ENOMEM;
}

static inline bool
is_dirty(const struct part *p, uint32_t i)
{
	return p->dirty[i / 64] >> (i % 64) & 1;
}

/* Nobody may see the entry's dirty pages from now on.  => map write-locked */
static void
freeze(struct rollback *rb, const struct part *p, struct vm_map_entry *e)
{
	uint32_t npages = (uint32_t)atop(p->end - p->start), run;
	struct vm_object *o = e->map.object;

	vm_cut_add(&rb->frozen, o);
	vm_object_lock(o);
	o->flags |= OBJ_FROZEN;
	for (uint32_t i = 0; i < npages; i += run) {
		for (run = 0; i + run < npages && is_dirty(p, i + run); run++)
			;
		if (run != 0)
			vm_object_protect(o, e->map.offset + i, e->map.offset + i + run, VM_PROT_NONE,
			    PMAP_KEEP_WIRED);
		else
			run = 1;
	}
	vm_object_unlock(o);
}

/* Go through the entries of all ranges.  => maps locked and clipped */
static int
plan_all(struct snapshot *s, struct map_set *set, struct rollback *rb)
{
	int error = 0;

	for (size_t i = 0; i < s->pieces.n; i++) {
		const struct piece *piece = &s->pieces.piece[i];
		vm_offset_t start = (vm_offset_t)s->range[piece->range].addr + piece->start;
		struct vm_map *map = maps_of(set, s->range[piece->range].addr);
		struct vm_map_entry *e;

		if (!vm_map_clip(map, start, start + piece->size))
			return -ENOMEM;
		for (e = vm_map_entry_at(map, start); e != NULL && entry_start(e) < start + piece->size;
		    e = vm_map_entry_next(e)) {
			if ((rb->n + 1) * sizeof(struct part) > rb->bytes)
				return -EAGAIN;		/* more entries than were counted: not possible */
			error = plan(s, rb, map, e, piece);
			if (error != 0)
				return error;
		}
	}
	return 0;
}

/* Entries in the ranges, pieces' ends counted as splits. */
static size_t
count_entries(struct snapshot *s, struct map_set *set)
{
	size_t n = 2 * s->pieces.n;

	for (size_t i = 0; i < s->nranges; i++) {
		vm_offset_t start = (vm_offset_t)s->range[i].addr;
		struct vm_map_entry *e = vm_map_entry_at(maps_of(set, s->range[i].addr), start);

		for (; e != NULL && entry_start(e) < start + s->range[i].size; e = vm_map_entry_next(e))
			n++;
	}
	return n;
}

/*
 * Write every dirty page of the parts in place; or, without `really', only make them ready for that.
 */
static int
write_back(struct snapshot *s, struct rollback *rb, bool really)
{
	char buf[PAGE_SIZE];

	for (size_t i = 0; i < rb->n; i++) {
		const struct part *p = &rb->part[i];

		for (uint32_t k = 0; p->dirty != NULL && k < atop(p->end - p->start); k++) {
			vm_offset_t va = p->start + ((vm_offset_t)k << PAGE_SHIFT);
			size_t offset = va - (vm_offset_t)s->range[p->piece->range].addr;
			int error;

			if (!is_dirty(p, k))
				continue;
			error = piece_read(p->piece, offset, buf, PAGE_SIZE);
			if (error == 0)
				error = errno_of(vm_fault_io(p->map, va, 0, buf, really ? PAGE_SIZE : 0, true,
				    VM_FAULT_THAW | VM_FAULT_FORCE));
			if (error != 0)
				return error;
		}
	}
	return 0;
}

/* Step 1.  => maps locked */
static int
begin(struct snapshot *s, struct map_set *set, struct rollback *rb)
{
	int error;

	for (size_t i = 0; i < s->nranges; i++) {
		vm_offset_t start = (vm_offset_t)s->range[i].addr;

		if (vm_map_is_held(maps_of(set, s->range[i].addr), start, start + s->range[i].size))
			return -EBUSY;
	}
	if (!maps_clip(set, s->range, s->nranges))
		return -ENOMEM;
	rb->bytes = count_entries(s, set) * sizeof(struct part);
	rb->part = kmem_alloc(rb->bytes);
	if (rb->part == NULL)
		return -ENOMEM;
	error = plan_all(s, set, rb);
	if (error != 0)
		return error;
	for (size_t i = 0; i < rb->n; i++) {
		struct part *p = &rb->part[i];
		struct vm_map_entry *e = vm_map_entry_at(p->map, p->start);

		e->in_transition = true;
		if (p->dirty != NULL)
			freeze(rb, p, e);
	}
	return 0;
}

/* Step 3, first half.  => maps locked */
static void
replace(struct snapshot *s, struct rollback *rb)
{
	for (size_t i = 0; i < rb->n; i++) {
		struct part *p = &rb->part[i];
		struct vm_object *o = p->piece->object;

		if (p->dirty != NULL)
			continue;
		if (o != NULL)
			vm_object_reference(o);
		vm_map_replace(p->map, vm_map_entry_at(p->map, p->start), o,
		    o != NULL ? piece_pindex(s, p, p->start) : 0, o != NULL, &rb->reaper);
	}
}

/* The entries are as others again.  => maps locked */
static void
end_transition(struct rollback *rb)
{
	for (size_t i = 0; i < rb->n; i++) {
		struct vm_map_entry *e = vm_map_entry_at(rb->part[i].map, rb->part[i].start);

		e->in_transition = false;
	}
}

static void
lock_again(struct map_set *set)
{
	for (size_t i = 0; i < set->n; i++)
		krwlock_write(&set->map[i]->lock);
}

static int
rollback(struct snapshot *s, struct map_set *set, struct rollback *rb)
{
	int error = maps_lock(set, s->range, s->nranges);

	if (error != 0)
		return error;
	error = begin(s, set, rb);
	if (error != 0) {
		maps_simplify(set, s->range, s->nranges);
		maps_unlock(set);
		return error;
	}
	maps_unlock(set);
	PROBE("rollback: frozen");
	error = write_back(s, rb, false);

	lock_again(set);
	if (error == 0)
		replace(s, rb);
	maps_unlock(set);
	if (error == 0) {
		PROBE("rollback: writing");
		error = write_back(s, rb, true);
		if (error != 0)
			klog("rollback stopped half-way: a page of the snapshot could not be read");
	}
	vm_cut_thaw(&rb->frozen);

	lock_again(set);
	end_transition(rb);
	maps_simplify(set, s->range, s->nranges);
	maps_unlock(set);
	for (size_t i = 0; i < set->n; i++)
		event_wake(set->map[i]);
	return error;
}

int
snapshot_rollback(uint64_t name)
{
	struct snapshot *s = snapshot_get(name);
	struct rollback rb = { 0 };
	struct map_set set;
	int error;

	if (s == NULL)
		return -EBADF;
	error = maps_find(&set, s->range, s->nranges);
	if (error == 0) {
		vm_cut_begin(&rb.frozen);
		error = rollback(s, &set, &rb);
		vm_cut_thaw(&rb.frozen);
		vm_cut_end(&rb.frozen);
		maps_release(&set);
	}
	vm_map_reap(&rb.reaper);
	for (size_t i = 0; i < rb.n; i++)
		if (rb.part[i].dirty != NULL)
			kmem_free(rb.part[i].dirty, rb.part[i].bytes);
	if (rb.part != NULL)
		kmem_free(rb.part, rb.bytes);
	handle_put(&s->handle);
	if (error == 0)
		vm_count(v_rollbacks);
	return error;
}
