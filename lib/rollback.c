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
 *
 * AGAIN AND AGAIN.  The copies keep what was ever pushed to them, so the pages in them become many, and
 * few of them are written between two rollbacks.  Therefore the object lists what is written from
 * the first rollback on (vm_written.h), and the next one goes along that list: the part is LISTED.  Its
 * pages are copied frame to frame (rollback_page.c), and those that are written each time stay writable:
 * they take no fault, and if nobody else is there to see them (kern/alone.h), no system call.  If there
 * is, they are taken away in step 1 and given back at the end.  A part that cannot be listed, for its pages
 * are wired, or not in memory, or its object is a file's, is MARKED by what the copies have, as the
 * first time; and listed from then on, if it can be.
 */

#include <errno.h>

#include "kern/alone.h"
#include "kern/assert.h"
#include "kern/event.h"
#include "kern/probe.h"
#include "kern/slab.h"
#include "pmap.h"
#include "rollback_page.h"
#include "snapshot.h"
#include "snapshot_impl.h"
#include "task.h"
#include "vm_fault.h"
#include "vm_meter.h"
#include "vm_view.h"
#include "vm_written.h"

#define PARTS_FEW	8
#define WORDS_FEW	512		/* bits for 128 MB */
#define LISTED_MAX	64		/* parts; each goes along the list of its object */

/* One entry's part of a rollback. */
struct part {
	struct vm_map *map;
	const struct piece *piece;
	vm_offset_t start, end;
	struct chain chain;		/* in place */
	vm_pindex_t first;		/* the page of its object that is at start */
	bool listed;			/* the object knows what was written: these are the bits */
	bool listable;			/* ... and if not, it can know it from now on */
	uint64_t *dirty;		/* in place: a bit for each page to be copied back; null: replace */
	size_t bytes;			/* of it, if it is memory of its own */
};

