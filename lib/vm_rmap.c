/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The reverse map: from a page to everywhere it may be mapped.
 *
 * It is kept for objects, not for pages: an object knows the map entries that
 * name it and the objects that shadow it, so whoever can see a page of object B is
 * found by walking the tree of shadows above B, with the page's index shifted by
 * each shadow_offset on the way.
 *
 *		B <- S1 <- S3		pages of B show through S1, S2 and S3
 *		  \- S2			(writable only in mappings of B itself)
 *
 * The walk asks every pmap whether it really maps that frame there; it is allowed to
 * visit places where a page of an upper object hides B's, for those do not map
 * B's frame.  vm_rmap_lock, held for reading, keeps the tree still.  The
 * parent's link and each child's shadow_offset make the walk iterative: it runs in
 * the fault handler, where stack is short.
 *
 * An object's own lock does not keep the tree still: a mapping may get a shadow, and so move up to a new child, while
 * the object is locked.  What is asked of the tree is true only until vm_rmap_lock is let go.
 */

#include "kern/assert.h"
#include "kern/probe.h"
#include "pmap.h"
#include "vm_object.h"

struct krwlock vm_rmap_lock;

void
vm_mapping_set(struct vm_mapping *map, struct vm_object *object, vm_pindex_t offset)
{
	krwlock_write(&vm_rmap_lock);
	if (map->object != NULL)
		LIST_REMOVE(map, link);
	map->object = object;
	map->offset = offset;
	if (object != NULL)
		LIST_INSERT_HEAD(&object->mappings, map, link);
	krwlock_write_unlock(&vm_rmap_lock);
}

void
vm_mapping_resize(struct vm_mapping *map, vm_offset_t start, vm_offset_t end, vm_pindex_t offset)
{
	krwlock_write(&vm_rmap_lock);
	map->start = start;
	map->end = end;
	map->offset = offset;
	krwlock_write_unlock(&vm_rmap_lock);
}

/* The first of c and its later siblings that covers the parent's page; its index there in *pindex. */
static struct vm_object *
covering(struct vm_object *c, vm_pindex_t *pindex)
{
	for (; c != NULL; c = LIST_NEXT(c, sibling))
		if (*pindex >= c->shadow_offset && *pindex - c->shadow_offset < c->size) {
			*pindex -= c->shadow_offset;
			return c;
		}
	return NULL;
}

/* The object after o in the walk of the tree above root, and the page's index there.  Null: done. */
static struct vm_object *
walk_next(struct vm_object *root, struct vm_object *o, vm_pindex_t *pindex)
{
	struct vm_object *c = covering(LIST_FIRST(&o->children), pindex);

	while (c == NULL && o != root) {
		*pindex += o->shadow_offset;
		c = covering(LIST_NEXT(o, sibling), pindex);
		o = o->shadow;
	}
	return c;
}

/* The address of the page in a mapping, or 0. */
static vm_offset_t
mapping_va(const struct vm_mapping *map, vm_pindex_t pindex)
{
	if (pindex < map->offset ||
	    pindex - map->offset >= atop(map->end - map->start))
		return 0;
	return map->start + ((vm_offset_t)(pindex - map->offset) << PAGE_SHIFT);
}

/* The addresses at which a mapping shows pages [lo, hi); false: none. */
static bool
mapping_range(const struct vm_mapping *map, vm_pindex_t lo, vm_pindex_t hi, vm_offset_t *s, vm_offset_t *e)
{
	uint64_t first = MAX(lo, map->offset);
	uint64_t last = MIN((uint64_t)hi, map->offset + (uint64_t)atop(map->end - map->start));

	*s = map->start + ((vm_offset_t)(first - map->offset) << PAGE_SHIFT);
	*e = map->start + ((vm_offset_t)(last - map->offset) << PAGE_SHIFT);
	return first < last;
}

/* => vm_rmap_lock is held */
static void
protect_mappings(struct vm_object *object, vm_pindex_t lo, vm_pindex_t hi, vm_prot_t prot, unsigned pmap_flags)
{
	struct vm_mapping *map;
	vm_offset_t s, e;

	LIST_FOREACH(map, &object->mappings, link)
		if (mapping_range(map, lo, hi, &s, &e))
			pmap_protect(map->pmap, s, e, prot, pmap_flags);
}

void
vm_object_protect(struct vm_object *object, vm_pindex_t lo, vm_pindex_t hi, vm_prot_t prot,
    unsigned pmap_flags)
{
	KASSERT(kmutex_held(&object->lock));
	krwlock_read(&vm_rmap_lock);
	protect_mappings(object, lo, hi, prot, pmap_flags);
	krwlock_read_unlock(&vm_rmap_lock);
}

bool
vm_object_forget(struct vm_object *object, vm_pindex_t lo, vm_pindex_t hi)
{
	struct vm_mapping *map;
	vm_offset_t s, e;
	bool alone;

	KASSERT(kmutex_held(&object->lock));
	KASSERT(object->wired_pages == 0);
	PROBE("vm_object_forget: object locked");
	krwlock_read(&vm_rmap_lock);
	alone = LIST_EMPTY(&object->children);
	if (alone)
		LIST_FOREACH(map, &object->mappings, link)
			if (mapping_range(map, lo, hi, &s, &e))
				pmap_unmap(map->pmap, s, e);
	krwlock_read_unlock(&vm_rmap_lock);
	return alone;
}

