/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Maps and entries: lookup, clipping, insertion, removal.
 *
 * vm_map_lookup() is where a write meets a needs_copy entry and where memory that was
 * never touched gets its object: both change the entry, so the read lock is upgraded; if
 * another reader is upgrading already, the read lock is lost and all begins again.
 */

#include <string.h>
#include <sys/mman.h>

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/probe.h"
#include "kern/slab.h"
#include "kern/sys.h"
#include "kern/valgrind.h"
#include "pmap.h"
#include "vm_fault.h"
#include "vm_map.h"
#include "vm_pin.h"
#include "vm_view.h"

#define ALIGN_2M	((vm_size_t)1 << 21)
#define ALIGN_1G	((vm_size_t)1 << 30)
#define LOST_SHARE	128		/* of a hole: what alignment may leave unused before a range */

static struct slab entry_slab;

void
vm_map_init(void)
{
	slab_init(&entry_slab, "vm_map_entry", sizeof(struct vm_map_entry), 8);
}

void
vm_map_fini(void)
{
	slab_fini(&entry_slab);
}

uint64_t
vm_map_entry_count(void)
{
	uint64_t n;

	kmutex_lock(&entry_slab.lock);
	n = entry_slab.used;
	kmutex_unlock(&entry_slab.lock);
	return n;
}

/*
 * Finding
 */

static inline struct vm_map_entry *
entry_of(struct avl_node *n)
{
	return n != NULL ? container_of(n, struct vm_map_entry, node) : NULL;
}

struct vm_map_entry *
vm_map_entry_at(const struct vm_map *map, vm_offset_t va)
{
	struct vm_map_entry *e = entry_of(avl_find_le(&map->entries, va));

	return e != NULL && va < entry_end(e) ? e : NULL;
}

struct vm_map_entry *
vm_map_entry_next(const struct vm_map_entry *e)
{
	return entry_of(avl_next(&e->node));
}

struct vm_map_entry *
vm_map_entry_ge(const struct vm_map *map, vm_offset_t va)
{
	struct vm_map_entry *e = vm_map_entry_at(map, va);

	return e != NULL ? e : entry_of(avl_find_ge(&map->entries, va));
}

bool
vm_map_is_mapped(const struct vm_map *map, vm_offset_t s, vm_offset_t e)
{
	struct vm_map_entry *entry = vm_map_entry_at(map, s);

	while (entry != NULL && entry_start(entry) <= s) {
		s = entry_end(entry);
		if (s >= e)
			return true;
		entry = vm_map_entry_next(entry);
	}
	return false;
}

bool
vm_map_is_free(const struct vm_map *map, vm_offset_t s, vm_offset_t e)
{
	struct vm_map_entry *entry = vm_map_entry_ge(map, s);

	return entry == NULL || entry_start(entry) >= e;
}

bool
vm_map_is_held(struct vm_map *map, vm_offset_t s, vm_offset_t e)
{
	vm_pindex_t i = (vm_pindex_t)atop(s - map->base);
	bool held;

	kmutex_lock(&map->hold_lock);
	held = radix_next(&map->holds, &i) != NULL && i < atop(e - map->base);
	kmutex_unlock(&map->hold_lock);
	return held || vm_pin_is_in(s, e);
}

/* The first hole that takes size bytes, aligned, without much being lost to the alignment; 0: none. */
static vm_offset_t
find_aligned(struct vm_map *map, vm_size_t size, vm_size_t align)
{
	vm_offset_t hole = map->first_free;
	struct vm_map_entry *e;

	for (e = vm_map_entry_ge(map, hole);; e = vm_map_entry_next(e)) {
		vm_offset_t limit = e != NULL ? entry_start(e) : map->end;
		vm_offset_t va = (hole + align - 1) & ~(align - 1);

		/* va < hole: it wrapped around. */
		if (hole <= va && va < limit && limit - va >= size &&
		    va - hole <= (limit - hole) / LOST_SHARE)
			return va;
		if (e == NULL)
			return 0;
		hole = entry_end(e);
	}
}

/*
 * Alignment saves leaves of the pmap and lets homes be whole, but a range that is as large as what it
 * is to hold must hold it: what is large is aligned where that costs next to nothing.
 */
vm_offset_t
vm_map_find(struct vm_map *map, vm_size_t size)
{
	vm_offset_t va = 0;

	if (size >= ALIGN_1G)
		va = find_aligned(map, size, ALIGN_1G);
	if (va == 0 && size >= ALIGN_2M)
		va = find_aligned(map, size, ALIGN_2M);
	return va != 0 ? va : find_aligned(map, size, PAGE_SIZE);
}

