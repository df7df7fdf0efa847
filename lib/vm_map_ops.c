/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What is done to ranges of a map: whole operations, each of which either happens or
 * changes nothing.
 *
 * The pattern: lock the map with the range mapped and still (vm_map_lock_range), check everything
 * that can be wrong, clip, change, simplify, unlock, and only then let go of objects, for
 * that may page out or take down a chain.
 */

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/probe.h"
#include "pmap.h"
#include "vm_fault.h"
#include "vm_map.h"
#include "vm_view.h"

#define FOREACH_ENTRY(e, map, s, end) \
	for ((e) = vm_map_entry_ge((map), (s)); (e) != NULL && entry_start(e) < (end); \
	    (e) = vm_map_entry_next(e))

static void
unlock(struct vm_map *map, vm_offset_t s, vm_offset_t e)
{
	vm_map_simplify(map, s, e);
	krwlock_write_unlock(&map->lock);
}

enum kern_return
vm_map_unmap(struct vm_map *map, vm_offset_t s, vm_offset_t e)
{
	enum kern_return result = KERN_SUCCESS;
	struct vm_reaper reaper = { 0 };

	(void)vm_map_lock_range(map, s, e, false);
	if (vm_map_is_held(map, s, e))
		result = KERN_BUSY;
	else if (vm_view_keep(map, s, e) != KERN_SUCCESS || !vm_map_clip(map, s, e))
		result = KERN_RESOURCE_SHORTAGE;
	if (result != KERN_SUCCESS) {
		unlock(map, s, e);
		return result;
	}
	vm_view_drop(map, s, e);
	vm_map_delete(map, s, e, &reaper);
	krwlock_write_unlock(&map->lock);
	vm_map_reap(&reaper);
	return KERN_SUCCESS;
}

/* Fault wired pages again, so that they are mapped with what the protection now allows. */
static void
refault_wired(struct vm_map *map, vm_offset_t s, vm_offset_t end)
{
	for (vm_offset_t va = s; va < end; va += PAGE_SIZE) {
		struct vm_map_entry *e;
		bool wired;

		krwlock_read(&map->lock);
		e = vm_map_entry_at(map, va);
		wired = e != NULL && e->wired_count != 0 && e->protection != VM_PROT_NONE;
		krwlock_read_unlock(&map->lock);
		/* A failure leaves a page that faults when it is touched. */
		if (wired)
			(void)vm_fault(map, va, VM_PROT_NONE, VM_FAULT_WIRE);
	}
}

enum kern_return
vm_map_protect(struct vm_map *map, vm_offset_t s, vm_offset_t end, vm_prot_t prot, bool set_max)
{
	enum kern_return result = vm_map_lock_range(map, s, end, true);
	struct vm_map_entry *e;
	bool wired = false, held;

	if (result != KERN_SUCCESS)
		return result;
	held = vm_map_is_held(map, s, end);
	FOREACH_ENTRY(e, map, s, end) {
		if (held && (e->protection & ~prot) != 0)
			result = KERN_BUSY;
		if (!set_max && (prot & ~e->max_protection) != 0)
			result = KERN_PROTECTION_FAILURE;
	}
	if (result == KERN_SUCCESS && !vm_map_clip(map, s, end))
		result = KERN_RESOURCE_SHORTAGE;
	if (result != KERN_SUCCESS) {
		unlock(map, s, end);
		return result;
	}
	FOREACH_ENTRY(e, map, s, end) {
		vm_prot_t old = e->protection;

		if (set_max)
			e->max_protection &= prot;
		e->protection = set_max ? old & e->max_protection : prot;
		if (old & ~e->protection)
			pmap_protect(map->pmap, entry_start(e), entry_end(e), e->protection, 0);
		if ((e->protection & ~old) && e->wired_count != 0)
			wired = true;
	}
	unlock(map, s, end);
	if (wired)
		refault_wired(map, s, end);
	return KERN_SUCCESS;
}

enum kern_return
vm_map_inherit(struct vm_map *map, vm_offset_t s, vm_offset_t end, enum vm_inherit inheritance)
{
	enum kern_return result = vm_map_lock_range(map, s, end, true);
	struct vm_map_entry *e;

	if (result != KERN_SUCCESS)
		return result;
	if (vm_map_clip(map, s, end))
		FOREACH_ENTRY(e, map, s, end)
			e->inheritance = (uint8_t)inheritance;
	else
		result = KERN_RESOURCE_SHORTAGE;
	unlock(map, s, end);
	return result;
}