struct rollback {
	struct part *part;
	size_t n, room;
	size_t bytes;			/* of the parts; 0: they are `few' */
	size_t words;			/* of `word' that are used */
	bool alone;			/* no other thread can see anything */
	struct vm_cut frozen;
	struct vm_reaper reaper;
	struct part few[PARTS_FEW];
	uint64_t word[WORDS_FEW];
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

/* Page k of a part, as the object in place has it. */
static inline vm_pindex_t
part_pindex(const struct part *p, uint32_t k)
{
	return p->first + k;
}

static inline void
set_dirty(struct part *p, uint32_t i)
{
	p->dirty[i / 64] |= (uint64_t)1 << (i % 64);
}

/* Nobody else may see the object from now on; what was mapped before still is. */
static void
hide(struct rollback *rb, struct vm_object *o)
{
	if (o->cut_listed)
		return;
	vm_cut_add(&rb->frozen, o);
	vm_object_lock(o);
	o->flags |= OBJ_FROZEN;
	o->written.rollbacks = (uint8_t)(o->written.rollbacks % 7 + 1);
	vm_object_unlock(o);
}

/* Find the part's dirty pages on the list of its object, if that has one, or can have one. */
static bool
plan_listed(struct snapshot *s, struct rollback *rb, struct part *p, vm_pindex_t lo, vm_pindex_t hi)
{
	struct vm_object *o = p->chain.o;
	struct vm_page *m = NULL;

	if (!chain_lock(&p->chain))
		return false;
	p->listable = o->internal && o->wired_pages == 0 && rb->n < LISTED_MAX;
	p->listed = p->listable && (vm_written_covers(o, s->serial, lo, hi) ||
	    vm_written_begin(o, p->chain.top, p->chain.shift, s->serial, lo, hi, false));
	while (p->listed && (m = vm_written_next(o, m)) != NULL)
		if (m->pindex >= lo && m->pindex < hi)
			set_dirty(p, m->pindex - lo);
	chain_unlock(&p->chain);
	return p->listed;
}

/* A bit for each page.  false: no memory */
static bool
make_bits(struct rollback *rb, struct part *p, uint32_t npages)
{
	size_t words = (npages + 63) / 64;

	if (words <= WORDS_FEW - rb->words) {
		p->dirty = rb->word + rb->words;
		rb->words += words;
		return true;
	}
	p->bytes = words * sizeof(uint64_t);
	p->dirty = kmem_alloc(p->bytes);
	return p->dirty != NULL;
}

static void
free_bits(struct part *p)
{
	if (p->bytes != 0 && p->dirty != NULL)
		kmem_free(p->dirty, p->bytes);
	p->dirty = NULL;
}

/* Decide how an entry is rolled back.  => map write-locked; the entry lies in one piece */
static int
plan(struct snapshot *s, struct rollback *rb, struct vm_map *map, struct vm_map_entry *e,
    const struct piece *piece)
{
	uint32_t npages = (uint32_t)atop(entry_end(e) - entry_start(e));
	struct part *p = &rb->part[rb->n];
	bool below;

	if (e->map.object == NULL && piece->object == NULL)
		return 0;
	if (e->needs_copy && e->map.object == piece->object && e->map.offset ==
	    piece->offset + (vm_pindex_t)atop(entry_start(e) -
	    (vm_offset_t)s->range[piece->range].addr - piece->start))
		return 0;			/* it shows the snapshot itself */
	*p = (struct part){ .map = map, .piece = piece, .start = entry_start(e), .end = entry_end(e) };
	if (!make_bits(rb, p, npages))
		return -ENOMEM;
	rb->n++;
	below = piece->object != NULL && e->map.object != NULL && !e->needs_copy;
	if (below) {
		vm_pindex_t first = piece_pindex(s, p, p->start);

		/* First, so that nothing more is written than is found. */
		hide(rb, e->map.object);
		p->chain = (struct chain){ piece->object, e->map.object, e->map.offset - first };
		p->first = e->map.offset;
		below = plan_listed(s, rb, p, e->map.offset, e->map.offset + npages) ||
		    mark_between(piece->object, first, e->map.object, e->map.offset, npages, p->dirty);
	}
	if (below)
		return 0;
	p->listable = false;
	if (e->shared || e->wired_count != 0) {
		for (uint32_t i = 0; i < npages; i++)
			set_dirty(p, i);
		return vm_map_entry_own(e) ? 0 : -ENOMEM;
	}
	free_bits(p);
	return vm_map_reserve(&rb->reaper, 1) ? 0 : -ENOMEM;
}

static inline bool
is_dirty(const struct part *p, uint32_t i)
{
	return p->dirty[i / 64] >> (i % 64) & 1;
}

/* The first dirty page at or after i; npages: none. */
static uint32_t
next_dirty(const struct part *p, uint32_t i)
{
	uint32_t npages = (uint32_t)atop(p->end - p->start);

	while (i < npages) {
		uint64_t word = p->dirty[i / 64] >> (i % 64);

		if (word != 0)
			return i + (uint32_t)__builtin_ctzll(word);
		i = (i | 63) + 1;
	}
	return npages;
}

/* Nobody else may see the entry's dirty pages from now on.  => map write-locked */
static void
freeze(struct rollback *rb, const struct part *p, struct vm_map_entry *e)
{
	uint32_t npages = (uint32_t)atop(p->end - p->start), run;
	struct vm_object *o = e->map.object;

	hide(rb, o);
	if (rb->alone && p->listed)
		return;
	vm_object_lock(o);
	for (uint32_t i = next_dirty(p, 0); i < npages; i = next_dirty(p, i + run)) {
		for (run = 1; i + run < npages && is_dirty(p, i + run); run++)
			;
		vm_object_protect(o, e->map.offset + i, e->map.offset + i + run, VM_PROT_NONE, PMAP_KEEP_WIRED);
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
			if (rb->n == rb->room)
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

/* Write page k of a part, or make it ready for that, as a touch would. */
static int
write_page(struct snapshot *s, const struct part *p, uint32_t k, bool really)
{
	vm_offset_t va = p->start + ((vm_offset_t)k << PAGE_SHIFT);
	char buf[PAGE_SIZE];
	int error = piece_read(p->piece, va - (vm_offset_t)s->range[p->piece->range].addr, buf, PAGE_SIZE);

	if (error != 0)
		return error;
	return errno_of(vm_fault_io(p->map, va, 0, buf, really ? PAGE_SIZE : 0, true,
	    VM_FAULT_THAW | VM_FAULT_FORCE));
}

static int
write_part(struct snapshot *s, const struct part *p, bool really)
{
	uint32_t npages = (uint32_t)atop(p->end - p->start);
	bool locked = false;
	int error = 0;

	for (uint32_t k = next_dirty(p, 0); k < npages && error == 0; k = next_dirty(p, k + 1)) {
		locked = locked || (p->listed && chain_lock(&p->chain));
		if (locked && chain_copy_back(&p->chain, part_pindex(p, k), really))
			continue;
		if (locked)
			chain_unlock(&p->chain);
		locked = false;
		error = write_page(s, p, k, really);
	}
	if (locked)
		chain_unlock(&p->chain);
	return error;
}

/*
 * Write every dirty page of the parts in place; or, without `really', only make them ready for that.
 */
static int
write_back(struct snapshot *s, struct rollback *rb, bool really)
{
	int error = 0;

	for (size_t i = 0; i < rb->n && error == 0; i++)
		if (rb->part[i].dirty != NULL)
			error = write_part(s, &rb->part[i], really);
	return error;
}

/* All is as the snapshot has it.  See to it that what is written from now on is on a list.  => still frozen */
static void
settle(struct snapshot *s, const struct part *p)
{
	vm_pindex_t lo = part_pindex(p, 0), hi = lo + (vm_pindex_t)atop(p->end - p->start);
	struct vm_object *o = p->chain.o;

	if (p->dirty == NULL || !p->listable || !chain_lock(&p->chain))
		return;
	if (!p->listed && o->wired_pages == 0)
		(void)vm_written_begin(o, p->chain.top, p->chain.shift, s->serial, lo, hi, true);
	else if (vm_written_covers(o, s->serial, lo, hi))
		vm_written_settle(o, lo, hi);
	chain_unlock(&p->chain);
}

/* What stayed writable is so again for everybody.  => maps locked */
static void
enter_hot(const struct part *p)
{
	struct vm_map_entry *e = vm_map_entry_at(p->map, p->start);
	uint32_t npages = (uint32_t)atop(p->end - p->start), run;

	if (p->dirty == NULL || !p->listed || e->needs_copy || !chain_lock(&p->chain))
		return;
	for (uint32_t i = next_dirty(p, 0); i < npages; i = next_dirty(p, i + run)) {
		for (run = 1; i + run < npages && is_dirty(p, i + run); run++)
			;
		chain_enter_hot(&p->chain, p->map, e, p->start + ((vm_offset_t)i << PAGE_SHIFT), run);
	}
	chain_unlock(&p->chain);
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
	rb->room = count_entries(s, set);
	rb->part = rb->few;
	if (rb->room > PARTS_FEW) {
		rb->bytes = rb->room * sizeof(struct part);
		rb->part = kmem_alloc(rb->bytes);
	}
	if (rb->part == NULL)
		return -ENOMEM;
	rb->alone = alone();
	atomic_store(&s->rolled, true);
	error = plan_all(s, set, rb);
	PROBE("rollback: looked");
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
	for (size_t i = 0; i < s->nranges && error == 0; i++) {
		vm_offset_t at = (vm_offset_t)s->range[i].addr;

		error = errno_of(vm_view_settle(maps_of(set, s->range[i].addr), at, at + s->range[i].size));
	}
	if (error == 0)
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
		for (size_t i = 0; i < rb->n && error == 0; i++)
			settle(s, &rb->part[i]);
	}
	vm_cut_thaw(&rb->frozen);

	lock_again(set);
	for (size_t i = 0; i < rb->n && !rb->alone; i++)
		enter_hot(&rb->part[i]);
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
		free_bits(&rb.part[i]);
	if (rb.bytes != 0 && rb.part != NULL)
		kmem_free(rb.part, rb.bytes);
	handle_put(&s->handle);
	if (error == 0)
		vm_count(v_rollbacks);
	return error;
}

void
snapshot_end_rollbacks(struct snapshot *s)
{
	for (size_t i = 0; i < s->pieces.n; i++) {
		struct vm_object *o = s->pieces.piece[i].object, *next;

		if (o == NULL)
			continue;
		for (vm_object_lock(o); (next = o->shadow) != NULL; o = next) {
			vm_object_lock(next);
			vm_object_unlock(o);
			if (next->written.snapshot == s->serial)
				vm_written_end(next);
		}
		vm_object_unlock(o);
	}
}
