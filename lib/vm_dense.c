/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Many pages at once for who writes everything.
 *
 * Where most pages of a leaf were written after one snapshot, most will be after the next (the keeper of
 * private views found that out, and left a hint in the pmap).  Then a private view does too much:
 * the kernel takes a fault for each page, and all of them have to be brought home afterwards.  Instead the
 * copy gets a good part of the leaf at once, into frames that were freed a moment ago (the last copy's, whose home it
 * most likely has), and that part is mapped as it was before the snapshot: shared, writable, and when the other
 * parts have followed in one mapping with them, so that the next snapshot can park the leaf again.
 *
 * Not all of the leaf, though that would be cheaper: the writer has to wait for it.
 */

#include <string.h>

#include "kern/assert.h"
#include "physmem.h"
#include "pmap.h"
#include "vm_dense.h"
#include "vm_fault.h"
#include "vm_fault_state.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_pager.h"
#include "vm_view.h"
#include "vm_written.h"

#define PART		MAX(PMAP_LEAF_PAGES / 8, 2u)	/* pages that are pushed in one fault */
#define BATCH		64u				/* ... looked up at a time */

/* A run of pages on their way: frames in a row on both sides. */
struct run {
	vm_pfn_t from, to;
	uint32_t n;
};

static void
copy_run(struct run *r)
{
	if (r->n != 0)
		physmem_copy(r->from, r->to, r->n);
	r->n = 0;
}

/* The copy's pages at `at' and after have been filled.  => locked; page[]: the object's */
static void
filled(struct vm_object *c, struct vm_page **theirs, struct vm_page **ours, uint32_t n)
{
	bool seen = !LIST_EMPTY(&c->mappings) || !LIST_EMPTY(&c->children);

	for (uint32_t i = 0; i < n; i++) {
		theirs[i]->flags = (uint16_t)((theirs[i]->flags & ~PG_FAKE) | PG_MODIFIED);
		/* Whoever saw our page through the copy must see the copy's own from now on. */
		if (seen)
			vm_object_shoot(c, theirs[i]->pindex, ours[i], theirs[i]);
	}
	vm_page_activate_many(theirs, n);
	for (uint32_t i = 0; i < n; i++)
		vm_page_wakeup(theirs[i]);
	vm_count_n(v_pushes, n);
}

/* At most BATCH pages, with frames of that row. */
static bool
push(struct vm_object *o, vm_pindex_t lo, uint32_t n, struct vm_object *c, struct vm_page_row *row)
{
	struct vm_page *theirs[BATCH], *ours[BATCH];
	struct run run = { 0 };
	uint32_t done = 0;
	void *page[BATCH];
	bool all = true;

	(void)radix_run(&o->pages, lo, n, page);
	for (uint32_t i = 0; i < n && all; i++) {
		struct vm_page *m = page[i], *new;

		if (lo + i < c->shadow_offset || lo + i - c->shadow_offset >= c->size || !vm_fault_copy_lacks(c, lo + i))
			continue;
		new = vm_page_lookup(c, lo + i - c->shadow_offset) != NULL ? NULL :
		    vm_page_alloc_row(c, lo + i - c->shadow_offset, PHYSMEM_OVERWRITE, row);
		all = new != NULL;
		if (!all)
			break;
		if (run.n != 0 && (m->pfn != run.from + run.n || new->pfn != run.to + run.n))
			copy_run(&run);
		if (run.n == 0)
			run = (struct run){ m->pfn, new->pfn, 0 };
		run.n++;
		ours[done] = m;
		theirs[done++] = new;
	}
	copy_run(&run);
	filled(c, theirs, ours, done);
	return all;
}

bool
vm_dense_give(struct vm_object *o, vm_pindex_t lo, uint32_t pages, struct vm_object *c)
{
	struct vm_page_row row = { .want = pages };
	bool all = true;

	for (uint32_t k = 0, n; k < pages && all; k += n) {
		n = MIN(BATCH, pages - k);
		all = push(o, lo + k, n, c, &row);
	}
	vm_page_row_end(&row);
	return all;
}

/* All n pages from lo on may be written, and as good as are.  => locked */
static void
written(struct vm_object *o, vm_pindex_t lo, uint32_t n)
{
	void *page[BATCH];

	for (uint32_t k = 0, some; k < n; k += some) {
		some = radix_run(&o->pages, lo + k, MIN(BATCH, n - k), page);
		for (uint32_t i = 0; i < some; i++) {
			struct vm_page *m = page[i];

			vm_written_modify(m);
			m->flags |= PG_REFERENCED;
		}
	}
}

bool
vm_dense_push(struct faultstate *fs, struct vm_object *c)
{
	struct vm_object *o = fs->first_object;
	struct pmap *pmap = fs->map->pmap;
	uint32_t in_leaf = (uint32_t)(atop(fs->va - fs->map->base) % PMAP_LEAF_PAGES), in_part = in_leaf % PART, entered;
	vm_offset_t leaf_va = fs->va - ((vm_offset_t)in_leaf << PAGE_SHIFT);
	vm_offset_t va = fs->va - ((vm_offset_t)in_part << PAGE_SHIFT);
	vm_pindex_t lo = fs->first_pindex - in_part;
	pt_entry_t pte[PART];
	vm_pfn_t pfn;

	/* More than a share of what is left is not worth a guess. */
	if (fs->first_pindex < in_leaf || physmem_free_count() / 4 < PMAP_LEAF_PAGES || !pmap_dense(pmap, leaf_va) ||
	    !vm_view_is_eligible(fs, c, leaf_va, 1) || (pfn = vm_view_row(o, lo, PART, fs->m)) == 0 ||
	    physmem_any_frozen(pfn, PART) || !vm_dense_give(o, lo, PART, c))
		return false;
	written(o, lo, PART);
	for (uint32_t k = 0; k < PART; k++)
		pte[k] = PTE_MAKE(pfn + k, PTE_R | PTE_W);
	if (pmap_enter(pmap, va, PART, pte, in_part, 0, 0, 0, &entered) != KERN_SUCCESS)
		return false;
	fs->populate_va = va;
	fs->populate_pages = PART;
	fs->populate_fresh = false;
	vm_count(v_dense);
	return true;
}
