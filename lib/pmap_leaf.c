/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Ptes, and the count of the mappings that they make.
 *
 * A mapping of the kernel's is a maximal run of pages that it can keep in one
 * VMA: frames in a row with the same rights, or nothing at all.  Between two
 * neighbouring ptes there is either a boundary or none, so a change of ptes [i, j]
 * changes the count only by the boundaries from i - 1|i to j|j + 1; they are
 * counted before and after.
 */

#include <string.h>

#include "kern/assert.h"
#include "kern/slab.h"
#include "pmap_impl.h"

#define ALL_PAGES	(PMAP_LEAF_PAGES < 64 ? ((uint64_t)1 << (PMAP_LEAF_PAGES % 64)) - 1 : ~(uint64_t)0)

static struct slab dir_slab, leaf_slab;

void
leaf_init(void)
{
	slab_init(&dir_slab, "pmap_dir", sizeof(struct pmap_dir), 8);
	slab_init(&leaf_slab, "pmap_leaf", sizeof(struct pmap_leaf), 8);
}

void
leaf_fini(void)
{
	slab_fini(&dir_slab);
	slab_fini(&leaf_slab);
}

/*
 * Leaves
 */

static inline struct pmap_dir *
dir_of(const struct pmap *pmap, size_t i)
{
	return pmap->dir[i >> DIR_SHIFT];
}

static inline size_t
slot_of(size_t i)
{
	return (i >> PMAP_LEAF_SHIFT) % DIR_LEAVES;
}

bool
leaf_is_parked(const struct pmap *pmap, size_t i)
{
	const struct pmap_dir *d = dir_of(pmap, i);

	return d != NULL && bit_get(d->parked, slot_of(i));
}

/* A leaf that was parked has no rights: have its ptes say so. */
static void
wake(struct pmap_dir *d, size_t slot)
{
	struct pmap_leaf *l = d->leaf[slot];

	bit_set(d->parked, slot, false);
	for (size_t k = 0; k < PMAP_LEAF_PAGES; k++)
		l->pte[k] &= ~PTE_PROT;
	l->nvalid = l->nwrite = l->nexec = 0;
	memset(l->write, 0, sizeof(l->write));
	l->parked = true;
	park_over();
}

struct pmap_leaf *
leaf_peek(const struct pmap *pmap, size_t i)
{
	struct pmap_dir *d = dir_of(pmap, i);

	return d != NULL ? d->leaf[slot_of(i)] : NULL;
}

struct pmap_leaf *
leaf_of(const struct pmap *pmap, size_t i)
{
	struct pmap_dir *d = dir_of(pmap, i);

	if (d == NULL)
		return NULL;
	if (bit_get(d->parked, slot_of(i)))
		wake(d, slot_of(i));
	return d->leaf[slot_of(i)];
}

struct pmap_leaf *
leaf_make(struct pmap *pmap, size_t i)
{
	struct pmap_dir **d = &pmap->dir[i >> DIR_SHIFT];
	struct pmap_leaf **l;

	if (*d == NULL && (*d = slab_alloc(&dir_slab)) == NULL)
		return NULL;
	l = &(*d)->leaf[slot_of(i)];
	if (*l == NULL && (*l = slab_alloc(&leaf_slab)) != NULL) {
		(*d)->used++;
		pmap->nleaves++;
	}
	return leaf_of(pmap, i);
}

void
leaf_drop(struct pmap *pmap, size_t i)
{
	struct pmap_dir **d = &pmap->dir[i >> DIR_SHIFT];
	struct pmap_leaf *l = leaf_of(pmap, i);

	KASSERT(l->nframe == 0 && l->nvalid == 0 && l->nwired == 0 && (*d)->row[slot_of(i)] == 0);
	(*d)->leaf[slot_of(i)] = NULL;
	slab_free(&leaf_slab, l);
	pmap->nleaves--;
	(*d)->used--;
}