enum kern_return
vm_map_lock_range(struct vm_map *map, vm_offset_t s, vm_offset_t end, bool whole)
{
	for (;;) {
		struct vm_map_entry *e;
		uint32_t ticket = 0;

		krwlock_write(&map->lock);
		if (whole && !vm_map_is_mapped(map, s, end)) {
			krwlock_write_unlock(&map->lock);
			return KERN_INVALID_ADDRESS;
		}
		for (e = vm_map_entry_ge(map, s); e != NULL && entry_start(e) < end;
		    e = vm_map_entry_next(e))
			if (e->in_transition) {
				ticket = event_prepare(map);
				break;
			}
		if (e == NULL || entry_start(e) >= end) {
			enum kern_return result = whole ? vm_view_settle(map, s, end) : KERN_SUCCESS;

			if (result != KERN_SUCCESS)
				krwlock_write_unlock(&map->lock);
			return result;
		}
		krwlock_write_unlock(&map->lock);
		(void)event_wait(map, ticket, EVENT_FOREVER);
	}
}

bool
vm_map_entry_own(struct vm_map_entry *e)
{
	struct vm_object *o = e->map.object;

	if (o == NULL) {
		o = vm_object_allocate((vm_pindex_t)atop(entry_end(e) - entry_start(e)), true);
		if (o == NULL)
			return false;
		vm_mapping_set(&e->map, o, 0);
	} else if (e->needs_copy && !vm_object_shadow(&e->map)) {
		return false;
	}
	e->needs_copy = false;
	return true;
}

enum kern_return
vm_map_lookup(struct vm_map *map, vm_offset_t va, vm_prot_t fault_type, bool force,
    struct vm_map_entry **entry, struct vm_object **object, vm_pindex_t *pindex, vm_prot_t *prot, bool *wired)
{
	struct vm_map_entry *e;

	krwlock_read(&map->lock);
	for (;;) {
		e = vm_map_entry_at(map, va);
		if (e == NULL) {
			krwlock_read_unlock(&map->lock);
			return KERN_INVALID_ADDRESS;
		}
		*prot = force ? VM_PROT_ALL : e->protection;
		*wired = e->wired_count != 0;
		if ((fault_type & ~*prot) != 0 || *prot == VM_PROT_NONE) {
			krwlock_read_unlock(&map->lock);
			return KERN_PROTECTION_FAILURE;
		}
		if (*wired)
			fault_type = *prot;
		if (e->map.object == NULL ||
		    (e->needs_copy && (fault_type & VM_PROT_WRITE))) {
			if (!krwlock_upgrade(&map->lock)) {
				krwlock_read(&map->lock);
				continue;
			}
			if (!vm_map_entry_own(e)) {
				krwlock_write_unlock(&map->lock);
				return KERN_RESOURCE_SHORTAGE;
			}
			krwlock_downgrade(&map->lock);
		}
		if (e->needs_copy)
			*prot &= (vm_prot_t)~VM_PROT_WRITE;
		*entry = e;
		*object = e->map.object;
		*pindex = entry_pindex(e, va);
		return KERN_SUCCESS;
	}
}

/*
 * Entries
 */

static void
entry_link(struct vm_map *map, struct vm_map_entry *e)
{
	e->node.key = entry_start(e);
	avl_insert(&map->entries, &e->node);
	map->nentries++;
}

static void
entry_unlink(struct vm_map *map, struct vm_map_entry *e)
{
	avl_remove(&map->entries, &e->node);
	map->nentries--;
}

/* Split e at va; e keeps the front. */
static bool
clip_at(struct vm_map *map, vm_offset_t va)
{
	struct vm_map_entry *e = vm_map_entry_at(map, va), *back;

	if (e == NULL || entry_start(e) == va)
		return true;
	KASSERT(!e->in_transition);
	back = slab_alloc(&entry_slab);
	if (back == NULL)
		return false;
	back->map = (struct vm_mapping){ .pmap = map->pmap, .start = va, .end = entry_end(e) };
	back->protection = e->protection;
	back->max_protection = e->max_protection;
	back->inheritance = e->inheritance;
	back->advice = e->advice;
	back->needs_copy = e->needs_copy;
	back->shared = e->shared;
	back->wired_count = e->wired_count;
	if (e->map.object != NULL) {
		vm_object_reference(e->map.object);
		vm_mapping_set(&back->map, e->map.object, entry_pindex(e, va));
	}
	vm_mapping_resize(&e->map, entry_start(e), va, e->map.offset);
	entry_link(map, back);
	return true;
}