enum kern_return
vm_map_advise(struct vm_map *map, vm_offset_t s, vm_offset_t end, enum vm_advice advice)
{
	enum kern_return result = vm_map_lock_range(map, s, end, true);
	struct vm_map_entry *e;

	if (result != KERN_SUCCESS)
		return result;
	if (vm_map_clip(map, s, end))
		FOREACH_ENTRY(e, map, s, end)
			e->advice = (uint8_t)advice;
	else
		result = KERN_RESOURCE_SHORTAGE;
	unlock(map, s, end);
	return result;
}

/*
 * Wiring, in two passes
 */

/* Take the wiring of [s, end) back; pages up to `done' were faulted.  => map write-locked */
static void
wire_undo(struct vm_map *map, vm_offset_t s, vm_offset_t end, vm_offset_t done)
{
	struct vm_map_entry *e;

	FOREACH_ENTRY(e, map, s, end) {
		e->in_transition = false;
		if (--e->wired_count == 0 && entry_start(e) <= done)
			vm_fault_unwire(map, e, entry_start(e), entry_end(e));
	}
}

enum kern_return
vm_map_wire(struct vm_map *map, vm_offset_t s, vm_offset_t end)
{
	enum kern_return result = vm_map_lock_range(map, s, end, true);
	struct vm_map_entry *e;
	vm_offset_t done = s;

	if (result != KERN_SUCCESS)
		return result;
	FOREACH_ENTRY(e, map, s, end)
		if (e->protection == VM_PROT_NONE)
			result = KERN_PROTECTION_FAILURE;
	if (result == KERN_SUCCESS && !vm_map_clip(map, s, end))
		result = KERN_RESOURCE_SHORTAGE;
	if (result != KERN_SUCCESS) {
		unlock(map, s, end);
		return result;
	}

	/* First pass: say that they are wired, so that faults see to it. */
	FOREACH_ENTRY(e, map, s, end) {
		e->wired_count++;
		e->in_transition = true;
	}
	krwlock_write_unlock(&map->lock);
	PROBE("vm_map_wire: between the passes");

	/* Second pass: fault them in.  Pages that were wired before cost nothing. */
	result = vm_fault_wire(map, s, end, &done);

	krwlock_write(&map->lock);
	if (result == KERN_SUCCESS)
		FOREACH_ENTRY(e, map, s, end)
			e->in_transition = false;
	else
		wire_undo(map, s, end, done);
	unlock(map, s, end);
	event_wake(map);
	return result;
}

enum kern_return
vm_map_unwire(struct vm_map *map, vm_offset_t s, vm_offset_t end, bool *was_wired)
{
	enum kern_return result = vm_map_lock_range(map, s, end, true);
	struct vm_map_entry *e;

	*was_wired = true;
	if (result != KERN_SUCCESS)
		return result;
	FOREACH_ENTRY(e, map, s, end)
		if (e->wired_count == 0)
			*was_wired = false;
	if (*was_wired && !vm_map_clip(map, s, end))
		result = KERN_RESOURCE_SHORTAGE;
	if (*was_wired && result == KERN_SUCCESS)
		FOREACH_ENTRY(e, map, s, end)
			if (--e->wired_count == 0)
				vm_fault_unwire(map, e, entry_start(e), entry_end(e));
	unlock(map, s, end);
	return result;
}

/*
 * Copies
 */

/* Is the entry the only one through which its object is seen and written? */
static bool
is_sole_mapping(const struct vm_map_entry *e)
{
	const struct vm_object *o = e->map.object;
	bool sole;

	krwlock_read(&vm_rmap_lock);
	sole = LIST_FIRST(&o->mappings) == &e->map && LIST_NEXT(&e->map, link) == NULL;
	krwlock_read_unlock(&vm_rmap_lock);
	return sole;
}

enum kern_return
vm_map_copy_object(struct vm_map *map, struct vm_map_entry *e, bool symmetric, struct vm_cut *cut,
    struct vm_object **object, vm_pindex_t *offset)
{
	vm_pindex_t npages = (vm_pindex_t)atop(entry_end(e) - entry_start(e)), lo;
	struct vm_object *o = e->map.object;
	enum kern_return result;

