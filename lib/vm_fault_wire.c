/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Wiring: faults that are taken before they happen, and the pages kept.
 *
 * A pte has its wired bit as long as its entry is wired or its page is held; the page counts the
 * ptes that wire it.  The count of holds and the wired bit change together under
 * map->hold_lock, so that the last release of a page and a new hold of it cannot
 * pass each other unseen.
 */

#include "kern/assert.h"
#include "kern/probe.h"
#include "kern/slab.h"
#include "pmap.h"
#include "vm_fault.h"
#include "vm_map.h"
#include "vm_meter.h"

struct hold {
	uint32_t count;
};

static struct slab hold_slab;

void
vm_fault_init(void)
{
	slab_init(&hold_slab, "hold", sizeof(struct hold), 8);
}

void
vm_fault_fini(void)
{
	slab_fini(&hold_slab);
}

enum kern_return
vm_fault_wire(struct vm_map *map, vm_offset_t s, vm_offset_t e, vm_offset_t *done)
{
	enum kern_return result = KERN_SUCCESS;

	for (*done = s; *done < e && result == KERN_SUCCESS; )
		if ((result = vm_fault(map, *done, VM_PROT_NONE, VM_FAULT_WIRE)) == KERN_SUCCESS)
			*done += PAGE_SIZE;
	return result;
}

/* The page with that frame, down the chain from (o, pindex); its object is locked.  Null: not there. */
static struct vm_page *
find_frame(struct vm_object *o, vm_pindex_t pindex, vm_pfn_t pfn)
{
	vm_object_lock(o);
	for (;;) {
		struct vm_page *m = vm_page_lookup(o, pindex);
		struct vm_object *next = o->shadow;

		if (m != NULL && (pfn == 0 ? !(m->flags & PG_FAKE) : m->pfn == pfn))
			return m;
		if (next == NULL) {
			vm_object_unlock(o);
			return NULL;
		}
		pindex += o->shadow_offset;
		vm_object_lock(next);
		vm_object_unlock(o);
		o = next;
	}
}

/* => map locked, hold_lock held */
static void
unwire_page(struct vm_map *map, struct vm_map_entry *e, vm_offset_t va)
{
	for (;;) {
		pt_entry_t pte = pmap_extract(map->pmap, va);
		struct vm_page *m;

		if (!(pte & PTE_WIRED))
			return;
		PROBE("unwire_page: before finding the page");
		m = find_frame(e->map.object, entry_pindex(e, va), PTE_PFN(pte));
		if (m == NULL)
			continue;
		/*
		 * Another page may have taken this one's place, and its wiring, before we had the lock;
		 * with it, none can.
		 */
		if (pmap_extract(map->pmap, va) == pte) {
			pmap_change_wiring(map->pmap, va, false);
			vm_page_unwire(m);
			vm_object_unlock(m->object);
			return;
		}
		vm_object_unlock(m->object);
	}
}

void
vm_fault_unwire(struct vm_map *map, struct vm_map_entry *e, vm_offset_t s, vm_offset_t end)
{
	for (vm_offset_t va = s; va < end; va += PAGE_SIZE) {
		kmutex_lock(&map->hold_lock);
		if (radix_lookup(&map->holds, (vm_pindex_t)atop(va - map->base)) == NULL)
			unwire_page(map, e, va);
		kmutex_unlock(&map->hold_lock);
	}
}

/* One hold less.  false: there was none. */
static bool
release(struct vm_map *map, vm_offset_t va)
{
	vm_pindex_t i = (vm_pindex_t)atop(va - map->base);
	struct vm_map_entry *e;
	struct hold *h;

	krwlock_read(&map->lock);
	e = vm_map_entry_at(map, va);
	kmutex_lock(&map->hold_lock);
	h = radix_lookup(&map->holds, i);
	if (h != NULL && --h->count == 0) {
		(void)radix_remove(&map->holds, i);
		slab_free(&hold_slab, h);
		/* A held page is not unmapped, so the entry is there. */
		if (e->wired_count == 0 && e->map.object != NULL)
			unwire_page(map, e, va);
	}
	kmutex_unlock(&map->hold_lock);
	krwlock_read_unlock(&map->lock);
	return h != NULL;
}