bool
vm_map_clip(struct vm_map *map, vm_offset_t s, vm_offset_t e)
{
	KASSERT(krwlock_write_held(&map->lock));
	return clip_at(map, s) && clip_at(map, e);
}

static bool
alike(const struct vm_map_entry *a, const struct vm_map_entry *b)
{
	return entry_end(a) == entry_start(b) && a->map.object == b->map.object &&
	    (a->map.object == NULL || entry_pindex(a, entry_end(a)) == b->map.offset) &&
	    a->protection == b->protection && a->max_protection == b->max_protection &&
	    a->inheritance == b->inheritance && a->advice == b->advice &&
	    a->needs_copy == b->needs_copy && a->shared == b->shared &&
	    a->wired_count == b->wired_count && !a->in_transition && !b->in_transition;
}

void
vm_map_simplify(struct vm_map *map, vm_offset_t s, vm_offset_t end)
{
	struct vm_map_entry *e = vm_map_entry_ge(map, s > map->base ? s - 1 : s), *next;

	KASSERT(krwlock_write_held(&map->lock));
	for (; e != NULL && entry_start(e) <= end; e = next) {
		next = vm_map_entry_next(e);
		if (next == NULL || !alike(e, next))
			continue;
		entry_unlink(map, next);
		/*
		 * First the one grows, then the other goes: a page that is taken away from whoever maps it
		 * must find this mapping all the time.
		 */
		vm_mapping_resize(&e->map, entry_start(e), next->map.end, e->map.offset);
		PROBE("vm_map_simplify: joining");
		if (next->map.object != NULL) {
			struct vm_object *o = next->map.object;

			vm_mapping_set(&next->map, NULL, 0);
			vm_object_lock(o);	/* e has a reference too, so this is not the last */
			KASSERT(o->ref_count > 1);
			o->ref_count--;
			vm_object_unlock(o);
		}
		slab_free(&entry_slab, next);
		next = e;
	}
}

bool
vm_map_insert(struct vm_map *map, vm_offset_t s, vm_offset_t end, struct vm_object *object,
    vm_pindex_t offset, const struct vm_map_attr *attr)
{
	struct vm_map_entry *e = slab_alloc(&entry_slab);

	KASSERT(krwlock_write_held(&map->lock));
	KASSERT_SLOW(vm_map_is_free(map, s, end));
	if (e == NULL)
		return false;
	e->map = (struct vm_mapping){ .pmap = map->pmap, .start = s, .end = end };
	e->protection = attr->protection;
	e->max_protection = attr->max_protection;
	e->inheritance = attr->inheritance;
	e->advice = attr->advice;
	e->needs_copy = attr->needs_copy;
	e->shared = attr->shared;
	if (object != NULL)
		vm_mapping_set(&e->map, object, offset);
	entry_link(map, e);
	if (map->first_free == s)
		map->first_free = end;
	return true;
}

/*
 * Removing
 */

static void
reap_later(struct vm_reaper *reaper, struct vm_map_entry *e)
{
	/* The node is out of the tree: its link is free to chain by. */
	e->node.parent = reaper->entries != NULL ? &reaper->entries->node : NULL;
	reaper->entries = e;
}

void
vm_map_reap(struct vm_reaper *reaper)
{
	struct vm_map_entry *e;

	while ((e = reaper->entries) != NULL) {
		struct vm_object *o = e->map.object;

		reaper->entries = entry_of(e->node.parent);
		if (o != NULL) {
			vm_mapping_set(&e->map, NULL, 0);
			vm_object_deallocate(o);
		}
		slab_free(&entry_slab, e);
	}
	while ((e = reaper->spare) != NULL) {
		reaper->spare = entry_of(e->node.parent);
		slab_free(&entry_slab, e);
	}
	if (reaper->orphan != NULL)
		vm_object_deallocate(reaper->orphan);
	reaper->orphan = NULL;
}