	*object = NULL;
	*offset = 0;
	if (o == NULL)
		return KERN_SUCCESS;
	*offset = e->map.offset;
	if (e->needs_copy) {
		vm_object_reference(o);
		*object = o;
		return KERN_SUCCESS;
	}
	if (e->wired_count != 0 && symmetric && cut == NULL) {
		*object = vm_object_allocate(npages, true);
		if (*object == NULL)
			return KERN_RESOURCE_SHORTAGE;
		result = vm_fault_copy_entry(e, *object);
		if (result != KERN_SUCCESS)
			vm_object_deallocate(*object);
		*offset = 0;
		return result;
	}
	if (symmetric && e->wired_count == 0 && !e->shared && o->internal && is_sole_mapping(e) &&
	    !vm_map_is_held(map, entry_start(e), entry_end(e))) {
		vm_object_lock(o);
		o->ref_count++;
		e->needs_copy = true;
		vm_object_keep_given(o);
		vm_object_protect(o, 0, o->size, VM_PROT_READ | VM_PROT_EXECUTE, PMAP_CUT);
		vm_object_unlock(o);
		*object = o;
		return KERN_SUCCESS;
	}
	result = vm_object_copy(o, e->map.offset, e->map.offset + npages, cut, object, &lo);
	if (result == KERN_SUCCESS)
		*offset = e->map.offset - lo;
	return result;
}

/* Copy page by page, where replacing what dst maps would not do.  Nothing locked. */
static enum kern_return
copy_pages(struct vm_map *dst, vm_offset_t d, struct vm_map *src, vm_offset_t s, vm_size_t size)
{
	char buf[PAGE_SIZE];
	enum kern_return result = KERN_SUCCESS;

	for (vm_size_t off = 0; off < size && result == KERN_SUCCESS; off += PAGE_SIZE) {
		result = vm_fault_io(src, s + off, 0, buf, PAGE_SIZE, false, 0);
		if (result == KERN_SUCCESS)
			result = vm_fault_io(dst, d + off, 0, buf, PAGE_SIZE, true, 0);
	}
	return result;
}

/* Lock both ranges, lower map first.  => on failure nothing is locked */
static enum kern_return
lock_both(struct vm_map *dst, vm_offset_t d, struct vm_map *src, vm_offset_t s, vm_size_t size)
{
	bool dst_first = dst->base <= src->base;
	struct vm_map *a = dst_first ? dst : src, *b = dst_first ? src : dst;
	vm_offset_t at = dst_first ? d : s, bt = dst_first ? s : d;

	for (;;) {
		struct vm_map_entry *e;
		enum kern_return result = vm_map_lock_range(a, at, at + size, true);
		uint32_t ticket;

		if (result != KERN_SUCCESS)
			return result;
		if (a != b)
			krwlock_write(&b->lock);
		if (!vm_map_is_mapped(b, bt, bt + size)) {
			if (a != b)
				krwlock_write_unlock(&b->lock);
			krwlock_write_unlock(&a->lock);
			return KERN_INVALID_ADDRESS;
		}
		ticket = event_prepare(b);
		FOREACH_ENTRY(e, b, bt, bt + size)
			if (e->in_transition)
				break;
		if (e == NULL || entry_start(e) >= bt + size) {
			result = vm_view_settle(b, bt, bt + size);
			if (result == KERN_SUCCESS)
				return result;
		}
		if (a != b)
			krwlock_write_unlock(&b->lock);
		krwlock_write_unlock(&a->lock);
		if (result != KERN_SUCCESS)
			return result;
		(void)event_wait(b, ticket, EVENT_FOREVER);
	}
}

static void
unlock_both(struct vm_map *dst, vm_offset_t d, struct vm_map *src, vm_offset_t s, vm_size_t size)
{
	unlock(dst, d, d + size);
	if (src != dst)
		unlock(src, s, s + size);
}

/*
 * Let dst entries of [d, d + size) show copies of what src has at the same distance.  Pages of dst are
 * clipped to src's pieces as we go.  => both locked, clipped; *upto: how far it got
 */
static enum kern_return
copy_entries(struct vm_map *dst, vm_offset_t d, struct vm_map *src, vm_offset_t s, vm_size_t size,
    struct vm_reaper *reaper)
{
	enum kern_return result;
	vm_size_t off, len;