static enum kern_return
hold(struct vm_map *map, vm_offset_t va, vm_prot_t prot)
{
	enum kern_return result = KERN_SUCCESS;
	struct hold *h;

	krwlock_read(&map->lock);
	if (vm_map_entry_at(map, va) == NULL) {
		krwlock_read_unlock(&map->lock);
		return KERN_INVALID_ADDRESS;
	}
	kmutex_lock(&map->hold_lock);
	h = radix_lookup(&map->holds, (vm_pindex_t)atop(va - map->base));
	if (h == NULL && (h = slab_alloc(&hold_slab)) != NULL &&
	    radix_insert(&map->holds, (vm_pindex_t)atop(va - map->base), h) != 0) {
		slab_free(&hold_slab, h);
		h = NULL;
	}
	if (h != NULL)
		h->count++;
	else
		result = KERN_RESOURCE_SHORTAGE;
	kmutex_unlock(&map->hold_lock);
	krwlock_read_unlock(&map->lock);
	if (result != KERN_SUCCESS)
		return result;
	result = vm_fault(map, va, prot, VM_FAULT_WIRE);
	if (result != KERN_SUCCESS)
		(void)release(map, va);
	return result;
}

enum kern_return
vm_fault_hold(struct vm_map *map, vm_offset_t s, vm_offset_t e, vm_prot_t prot)
{
	enum kern_return result = KERN_SUCCESS;
	vm_offset_t va;

	for (va = s; va < e && result == KERN_SUCCESS; va += PAGE_SIZE) {
		/* Many at once first: wiring what is mapped already takes no call of the kernel. */
		if ((prot & ~(pmap_extract(map->pmap, va) & PTE_PROT)) != 0)
			result = vm_fault_ahead(map, va, prot, (uint32_t)MIN(atop(e - va), UINT32_MAX));
		if (result == KERN_SUCCESS)
			result = hold(map, va, prot);
	}
	if (result != KERN_SUCCESS)
		for (va -= PAGE_SIZE; va > s; va -= PAGE_SIZE)
			(void)release(map, va - PAGE_SIZE);
	return result;
}

bool
vm_fault_release(struct vm_map *map, vm_offset_t s, vm_offset_t e)
{
	vm_offset_t va;
	bool held = true;

	/* All or nothing. */
	kmutex_lock(&map->hold_lock);
	for (va = s; va < e && held; va += PAGE_SIZE)
		held = radix_lookup(&map->holds, (vm_pindex_t)atop(va - map->base)) != NULL;
	kmutex_unlock(&map->hold_lock);
	for (va = s; held && va < e; va += PAGE_SIZE)
		held = release(map, va);
	return held;
}

void
vm_fault_release_holds(struct vm_map *map)
{
	vm_pindex_t i = 0;
	struct hold *h;

	KASSERT(krwlock_write_held(&map->lock));
	kmutex_lock(&map->hold_lock);
	for (; (h = radix_next(&map->holds, &i)) != NULL; i++) {
		vm_offset_t va = map->base + ((vm_offset_t)i << PAGE_SHIFT);
		struct vm_map_entry *e = vm_map_entry_at(map, va);

		(void)radix_remove(&map->holds, i);
		slab_free(&hold_slab, h);
		if (e->wired_count == 0 && e->map.object != NULL)
			unwire_page(map, e, va);
	}
	kmutex_unlock(&map->hold_lock);
}

enum kern_return
vm_fault_copy_entry(struct vm_map_entry *src, struct vm_object *object)
{
	for (vm_pindex_t i = 0; i < object->size; i++) {
		struct vm_page *from, *m;

		/* The new object is nobody else's yet; it comes before all others in the lock order. */
		vm_object_lock(object);
		m = vm_page_alloc(object, i, PHYSMEM_OVERWRITE);
		if (m == NULL) {
			vm_object_unlock(object);
			return KERN_RESOURCE_SHORTAGE;
		}
		/* The page is wired, so it is in memory, though not always in the first object. */
		from = find_frame(src->map.object, src->map.offset + i, 0);
		KASSERT(from != NULL);
		physmem_copy(from->pfn, m->pfn, 1);
		vm_object_unlock(from->object);
		m->flags = (uint16_t)((m->flags & ~PG_FAKE) | PG_MODIFIED);
		vm_page_activate(m);
		vm_page_wakeup(m);
		vm_object_unlock(object);
	}
	return KERN_SUCCESS;
}
