/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What a pmap is in a forked child: what is wired, and nothing else.
 *
 * Everything that is not wired may be forgotten at any time, so it is: the child faults it in as it touches
 * it.  The ptes say so then, and the mappings are counted anew.
 */

#include "kern/assert.h"
#include "pmap_impl.h"

/* The wired run of leaf l that begins at page i, mapped again.  Its length, or -errno */
static int
map_run(struct pmap *pmap, const struct pmap_leaf *l, size_t i)
{
	size_t k = i % PMAP_LEAF_PAGES, n = 1;
	int error;

	while (k + n < PMAP_LEAF_PAGES && (l->pte[k + n] & PTE_WIRED) && !pte_boundary(l->pte[k + n - 1], l->pte[k + n]))
		n++;
	error = pmap_ops->map(va_of(pmap, i), n, PTE_PFN(l->pte[k]), l->pte[k] & PTE_PROT);
	return error != 0 ? error : (int)n;
}

/* => leaf l has its first page at `first' */
static int
leaf_forked(struct pmap *pmap, struct pmap_leaf *l, size_t first)
{
	size_t end = MIN(first + PMAP_LEAF_PAGES, pmap->size >> PAGE_SHIFT);
	uint64_t before = boundaries(pmap, first, end - 1);
	int n = 0;

	for (size_t i = first; i < end && n >= 0; i += n > 0 ? (size_t)n : 1) {
		n = 0;
		if (l->pte[i % PMAP_LEAF_PAGES] & PTE_WIRED)
			n = map_run(pmap, l, i);
		else
			pte_set(pmap, l, i, 0);
	}
	/* What was kept apart is like its neighbours now. */
	for (size_t i = first; i < end; i++)
		apart_set(pmap, l, i, false);
	l->stale = false;
	changed(pmap, first, end - 1, before);
	if (l->nframe == 0)
		leaf_drop(pmap, first);
	return MIN(n, 0);
}

int
pmap_forked(struct pmap *pmap)
{
	size_t npages = pmap->size >> PAGE_SHIFT;
	int error = 0;

	kmutex_lock(&pmap->lock);
	for (size_t i = 0; i < npages && error == 0; i += PMAP_LEAF_PAGES) {
		struct pmap_leaf *l;

		if (pmap->dir[i >> DIR_SHIFT] == NULL) {
			i |= ((size_t)1 << DIR_SHIFT) - PMAP_LEAF_PAGES;
			continue;
		}
		l = leaf_of(pmap, i);
		if (l != NULL)
			error = leaf_forked(pmap, l, i);
	}
	kmutex_unlock(&pmap->lock);
	return error;
}