	for (off = 0; off < size; off += len) {
		struct vm_map_entry *from = vm_map_entry_at(src, s + off), *to = vm_map_entry_at(dst, d + off);
		struct vm_object *object;
		vm_pindex_t offset, skip;

		len = MIN(entry_end(from) - (s + off), entry_end(to) - (d + off));
		if (!vm_map_clip(dst, d + off, d + off + len) || !vm_map_reserve(reaper, 1))
			return KERN_RESOURCE_SHORTAGE;
		to = vm_map_entry_at(dst, d + off);
		from = vm_map_entry_at(src, s + off);
		skip = (vm_pindex_t)atop(s + off - entry_start(from));
		result = vm_map_copy_object(src, from, true, NULL, &object, &offset);
		if (result != KERN_SUCCESS)
			return result;
		vm_map_replace(dst, to, object, offset + (object != NULL ? skip : 0), object != NULL,
		    reaper);
	}
	return KERN_SUCCESS;
}

enum kern_return
vm_map_copy(struct vm_map *dst, vm_offset_t d, struct vm_map *src, vm_offset_t s, vm_size_t size)
{
	enum kern_return result = lock_both(dst, d, src, s, size);
	struct vm_reaper reaper = { 0 };
	struct vm_map_entry *e;
	bool by_page = false;

	if (result != KERN_SUCCESS)
		return result;
	FOREACH_ENTRY(e, src, s, s + size)
		if (!(e->protection & VM_PROT_READ))
			result = KERN_PROTECTION_FAILURE;
	FOREACH_ENTRY(e, dst, d, d + size) {
		if (!(e->protection & VM_PROT_WRITE))
			result = KERN_PROTECTION_FAILURE;
		by_page = by_page || e->shared || e->wired_count != 0;
	}
	by_page = by_page || vm_map_is_held(dst, d, d + size);
	if (result == KERN_SUCCESS && !by_page) {
		if (vm_map_clip(src, s, s + size) && vm_map_clip(dst, d, d + size))
			result = copy_entries(dst, d, src, s, size, &reaper);
		else
			result = KERN_RESOURCE_SHORTAGE;
	}
	unlock_both(dst, d, src, s, size);
	vm_map_reap(&reaper);
	if (result == KERN_SUCCESS && by_page)
		result = copy_pages(dst, d, src, s, size);
	return result;
}

/* Give the child what it inherits of one entry.  => both write-locked */
static enum kern_return
fork_entry(struct vm_map *parent, struct vm_map_entry *e, struct vm_map *child, struct vm_cut *cut,
    struct vm_reaper *reaper)
{
	vm_offset_t at = entry_start(e) - parent->base + child->base;
	struct vm_map_attr attr = {
		.protection = e->protection, .max_protection = e->max_protection,
		.inheritance = e->inheritance, .advice = e->advice,
	};
	struct vm_object *object = NULL;
	enum kern_return result;
	vm_pindex_t offset = 0;

	if (e->inheritance == VM_INHERIT_SHARE) {
		if (!vm_map_entry_own(e))
			return KERN_RESOURCE_SHORTAGE;
		object = e->map.object;
		offset = e->map.offset;
		vm_object_reference(object);
		e->shared = attr.shared = true;
	} else {
		result = vm_map_copy_object(parent, e, true, cut, &object, &offset);
		if (result != KERN_SUCCESS)
			return result;
		attr.needs_copy = object != NULL;
	}
	if (vm_map_insert(child, at, at + (entry_end(e) - entry_start(e)), object, offset, &attr))
		return KERN_SUCCESS;
	reaper->orphan = object;
	return KERN_RESOURCE_SHORTAGE;
}

struct vm_map *
vm_map_fork(struct vm_map *parent)
{
	struct vm_map *child = vm_map_create(parent->end - parent->base);
	enum kern_return result = KERN_SUCCESS;
	struct vm_reaper reaper = { 0 };
	struct vm_cut cut;
	struct vm_map_entry *e;

	if (child == NULL)
		return NULL;
	vm_cut_begin(&cut);
	(void)vm_map_lock_range(parent, parent->base, parent->end, false);
	result = vm_view_settle(parent, parent->base, parent->end);
	krwlock_write(&child->lock);
	for (e = vm_map_entry_ge(parent, parent->base); e != NULL && result == KERN_SUCCESS;
	    e = vm_map_entry_next(e))
		if (e->inheritance != VM_INHERIT_NONE)
			result = fork_entry(parent, e, child, &cut, &reaper);
	vm_cut_collect(&cut);
	krwlock_write_unlock(&child->lock);
	krwlock_write_unlock(&parent->lock);
	PROBE("vm_map_fork: before the end of the cut");
	vm_cut_thaw(&cut);
	vm_cut_end(&cut);
	vm_map_reap(&reaper);
	if (result != KERN_SUCCESS) {
		vm_map_clear(child);
		vm_map_destroy(child);
		return NULL;
	}
	return child;
}
