/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Views over rows with gaps.
 *
 * A view takes the frames of its leaf in a row.  But a page of a row that is frozen may have left it before: where the kernel
 * wrote for the program, or memory was wired, the page got a frame of its own (vm_page_own()).  One
 * such page, and every other page of the leaf that is written would have to leave as well, a fault and two mappings
 * each, until nothing is left of the row.
 *
 *	page		0   1   2   3   4			0   1   2   3   4
 *	frame		8   9  90  11  12		->	8   9  10  11  12
 *	view							        x		written: what was in 90
 *
 * So it is sent back: its place in the row is taken again, which nobody else has had since, and what it holds becomes
 * something that has been written to the view, before anybody sees that.  From there it comes home with the rest.
 *
 * Nobody may need what the frames of the row hold, as a copy would: to it the page would be what it was long ago.
 */

#include "kern/assert.h"
#include "kern/probe.h"
#include "physmem.h"
#include "pmap.h"
#include "vm_object.h"
#include "vm_page.h"
#include "vm_view_impl.h"

/* The row that most of the pages are in: where it begins.  0: none, or some page cannot be viewed (the vote is Boyer and Moore's) */
static vm_pfn_t
most_common_row(struct vm_page *const page[PMAP_LEAF_PAGES], const struct vm_page *ours)
{
	uint32_t votes = 0, away = 0;
	vm_pfn_t base = 0;

	for (uint32_t k = 0; k < PMAP_LEAF_PAGES; k++) {
		vm_pfn_t row = page[k]->pfn - k;

		if (!vv_may_view(page[k], ours))
			return 0;
		if (votes == 0)
			base = row;
		votes += row == base ? 1 : (uint32_t)-1;
	}
	for (uint32_t k = 0; k < PMAP_LEAF_PAGES; k++)
		away += page[k]->pfn != base + k;
	/* Rows do not reach from one memfd to the next. */
	return away <= MEND_MOST && physmem_fd_of(base) == physmem_fd_of(base + PMAP_LEAF_PAGES - 1) ? base : 0;
}

/* Is the frame ours again?  It is inherited, or we gave it up and others still see it, or nobody has it. */
static bool
have_again(vm_pfn_t pfn)
{
	vm_pfn_t got;

	if (physmem_take_back(pfn))
		return true;
	if (!physmem_is_unused(pfn, 1))
		return false;
	PROBE("vm_view_mend: a place is free");
	got = physmem_alloc(pfn, PHYSMEM_OVERWRITE);
	if (got != 0 && got != pfn)
		physmem_free(got);
	return got == pfn;
}

bool
vv_mend(struct vm_object *o, vm_pindex_t lo, const struct vm_page *ours, struct vm_view_mend *mend)
{
	void *found[PMAP_LEAF_PAGES];
	struct vm_page *const *page = (struct vm_page *const *)(void *)found;

	KASSERT(kmutex_held(&o->lock));
	mend->n = 0;
	if (radix_run(&o->pages, lo, PMAP_LEAF_PAGES, found) != PMAP_LEAF_PAGES ||
	    (mend->base = most_common_row(page, ours)) == 0)
		return false;
	for (uint32_t k = 0; k < PMAP_LEAF_PAGES; k++) {
		if (page[k]->pfn == mend->base + k)
			continue;
		if (!have_again(mend->base + k)) {
			vv_mend_end(o, lo, mend, false);
			return false;
		}
		mend->away[mend->n++] = (struct pmap_away){ .page = k, .pfn = page[k]->pfn };
	}
	return true;
}

void
vv_mend_end(struct vm_object *o, vm_pindex_t lo, const struct vm_view_mend *mend, bool opened)
{
	for (uint32_t i = 0; i < mend->n; i++) {
		struct vm_page *m = vm_page_lookup(o, lo + mend->away[i].page);
		vm_pfn_t back = mend->base + mend->away[i].page;

		KASSERT(m != NULL && m->pfn == mend->away[i].pfn);
		if (opened)
			m->pfn = back;
		physmem_free(opened ? mend->away[i].pfn : back);
	}
}