/* => vm_rmap_lock is held */
static void
limit_page(struct vm_page *m, vm_prot_t prot)
{
	vm_pindex_t pindex = m->pindex;
	struct vm_mapping *map;

	for (struct vm_object *o = m->object; o != NULL; o = walk_next(m->object, o, &pindex))
		LIST_FOREACH(map, &o->mappings, link) {
			vm_offset_t va = mapping_va(map, pindex);

			if (va != 0)
				pmap_page_limit(map->pmap, va, m->pfn, prot);
		}
}

void
vm_object_page_protect(struct vm_page *m, vm_prot_t prot)
{
	KASSERT(kmutex_held(&m->object->lock));
	krwlock_read(&vm_rmap_lock);
	limit_page(m, prot);
	krwlock_read_unlock(&vm_rmap_lock);
}

void
vm_object_unmap(struct vm_object *object, vm_pindex_t lo, vm_pindex_t hi)
{
	KASSERT(kmutex_held(&object->lock));
	PROBE("vm_object_unmap: object locked");
	/* Held from the question to the end: a mapping that gets a shadow takes what it maps of us with it. */
	krwlock_read(&vm_rmap_lock);
	if (LIST_EMPTY(&object->children))
		protect_mappings(object, lo, hi, VM_PROT_NONE, PMAP_KEEP_WIRED);	/* one call for all of them */
	else
		for (; lo < hi; lo++)
			limit_page(vm_page_lookup(object, lo), VM_PROT_NONE);
	krwlock_read_unlock(&vm_rmap_lock);
}

bool
vm_object_is_seen(struct vm_object *object)
{
	bool seen;

	krwlock_read(&vm_rmap_lock);
	seen = !LIST_EMPTY(&object->mappings) || !LIST_EMPTY(&object->children);
	krwlock_read_unlock(&vm_rmap_lock);
	return seen;
}

void
vm_object_page_move(struct vm_page *m, vm_pfn_t to)
{
	vm_pindex_t pindex = m->pindex;
	struct vm_mapping *map;
	uint32_t entered;

	KASSERT(kmutex_held(&m->object->lock));
	krwlock_read(&vm_rmap_lock);
	for (struct vm_object *o = m->object; o != NULL; o = walk_next(m->object, o, &pindex))
		LIST_FOREACH(map, &o->mappings, link) {
			vm_offset_t va = mapping_va(map, pindex);
			pt_entry_t pte = va != 0 ? pmap_extract(map->pmap, va) : 0;

			if (PTE_PFN(pte) != m->pfn || !(pte & PTE_WIRED)) {
				if (va != 0)
					pmap_page_limit(map->pmap, va, m->pfn, VM_PROT_NONE);
				continue;
			}
			/* In one step: the kernel may be using the page for a system call. */
			pte = PTE_MAKE(to, pte & (PTE_PROT | PTE_WIRED));
			(void)pmap_enter(map->pmap, va, 1, &pte, 0, 0, 0, 0, &entered);
		}
	krwlock_read_unlock(&vm_rmap_lock);
	m->pfn = to;
}

/* Replace a wired mapping of m by one of `with', and let the wiring go over. */
static void
rewire(struct vm_mapping *map, vm_offset_t va, pt_entry_t old, struct vm_page *m, struct vm_page *with)
{
	pt_entry_t pte = PTE_MAKE(with->pfn, old & (PTE_R | PTE_X | PTE_WIRED));

	uint32_t entered;

	/* In one step: the kernel may be using the page for a system call. */
	(void)pmap_enter(map->pmap, va, 1, &pte, 0, 0, 0, 0, &entered);
	vm_page_wire(with);
	vm_page_unwire(m);
}

void
vm_object_shoot(struct vm_object *top, vm_pindex_t pindex, struct vm_page *m, struct vm_page *with)
{
	struct vm_mapping *map;

	KASSERT(kmutex_held(&m->object->lock));
	krwlock_read(&vm_rmap_lock);
	for (struct vm_object *o = top; o != NULL; o = walk_next(top, o, &pindex))
		LIST_FOREACH(map, &o->mappings, link) {
			vm_offset_t va = mapping_va(map, pindex);
			pt_entry_t pte;

			if (va == 0)
				continue;
			pte = pmap_extract(map->pmap, va);
			if (PTE_PFN(pte) != m->pfn || (pte & (PTE_PROT | PTE_WIRED)) == 0)
				continue;
			if (pte & PTE_WIRED)
				rewire(map, va, pte, m, with);
			else
				pmap_page_limit(map->pmap, va, m->pfn, VM_PROT_NONE);
		}
	krwlock_read_unlock(&vm_rmap_lock);
}

bool
vm_object_page_mapped(struct vm_page *m)
{
	vm_pindex_t pindex = m->pindex;
	struct vm_mapping *map;
	bool mapped = false;

	krwlock_read(&vm_rmap_lock);
	for (struct vm_object *o = m->object; o != NULL; o = walk_next(m->object, o, &pindex))
		LIST_FOREACH(map, &o->mappings, link) {
			vm_offset_t va = mapping_va(map, pindex);
			pt_entry_t pte = va != 0 ? pmap_extract(map->pmap, va) : 0;

			mapped = mapped || (PTE_PFN(pte) == m->pfn && (pte & PTE_PROT));
		}
	krwlock_read_unlock(&vm_rmap_lock);
	return mapped;
}