void
leaf_fill(struct pmap *pmap, size_t i, vm_pfn_t pfn, unsigned rights)
{
	struct pmap_dir *d = dir_of(pmap, i);
	struct pmap_leaf *l = d->leaf[slot_of(i)];
	bool write = rights & PTE_W;

	for (size_t k = 0; k < PMAP_LEAF_PAGES; k++)
		l->pte[k] = PTE_MAKE(pfn + (vm_pfn_t)k, rights);
	pmap->napart -= l->napart;
	l->nframe = PMAP_LEAF_PAGES;
	l->nvalid = rights != 0 ? PMAP_LEAF_PAGES : 0;
	l->nwrite = write ? PMAP_LEAF_PAGES : 0;
	l->nexec = (rights & PTE_X) ? PMAP_LEAF_PAGES : 0;
	l->nwired = l->napart = 0;
	l->parked = l->stale = false;
	for (size_t k = 0; k < PMAP_LEAF_WORDS; k++)
		l->write[k] = write ? ALL_PAGES : 0;
	memset(l->apart, 0, sizeof(l->apart));
	if (bit_get(d->parked, slot_of(i)))
		park_over();
	bit_set(d->parked, slot_of(i), false);
	d->row[slot_of(i)] = rights == (PTE_R | PTE_W) ? pfn : 0;
}

void
leaf_free_all(struct pmap *pmap)
{
	for (uint32_t i = 0; i < pmap->ndir; i++) {
		struct pmap_dir *d = pmap->dir[i];

		for (uint32_t k = 0; d != NULL && k < DIR_LEAVES; k++)
			if (d->leaf[k] != NULL)
				slab_free(&leaf_slab, d->leaf[k]);
		if (d != NULL)
			slab_free(&dir_slab, d);
	}
}

/*
 * Ptes
 */

pt_entry_t
pte_get(const struct pmap *pmap, size_t i)
{
	const struct pmap_leaf *l = leaf_of(pmap, i);

	return l != NULL ? l->pte[i % PMAP_LEAF_PAGES] : 0;
}

void
apart_set(struct pmap *pmap, struct pmap_leaf *l, size_t i, bool on)
{
	bool was = bit_get(l->apart, i % PMAP_LEAF_PAGES);

	l->napart = (uint16_t)(l->napart + on - was);
	pmap->napart += (uint64_t)on - was;
	bit_set(l->apart, i % PMAP_LEAF_PAGES, on);
}

void
pte_set(struct pmap *pmap, struct pmap_leaf *l, size_t i, pt_entry_t new)
{
	pt_entry_t *pte = &l->pte[i % PMAP_LEAF_PAGES], old = *pte;

	l->nvalid = (uint16_t)(l->nvalid + !!(new & PTE_PROT) - !!(old & PTE_PROT));
	l->nwrite = (uint16_t)(l->nwrite + !!(new & PTE_W) - !!(old & PTE_W));
	l->nexec = (uint16_t)(l->nexec + !!(new & PTE_X) - !!(old & PTE_X));
	l->nwired = (uint16_t)(l->nwired + !!(new & PTE_WIRED) - !!(old & PTE_WIRED));
	l->nframe = (uint16_t)(l->nframe + !!PTE_PFN(new) - !!PTE_PFN(old));
	bit_set(l->write, i % PMAP_LEAF_PAGES, new & PTE_W);
	if (PTE_PFN(new) == 0)
		apart_set(pmap, l, i, false);
	*pte = new;
}

/*
 * Whoever looks without the lock sees words of which each is, or was a moment ago, true.  Nothing that he
 * follows is ever unmapped while the pmap is there: a directory stays until its end, and what was a leaf stays a piece of
 * the slab.  The sanitizers are not asked.
 */
#if defined(__clang__)
#define UNSEEN	__attribute__((__disable_sanitizer_instrumentation__, __noinline__))
#else
#define UNSEEN	__attribute__((__no_sanitize_thread__, __no_sanitize_address__, __noinline__))
#endif
#define LOOK(x)	(*(const volatile __typeof__(x) *)&(x))