void
vm_map_delete(struct vm_map *map, vm_offset_t s, vm_offset_t end, struct vm_reaper *reaper)
{
	struct vm_map_entry *e, *next;

	KASSERT(krwlock_write_held(&map->lock));
	for (e = vm_map_entry_ge(map, s); e != NULL && entry_start(e) < end; e = next) {
		KASSERT(entry_start(e) >= s && entry_end(e) <= end);
		next = vm_map_entry_next(e);
		if (e->wired_count != 0)
			vm_fault_unwire(map, e, entry_start(e), entry_end(e));
		entry_unlink(map, e);
		reap_later(reaper, e);
	}
	if (reaper->entries != NULL)
		pmap_remove(map->pmap, s, end);
	/*
	 * The reverse map must not find these any more: their addresses may be given
	 * out again before the reaper comes.
	 */
	for (e = reaper->entries; e != NULL; e = entry_of(e->node.parent))
		if (entry_start(e) >= s && entry_end(e) <= end && entry_start(e) < entry_end(e)) {
			if (e->map.object != NULL)
				vm_object_page_remove(e->map.object, &e->map, e->map.offset,
				    entry_pindex(e, entry_end(e)));
			vm_mapping_resize(&e->map, entry_start(e), entry_start(e), e->map.offset);
		}
	map->first_free = MIN(map->first_free, s);
}

bool
vm_map_reserve(struct vm_reaper *reaper, uint32_t n)
{
	for (; n > 0; n--) {
		struct vm_map_entry *e = slab_alloc(&entry_slab);

		if (e == NULL)
			return false;
		e->node.parent = reaper->spare != NULL ? &reaper->spare->node : NULL;
		reaper->spare = e;
	}
	return true;
}

void
vm_map_replace(struct vm_map *map, struct vm_map_entry *e, struct vm_object *object,
    vm_pindex_t offset, bool needs_copy, struct vm_reaper *reaper)
{
	struct vm_map_entry *old = reaper->spare;

	KASSERT(krwlock_write_held(&map->lock));
	KASSERT(e->wired_count == 0 && !e->shared);
	KASSERT(old != NULL);
	reaper->spare = entry_of(old->node.parent);
	pmap_remove(map->pmap, entry_start(e), entry_end(e));
	if (e->map.object != NULL)
		vm_object_page_remove(e->map.object, &e->map, e->map.offset,
		    entry_pindex(e, entry_end(e)));
	/* `old' carries the old object's reference away, mapping nothing. */
	old->map = (struct vm_mapping){ .pmap = map->pmap, .start = entry_start(e), .end = entry_start(e) };
	if (e->map.object != NULL)
		vm_mapping_set(&old->map, e->map.object, e->map.offset);
	vm_mapping_set(&e->map, object, offset);
	e->needs_copy = needs_copy;
	reap_later(reaper, old);
}

/*
 * Life
 */

struct vm_map *
vm_map_create(vm_size_t size)
{
	vm_size_t align = size >= 2 * ALIGN_1G ? ALIGN_1G : size >= 2 * ALIGN_2M ? ALIGN_2M : PAGE_SIZE;
	vm_size_t span = size + align - PAGE_SIZE;
	struct vm_map *map;
	vm_offset_t base;
	void *p;

	if (span < size)
		return NULL;
	map = kmem_alloc(sizeof(*map));
	if (map == NULL)
		return NULL;
	p = sys_mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_is_err(p)) {
		kmem_free(map, sizeof(*map));
		return NULL;
	}
	base = ((vm_offset_t)p + align - 1) & ~(align - 1);
	if (base > (vm_offset_t)p)
		(void)sys_munmap(p, base - (vm_offset_t)p);
	if (base + size < (vm_offset_t)p + span)
		(void)sys_munmap((void *)(base + size), (vm_offset_t)p + span - (base + size));
	map->pmap = pmap_create(base, size);
	if (map->pmap == NULL) {
		(void)sys_munmap((void *)base, size);
		kmem_free(map, sizeof(*map));
		return NULL;
	}
	krwlock_init(&map->lock, RANK_MAP);
	kmutex_init(&map->hold_lock, RANK_HOLDS);
	map->base = map->first_free = base;
	map->end = base + size;
	valgrind_manage(base, size, true);
	return map;
}

void
vm_map_clear(struct vm_map *map)
{
	struct vm_reaper reaper = { 0 };

	(void)vm_map_lock_range(map, map->base, map->end, false);
	map->dead = true;
	/* Whoever has a copy of it counts on what is in its views. */
	while (vm_view_keep(map, map->base, map->end) != KERN_SUCCESS)
		sys_yield();
	vm_view_drop(map, map->base, map->end);
	vm_fault_release_holds(map);
	vm_map_delete(map, map->base, map->end, &reaper);
	krwlock_write_unlock(&map->lock);
	vm_map_reap(&reaper);
}

void
vm_map_destroy(struct vm_map *map)
{
	KASSERT(map->dead && map->nentries == 0);
	pmap_destroy(map->pmap);
	valgrind_manage(map->base, map->end - map->base, false);
	(void)sys_munmap((void *)map->base, map->end - map->base);
	kmem_free(map, sizeof(*map));
}