UNSEEN unsigned
pmap_peek(const struct pmap *pmap, vm_offset_t va)
{
	size_t i = index_of(pmap, va);
	const struct pmap_dir *d = LOOK(pmap->dir[i >> DIR_SHIFT]);
	const struct pmap_leaf *l = d != NULL ? LOOK(d->leaf[slot_of(i)]) : NULL;
	pt_entry_t pte;

	if (l == NULL || LOOK(d->parked[slot_of(i) / 64]) >> (slot_of(i) % 64) & 1)
		return 0;
	pte = LOOK(l->pte[i % PMAP_LEAF_PAGES]) & PTE_PROT;
	return pte | (LOOK(l->view) && LOOK(l->view_write) ? PTE_W : 0);
}

/*
 * Mappings
 */

/* What the kernel knows of a page: its pte, whether it is kept apart, and whose private view it is. */
typedef uint64_t known_t;
#define KNOWN_APART	((known_t)1 << 63)
#define KNOWN_VIEW_SHIFT 33		/* its leaf's number: views are counted one by one */
#define KNOWN_VIEW	((((known_t)1 << 62) - 1) & ~(((known_t)1 << 32) - 1))

static inline known_t
known(const struct pmap_leaf *l, size_t i)
{
	return l->pte[i % PMAP_LEAF_PAGES] | (bit_get(l->apart, i % PMAP_LEAF_PAGES) ? KNOWN_APART : 0) |
	    (l->view ? (known_t)((i >> PMAP_LEAF_SHIFT) + 1) << KNOWN_VIEW_SHIFT : 0);
}

/* Is there a boundary of kernel mappings between two neighbours? */
static inline bool
boundary(known_t a, known_t b)
{
	if (PTE_PFN(a) == 0 || PTE_PFN(b) == 0)
		return PTE_PFN(a) != PTE_PFN(b);
	return PTE_PFN(b) != PTE_PFN(a) + 1 || ((a ^ b) & (PTE_PROT | KNOWN_APART | KNOWN_VIEW)) != 0;
}

/* Boundaries before each of the pages [i, j], and after j. */
uint64_t
boundaries(const struct pmap *pmap, size_t i, size_t j)
{
	size_t last = (pmap->size >> PAGE_SHIFT) - 1;
	const struct pmap_leaf *before;
	uint64_t n = 0;
	known_t prev;

	if (i == 0)
		i = 1;
	before = leaf_of(pmap, i - 1);
	prev = before != NULL ? known(before, i - 1) : 0;
	for (size_t k = i; k <= MIN(j + 1, last); k++) {
		const struct pmap_leaf *l = leaf_of(pmap, k);
		known_t now;

		if (l == NULL) {
			n += boundary(prev, 0);
			prev = 0;
			/* The rest of it is 0 as well. */
			k |= (dir_of(pmap, k) != NULL ? PMAP_LEAF_PAGES : (size_t)1 << DIR_SHIFT) - 1;
			continue;
		}
		now = known(l, k);
		n += boundary(prev, now);
		prev = now;
	}
	return n;
}

uint64_t
ends(const struct pmap *pmap, size_t i, size_t j)
{
	return boundaries(pmap, i, i) + boundaries(pmap, j, j);
}

bool
pte_boundary(pt_entry_t a, pt_entry_t b)
{
	return boundary(a, b);
}

/* Is the leaf a row?  Its first frame, or 0. */
static vm_pfn_t
row_of(const struct pmap_leaf *l)
{
	vm_pfn_t pfn = PTE_PFN(l->pte[0]);

	if (l->nwrite != PMAP_LEAF_PAGES || l->napart != 0)
		return 0;
	for (size_t k = 0; k < PMAP_LEAF_PAGES; k++)
		if (l->pte[k] != PTE_MAKE(pfn + (vm_pfn_t)k, PTE_R | PTE_W))
			return 0;
	return pfn;
}

void
changed(struct pmap *pmap, size_t i, size_t j, uint64_t before)
{
	runs_add(pmap, boundaries(pmap, i, j) - before);
	for (size_t k = i; k <= j; k = (k | (PMAP_LEAF_PAGES - 1)) + 1) {
		struct pmap_leaf *l = leaf_of(pmap, k);

		if (l == NULL)
			continue;
		dir_of(pmap, k)->row[slot_of(k)] = row_of(l);
		l->parked = l->parked && l->nvalid < PMAP_LEAF_PAGES / 2;
	}
}
