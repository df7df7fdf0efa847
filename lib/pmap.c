/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The physical map: ptes, the count of mappings, and forgetting.
 *
 * A mapping of the kernel's is a maximal run of pages that it can keep in one
 * VMA: frames in a row with the same rights, or nothing at all.  Between two
 * neighbouring ptes there is either a boundary or none, so a change of ptes [i, j]
 * changes the count only by the boundaries from i - 1|i to j|j + 1; they are
 * counted before and after.
 *
 * Giving rights may fail; then the run is made reserved address space, and the
 * touch faults again.  Taking rights away must not fail: it is tried again
 * after forgetting, then in a way that needs no mapping, and at last the
 * process stops rather than let a write through that nobody knows of.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/slab.h"
#include "kern/sys.h"
#include "pmap.h"
#include "vm_meter.h"

#define DIR_SHIFT	(PMAP_LEAF_SHIFT + 9)		/* 1 GB in pages */
#define DIR_LEAVES	(1u << 9)
#define DEFAULT_MAX	65530				/* the kernel's own default */
#define LAST_RESORT_NS	((int64_t)5 * 1000 * 1000 * 1000)
#define PAUSE_NS	1000000
#define APART_PAGES	16				/* a longer run is not kept apart, ... */
#define APART_WRITE	16				/* ... nor any in a leaf where so many can be written; */
#define JOIN_WRITE	64				/* where so many can be, they are merged again */

struct pmap_dir {
	struct pmap_leaf *leaf[DIR_LEAVES];
	uint32_t used;				/* leaves */
};

static const struct pmap_ops *ops;
static uint64_t budget;				/* constant after init */
static _Atomic uint64_t total_runs;
static struct slab dir_slab, leaf_slab;
static struct kmutex list_lock;			/* guards pmaps */
static TAILQ_HEAD(, pmap) pmaps;

/*
 * Ptes
 */

static inline size_t
index_of(const struct pmap *pmap, vm_offset_t va)
{
	return (va - pmap->base) >> PAGE_SHIFT;
}

static inline vm_offset_t
va_of(const struct pmap *pmap, size_t i)
{
	return pmap->base + (i << PAGE_SHIFT);
}

static struct pmap_leaf *
leaf_of(const struct pmap *pmap, size_t i)
{
	struct pmap_dir *d = pmap->dir[i >> DIR_SHIFT];

	return d != NULL ? d->leaf[(i >> PMAP_LEAF_SHIFT) % DIR_LEAVES] : NULL;
}

static struct pmap_leaf *
leaf_make(struct pmap *pmap, size_t i)
{
	struct pmap_dir **d = &pmap->dir[i >> DIR_SHIFT];
	struct pmap_leaf **l;

	if (*d == NULL && (*d = slab_alloc(&dir_slab)) == NULL)
		return NULL;
	l = &(*d)->leaf[(i >> PMAP_LEAF_SHIFT) % DIR_LEAVES];
	if (*l == NULL && (*l = slab_alloc(&leaf_slab)) != NULL)
		(*d)->used++;
	return *l;
}

static inline pt_entry_t
pte_get(const struct pmap *pmap, size_t i)
{
	const struct pmap_leaf *l = leaf_of(pmap, i);

	return l != NULL ? l->pte[i % PMAP_LEAF_PAGES] : 0;
}

static inline bool
bit_get(const uint64_t *word, size_t i)
{
	return word[i / 64] >> (i % 64) & 1;
}

static inline void
bit_set(uint64_t *word, size_t i, bool on)
{
	word[i / 64] = (word[i / 64] & ~((uint64_t)1 << (i % 64))) | (uint64_t)on << (i % 64);
}

static void
apart_set(struct pmap *pmap, struct pmap_leaf *l, size_t i, bool on)
{
	bool was = bit_get(l->apart, i % PMAP_LEAF_PAGES);

	l->napart = (uint16_t)(l->napart + on - was);
	pmap->napart += (uint64_t)on - was;
	bit_set(l->apart, i % PMAP_LEAF_PAGES, on);
}

static void
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

/* What the kernel knows of a page: its pte, and whether it is kept apart. */
typedef uint64_t view_t;
#define VIEW_APART	((view_t)1 << 63)

static inline view_t
view(const struct pmap_leaf *l, size_t i)
{
	return l->pte[i % PMAP_LEAF_PAGES] | (bit_get(l->apart, i % PMAP_LEAF_PAGES) ? VIEW_APART : 0);
}

/* Is there a boundary of kernel mappings between two neighbours? */
static inline bool
boundary(view_t a, view_t b)
{
	if (PTE_PFN(a) == 0 || PTE_PFN(b) == 0)
		return PTE_PFN(a) != PTE_PFN(b);
	return PTE_PFN(b) != PTE_PFN(a) + 1 || ((a ^ b) & (PTE_PROT | VIEW_APART)) != 0;
}

/* Boundaries before each of the pages [i, j], and after j. */
static uint64_t
boundaries(const struct pmap *pmap, size_t i, size_t j)
{
	size_t last = (pmap->size >> PAGE_SHIFT) - 1;
	const struct pmap_leaf *before;
	uint64_t n = 0;
	view_t prev;

	if (i == 0)
		i = 1;
	before = leaf_of(pmap, i - 1);
	prev = before != NULL ? view(before, i - 1) : 0;
	for (size_t k = i; k <= MIN(j + 1, last); k++) {
		const struct pmap_leaf *l = leaf_of(pmap, k);
		view_t now;

		if (l == NULL) {
			n += boundary(prev, 0);
			prev = 0;
			k |= PMAP_LEAF_PAGES - 1;	/* the rest of it is 0 as well */
			continue;
		}
		now = view(l, k);
		n += boundary(prev, now);
		prev = now;
	}
	return n;
}

static void
runs_change(struct pmap *pmap, uint64_t before, uint64_t after)
{
	pmap->runs += after - before;
	atomic_fetch_add_explicit(&total_runs, after - before, memory_order_relaxed);
}

/*
 * Forgetting
 */

/* Forget pages [i, j] of a leaf, none wired, so that they take as few mappings as may be. */
static void
forget_run(struct pmap *pmap, struct pmap_leaf *l, size_t i, size_t j)
{
	vm_pfn_t pfn = PTE_PFN(l->pte[i % PMAP_LEAF_PAGES]);
	uint64_t before = boundaries(pmap, i, j);
	bool row = pfn != 0, rights = false;
	int error;

	for (size_t k = i; k <= j && row; k++)
		row = PTE_PFN(l->pte[k % PMAP_LEAF_PAGES]) == pfn + (k - i);
	/*
	 * Frames in a row stay mapped, without rights; it takes one mapping, and less to bring back.  If
	 * they had none before, that is one too many.
	 */
	for (size_t k = i; k <= j && row && !rights; k++)
		rights = (l->pte[k % PMAP_LEAF_PAGES] & PTE_PROT) != 0;
	row = row && rights;
	if (row)
		error = ops->protect(va_of(pmap, i), j - i + 1, pfn, 0);
	else
		error = ops->unmap(va_of(pmap, i), (j - i + 1) << PAGE_SHIFT);
	if (error != 0)
		return;
	for (size_t k = i; k <= j; k++) {
		pt_entry_t old = l->pte[k % PMAP_LEAF_PAGES];

		vm_count_n(v_forgets, (old & PTE_PROT) != 0);
		pte_set(pmap, l, k, row ? PTE_MAKE(PTE_PFN(old), 0) : 0);
	}
	runs_change(pmap, before, boundaries(pmap, i, j));
}

/* Forget what a leaf maps, but for its wired pages. */
static void
leaf_forget(struct pmap *pmap, struct pmap_leaf *l, size_t first)
{
	size_t end = MIN(first + PMAP_LEAF_PAGES, pmap->size >> PAGE_SHIFT), run;

	for (size_t i = first; i < end; i += run + 1) {
		for (run = 0; i + run < end && !(l->pte[(i + run) % PMAP_LEAF_PAGES] & PTE_WIRED); run++)
			;
		if (run != 0)
			forget_run(pmap, l, i, i + run - 1);
	}
}

/* Keep nothing of a leaf apart any more.  => locked */
static void
leaf_join(struct pmap *pmap, struct pmap_leaf *l, size_t first)
{
	size_t last = MIN(first + PMAP_LEAF_PAGES, pmap->size >> PAGE_SHIFT) - 1;
	uint64_t before;

	if (l->napart == 0 || ops->keep_apart(va_of(pmap, first), last - first + 1, false) != 0)
		return;			/* they stay, and are counted as mappings */
	before = boundaries(pmap, first, last);
	pmap->napart -= l->napart;
	l->napart = 0;
	l->stale = false;
	memset(l->apart, 0, sizeof(l->apart));
	runs_change(pmap, before, boundaries(pmap, first, last));
}

static void
pmap_join(struct pmap *pmap)
{
	for (uint32_t d = 0; d < pmap->ndir && pmap->napart != 0; d++)
		for (uint32_t n = 0; pmap->dir[d] != NULL && n < DIR_LEAVES; n++)
			if (pmap->dir[d]->leaf[n] != NULL)
				leaf_join(pmap, pmap->dir[d]->leaf[n],
				    (size_t)d << DIR_SHIFT | (size_t)n << PMAP_LEAF_SHIFT);
}

/* Forget leaves of this pmap until all mappings together are at most `goal`.  => locked */
static void
pmap_forget(struct pmap *pmap, uint64_t goal)
{
	size_t nleaves = ((pmap->size >> PAGE_SHIFT) + PMAP_LEAF_PAGES - 1) >> PMAP_LEAF_SHIFT;

	/* What can be had without a fault comes first. */
	pmap_join(pmap);
	if (atomic_load_explicit(&total_runs, memory_order_relaxed) <= goal)
		return;
	for (size_t n = 0; n < nleaves; n++) {
		size_t at = pmap->hand, first = at << PMAP_LEAF_SHIFT;
		struct pmap_leaf *l;

		pmap->hand = (uint32_t)((at + 1) % nleaves);
		if (pmap->dir[first >> DIR_SHIFT] == NULL) {
			pmap->hand = (uint32_t)((at | (DIR_LEAVES - 1)) + 1);
			n += pmap->hand - at - 1;
			if (pmap->hand >= nleaves)
				pmap->hand = 0;
			continue;
		}
		l = leaf_of(pmap, first);
		if (l == NULL || l->nframe == l->nwired)
			continue;
		leaf_forget(pmap, l, first);
		if (atomic_load_explicit(&total_runs, memory_order_relaxed) <= goal)
			return;
	}
}

/* Make room for mappings: our own first, then those of pmaps nobody holds.  => locked */
static void
relieve(struct pmap *pmap, uint64_t goal)
{
	struct pmap *p;

	pmap_forget(pmap, goal);
	if (atomic_load_explicit(&total_runs, memory_order_relaxed) <= goal)
		return;
	kmutex_lock(&list_lock);
	TAILQ_FOREACH(p, &pmaps, link)
		if (p != pmap && kmutex_trylock(&p->lock)) {
			pmap_forget(p, goal);
			kmutex_unlock(&p->lock);
		}
	kmutex_unlock(&list_lock);
}

/* After rights were taken away: that may have cut runs.  => locked, no run half done */
static void
settle(struct pmap *pmap)
{
	if (atomic_load_explicit(&total_runs, memory_order_relaxed) > budget)
		relieve(pmap, budget / 4 * 3);
}

/* Reserved address space again, whatever it takes.  => locked */
static void
must_unmap(struct pmap *pmap, size_t i, size_t j)
{
	uint64_t before = boundaries(pmap, i, j);
	uint64_t deadline = 0;

	while (ops->unmap(va_of(pmap, i), (j - i + 1) << PAGE_SHIFT) != 0) {
		uint32_t ticket = event_prepare(pmap);

		if (deadline == 0)
			deadline = sys_clock() + LAST_RESORT_NS;
		if (sys_clock() > deadline)
			kpanic("the kernel will not take %lu pages at %p back: raise vm.max_map_count",
			    (unsigned long)(j - i + 1), (void *)va_of(pmap, i));
		(void)event_wait(pmap, ticket, PAUSE_NS);
	}
	for (size_t k = i; k <= j; k++) {
		struct pmap_leaf *l = leaf_of(pmap, k);

		if (l == NULL)
			k |= PMAP_LEAF_PAGES - 1;
		else if (l->pte[k % PMAP_LEAF_PAGES] != 0)
			pte_set(pmap, l, k, 0);
	}
	runs_change(pmap, before, boundaries(pmap, i, j));
}

/*
 * Entering
 */

/* Map the home around page i inaccessibly, if nothing at all is there yet: one call now saves many. */
static void
enter_home(struct pmap *pmap, struct pmap_leaf *l, size_t i, size_t n, size_t lo, size_t hi,
    vm_pfn_t home_pfn)
{
	size_t first = MAX(i & ~(size_t)(PMAP_LEAF_PAGES - 1), lo);
	size_t last = MIN(i | (PMAP_LEAF_PAGES - 1), hi - 1);
	vm_pfn_t pfn = (vm_pfn_t)(home_pfn + (first - lo));
	uint64_t before;

	if (last - first + 1 <= n)
		return;
	for (size_t k = first; k <= last; k++)
		if (l->pte[k % PMAP_LEAF_PAGES] != 0)
			return;
	before = boundaries(pmap, first, last);
	if (ops->map(va_of(pmap, first), last - first + 1, pfn, 0) != 0)
		return;			/* the run itself will be mapped, or fail, by itself */
	for (size_t k = first; k <= last; k++)
		pte_set(pmap, l, k, PTE_MAKE(pfn + (k - first), 0));
	runs_change(pmap, before, boundaries(pmap, first, last));
}

/*
 * Should pages [i, i + n), which may be read, be kept apart when they are written?  Only where they
 * are few, and cut out of the midst of a mapping.
 */
static bool
worth_apart(struct pmap *pmap, struct pmap_leaf *l, size_t i, size_t n, pt_entry_t pte)
{
	if (ops->keep_apart == NULL || !(pte & PTE_W) || n > APART_PAGES ||
	    l->nwrite >= APART_WRITE || !(l->pte[i % PMAP_LEAF_PAGES] & PTE_R) ||
	    i == 0 || i + n >= pmap->size >> PAGE_SHIFT || boundaries(pmap, i, i + n - 1) != 0)
		return false;
	if (pmap_mappings_short()) {
		pmap_join(pmap);
		return false;
	}
	/* Others are written now than were: the old ones would only be in the way. */
	if (l->stale)
		leaf_join(pmap, l, i & ~(size_t)(PMAP_LEAF_PAGES - 1));
	return true;
}

/* Enter pages [i, i + n) of one leaf, frames in a row, equal rights.  0 or -errno */
static int
enter_run(struct pmap *pmap, struct pmap_leaf *l, size_t i, size_t n, const pt_entry_t *pte)
{
	bool same_frames = true, same = true, apart;
	uint64_t before;
	int error = 0;

	for (size_t k = 0; k < n; k++) {
		pt_entry_t old = l->pte[(i + k) % PMAP_LEAF_PAGES];

		same_frames = same_frames && PTE_PFN(old) == PTE_PFN(pte[k]);
		same = same && ((old ^ pte[k]) & ~PTE_WIRED) == 0;
	}
	apart = !same && same_frames && worth_apart(pmap, l, i, n, pte[0]);
	if (!same && same_frames)
		error = ops->protect(va_of(pmap, i), n, PTE_PFN(pte[0]), pte[0] & PTE_PROT);
	else if (!same)
		error = ops->map(va_of(pmap, i), n, PTE_PFN(pte[0]), pte[0] & PTE_PROT);
	if (error != 0)
		return error;
	apart = apart && ops->keep_apart(va_of(pmap, i), n, true) == 0;
	before = boundaries(pmap, i, i + n - 1);
	for (size_t k = 0; k < n; k++) {
		pte_set(pmap, l, i + k, pte[k]);
		if (apart || !same_frames)
			apart_set(pmap, l, i + k, apart);
	}
	runs_change(pmap, before, boundaries(pmap, i, i + n - 1));
	if (l->nwrite >= JOIN_WRITE)
		leaf_join(pmap, l, i & ~(size_t)(PMAP_LEAF_PAGES - 1));
	return 0;
}

enum kern_return
pmap_enter(struct pmap *pmap, vm_offset_t va, uint32_t n, pt_entry_t *pte, uint32_t centre,
    vm_offset_t home_lo, vm_offset_t home_hi, vm_pfn_t home_pfn, uint32_t *entered)
{
	size_t i = index_of(pmap, va), run;
	enum kern_return result = KERN_SUCCESS;

	*entered = 0;
	kmutex_lock(&pmap->lock);
	for (uint32_t k = 0; k < n; k++) {
		pt_entry_t old = pte_get(pmap, i + k);

		if (k != centre && ((old & PTE_WIRED) ||
		    (PTE_PFN(old) == PTE_PFN(pte[k]) && (pte[k] & ~old & PTE_PROT) == 0)))
			pte[k] = 0;
		*entered += pte[k] != 0;
	}
	for (uint32_t k = 0; k < n; k += (uint32_t)run) {
		size_t room = PMAP_LEAF_PAGES - (i + k) % PMAP_LEAF_PAGES;
		struct pmap_leaf *l;
		int error;

		run = 1;
		if (pte[k] == 0)
			continue;
		while (run < room && k + run < n && pte[k + run] != 0 &&
		    !boundary(pte[k + run - 1], pte[k + run]))
			run++;
		if (atomic_load_explicit(&total_runs, memory_order_relaxed) + 4 >= budget)
			relieve(pmap, budget / 4 * 3);
		l = leaf_make(pmap, i + k);
		if (l == NULL) {
			result = KERN_RESOURCE_SHORTAGE;
			break;
		}
		if (home_pfn != 0 && l->pte[(i + k) % PMAP_LEAF_PAGES] == 0)
			enter_home(pmap, l, i + k, run, index_of(pmap, home_lo),
			    index_of(pmap, home_hi), home_pfn);
		error = enter_run(pmap, l, i + k, run, pte + k);
		for (int tries = 0; error != 0 && tries < 3; tries++) {
			relieve(pmap, 0);
			error = enter_run(pmap, l, i + k, run, pte + k);
		}
		if (error != 0) {
			must_unmap(pmap, i + k, i + k + run - 1);
			result = KERN_RESOURCE_SHORTAGE;
			break;
		}
	}
	kmutex_unlock(&pmap->lock);
	return result;
}

/*
 * Taking away
 */

/* Are all ptes of the leaf alike but for the right to write, and without any other that could differ? */
static bool
is_plain(const struct pmap_leaf *l)
{
	return l->nvalid == PMAP_LEAF_PAGES && l->nexec == 0 && l->nwired == 0;
}

/* The first page of [i, end) that can be written; end: none.  => one leaf */
static size_t
next_write(const struct pmap_leaf *l, size_t i, size_t end)
{
	while (i < end) {
		uint64_t word = l->write[i % PMAP_LEAF_PAGES / 64] >> (i % 64);

		if (word != 0)
			return MIN(i + (size_t)__builtin_ctzll(word), end);
		i = (i | 63) + 1;
	}
	return end;
}

/* The ptes of [i, j], of which a leaf l has all, get rights `prot'; wired bits stay. */
static void
set_rights(struct pmap *pmap, struct pmap_leaf *l, size_t i, size_t j, unsigned prot)
{
	uint64_t before = boundaries(pmap, i, j);

	for (size_t k = i; k <= j; k++)
		pte_set(pmap, l, k, (l->pte[k % PMAP_LEAF_PAGES] & ~PTE_PROT) | prot);
	runs_change(pmap, before, boundaries(pmap, i, j));
}

/* Change the rights of [i, j] to prot in ptes and kernel; wired bits stay.  => every pte has a frame */
static void
limit_run(struct pmap *pmap, size_t i, size_t j, unsigned prot)
{
	size_t k, run, end, last;

	for (k = i; k <= j; k += run) {
		vm_pfn_t pfn = PTE_PFN(pte_get(pmap, k));
		int error;

		run = j - k + 1;
		if (!ops->spans)
			for (run = 1; k + run <= j && PTE_PFN(pte_get(pmap, k + run)) == pfn + run;)
				run++;
		error = ops->protect(va_of(pmap, k), run, pfn, prot);
		if (error != 0) {
			must_unmap(pmap, k, k + run - 1);
			continue;
		}
		for (size_t p = k; p < k + run; p = end) {
			struct pmap_leaf *l = leaf_of(pmap, p);

			end = MIN((p | (PMAP_LEAF_PAGES - 1)) + 1, k + run);
			if (!is_plain(l) || prot != PTE_R) {
				set_rights(pmap, l, p, end - 1, prot);
				continue;
			}
			/* Those that could be written are few among many, more often than not. */
			l->stale = l->nwrite < l->napart - l->napart / 4;
			while ((p = next_write(l, p, end)) < end) {
				for (last = p; last + 1 < end && next_write(l, last + 1, end) == last + 1;)
					last++;
				set_rights(pmap, l, p, last, prot);
				p = last + 1;
			}
		}
	}
}

/* A run of pages whose rights are to become the same. */
struct limit {
	size_t start, last;		/* the last that must change */
	unsigned prot;
	bool any;
};

static void
limit_flush(struct pmap *pmap, struct limit *run)
{
	if (run->any)
		limit_run(pmap, run->start, run->last, run->prot);
	run->any = false;
}

/* Page i is to have these rights, and has others. */
static void
limit_add(struct pmap *pmap, struct limit *run, size_t i, unsigned prot)
{
	if (run->any && prot != run->prot)
		limit_flush(pmap, run);
	if (!run->any)
		run->start = i;
	run->any = true;
	run->prot = prot;
	run->last = i;
}

/* All pages of [i, end), of which a plain leaf has all, lose the right to write. */
static void
limit_plain(struct pmap *pmap, struct limit *run, const struct pmap_leaf *l, size_t i, size_t end)
{
	size_t last = end;

	i = next_write(l, i, end);
	if (i == end)
		return;
	while (!bit_get(l->write, (last - 1) % PMAP_LEAF_PAGES))
		last--;
	limit_add(pmap, run, i, PTE_R);
	run->last = last - 1;
}

void
pmap_protect(struct pmap *pmap, vm_offset_t s, vm_offset_t e, vm_prot_t prot, unsigned flags)
{
	size_t end = index_of(pmap, e), stop;
	bool keep_read = prot == (VM_PROT_READ | VM_PROT_EXECUTE);
	struct limit run = { .any = false };

	kmutex_lock(&pmap->lock);
	for (size_t i = index_of(pmap, s); i < end; i = stop) {
		const struct pmap_leaf *l = leaf_of(pmap, i);

		stop = MIN((i | (PMAP_LEAF_PAGES - 1)) + 1, end);
		if (l == NULL || l->nvalid == 0 || (keep_read && l->nwrite == 0 && !is_plain(l))) {
			limit_flush(pmap, &run);
			continue;
		}
		if (is_plain(l) && keep_read && (!run.any || run.prot == PTE_R)) {
			limit_plain(pmap, &run, l, i, stop);
			continue;
		}
		for (; i < stop; i++) {
			pt_entry_t pte = l->pte[i % PMAP_LEAF_PAGES];
			unsigned new = pte & PTE_PROT & prot;

			if (PTE_PFN(pte) == 0 || ((flags & PMAP_KEEP_WIRED) && (pte & PTE_WIRED)))
				limit_flush(pmap, &run);
			else if (new != (pte & PTE_PROT))
				limit_add(pmap, &run, i, new);
			else if (run.any && new != run.prot)
				limit_flush(pmap, &run);
		}
	}
	limit_flush(pmap, &run);
	settle(pmap);
	kmutex_unlock(&pmap->lock);
}

void
pmap_remove(struct pmap *pmap, vm_offset_t s, vm_offset_t e)
{
	size_t i = index_of(pmap, s), end = index_of(pmap, e);
	bool any = false;

	kmutex_lock(&pmap->lock);
	for (size_t k = i; k < end && !any; k = (k | (PMAP_LEAF_PAGES - 1)) + 1)
		any = leaf_of(pmap, k) != NULL;
	if (any)
		must_unmap(pmap, i, end - 1);
	for (size_t k = i; any && k < end; k = (k | (PMAP_LEAF_PAGES - 1)) + 1) {
		struct pmap_dir **d = &pmap->dir[k >> DIR_SHIFT];
		struct pmap_leaf *l = leaf_of(pmap, k);

		if (l == NULL || l->nframe != 0)
			continue;
		KASSERT(l->nvalid == 0 && l->nwired == 0);
		(*d)->leaf[(k >> PMAP_LEAF_SHIFT) % DIR_LEAVES] = NULL;
		slab_free(&leaf_slab, l);
		if (--(*d)->used == 0) {
			slab_free(&dir_slab, *d);
			*d = NULL;
		}
	}
	settle(pmap);
	kmutex_unlock(&pmap->lock);
}

void
pmap_page_limit(struct pmap *pmap, vm_offset_t va, vm_pfn_t pfn, vm_prot_t prot)
{
	size_t i = index_of(pmap, va);
	pt_entry_t pte;

	kmutex_lock(&pmap->lock);
	pte = pte_get(pmap, i);
	if (PTE_PFN(pte) == pfn && (pte & PTE_PROT & ~(unsigned)prot) != 0)
		limit_run(pmap, i, i, pte & PTE_PROT & prot);
	settle(pmap);
	kmutex_unlock(&pmap->lock);
}

pt_entry_t
pmap_extract(struct pmap *pmap, vm_offset_t va)
{
	pt_entry_t pte;

	kmutex_lock(&pmap->lock);
	pte = pte_get(pmap, index_of(pmap, va));
	kmutex_unlock(&pmap->lock);
	return pte;
}

void
pmap_change_wiring(struct pmap *pmap, vm_offset_t va, bool wired)
{
	size_t i = index_of(pmap, va);
	struct pmap_leaf *l;
	pt_entry_t pte;

	kmutex_lock(&pmap->lock);
	l = leaf_of(pmap, i);
	if (l != NULL) {
		pte = l->pte[i % PMAP_LEAF_PAGES];
		pte_set(pmap, l, i, wired ? pte | PTE_WIRED : pte & ~PTE_WIRED);
	}
	kmutex_unlock(&pmap->lock);
}

/*
 * Life, and the budget
 */

/* Lines of a /proc file, or the number it begins with. */
static uint64_t
proc_read(const char *path, bool lines)
{
	char buf[4096];
	uint64_t n = 0;
	int64_t got;
	int fd = sys_open(path, O_RDONLY);

	if (fd < 0)
		return 0;
	while ((got = sys_read(fd, buf, sizeof(buf))) > 0)
		for (int64_t i = 0; i < got; i++) {
			if (lines)
				n += buf[i] == '\n';
			else if (buf[i] >= '0' && buf[i] <= '9')
				n = n * 10 + (uint64_t)(buf[i] - '0');
		}
	(void)sys_close(fd);
	return n;
}

void
pmap_init(const struct pmap_ops *strategy, uint32_t mappings)
{
	uint64_t max = proc_read("/proc/sys/vm/max_map_count", false);
	uint64_t mine = proc_read("/proc/self/maps", true);
	uint64_t rest;

	if (max == 0)
		max = DEFAULT_MAX;
	/* An eighth stays for what the program will map itself. */
	rest = max - max / 8 > mine + 64 ? max - max / 8 - mine : 64;
	budget = mappings != 0 ? MIN(mappings, rest) : rest;
	ops = strategy;
	atomic_store(&total_runs, 0);
	slab_init(&dir_slab, "pmap_dir", sizeof(struct pmap_dir), 8);
	slab_init(&leaf_slab, "pmap_leaf", sizeof(struct pmap_leaf), 8);
	kmutex_init(&list_lock, RANK_PMAP_LIST);
	TAILQ_INIT(&pmaps);
}

struct pmap *
pmap_create(vm_offset_t base, vm_size_t size)
{
	struct pmap *pmap = kmem_alloc(sizeof(*pmap));

	if (pmap == NULL)
		return NULL;
	kmutex_init(&pmap->lock, RANK_PMAP);
	pmap->base = base;
	pmap->size = size;
	pmap->ndir = (uint32_t)(((size >> PAGE_SHIFT) + (1u << DIR_SHIFT) - 1) >> DIR_SHIFT);
	pmap->dir = kmem_alloc(pmap->ndir * sizeof(*pmap->dir));
	if (pmap->dir == NULL) {
		kmem_free(pmap, sizeof(*pmap));
		return NULL;
	}
	pmap->runs = 1;
	atomic_fetch_add(&total_runs, 1);
	kmutex_lock(&list_lock);
	TAILQ_INSERT_TAIL(&pmaps, pmap, link);
	kmutex_unlock(&list_lock);
	return pmap;
}

void
pmap_destroy(struct pmap *pmap)
{
	kmutex_lock(&list_lock);
	TAILQ_REMOVE(&pmaps, pmap, link);
	kmutex_unlock(&list_lock);
	atomic_fetch_sub(&total_runs, pmap->runs);
	for (uint32_t i = 0; i < pmap->ndir; i++) {
		struct pmap_dir *d = pmap->dir[i];

		for (uint32_t k = 0; d != NULL && k < DIR_LEAVES; k++)
			if (d->leaf[k] != NULL)
				slab_free(&leaf_slab, d->leaf[k]);
		if (d != NULL)
			slab_free(&dir_slab, d);
	}
	kmem_free(pmap->dir, pmap->ndir * sizeof(*pmap->dir));
	kmem_free(pmap, sizeof(*pmap));
}

void
pmap_fini(void)
{
	KASSERT(TAILQ_EMPTY(&pmaps));
	slab_fini(&dir_slab);
	slab_fini(&leaf_slab);
}

uint64_t
pmap_mappings(void)
{
	return atomic_load_explicit(&total_runs, memory_order_relaxed);
}

uint64_t
pmap_mappings_max(void)
{
	return budget;
}

bool
pmap_mappings_short(void)
{
	return pmap_mappings() > budget / 2;
}

uint64_t
pmap_count_runs(struct pmap *pmap)
{
	uint64_t n;

	kmutex_lock(&pmap->lock);
	n = 1 + boundaries(pmap, 0, (pmap->size >> PAGE_SHIFT) - 1);
	kmutex_unlock(&pmap->lock);
	return n;
}

vm_offset_t
pmap_next(struct pmap *pmap, vm_offset_t va, pt_entry_t *pte)
{
	size_t n = pmap->size >> PAGE_SHIFT;

	kmutex_lock(&pmap->lock);
	for (size_t i = index_of(pmap, va); i < n; i++) {
		if (pmap->dir[i >> DIR_SHIFT] == NULL) {
			i |= ((size_t)1 << DIR_SHIFT) - 1;
		} else if (leaf_of(pmap, i) == NULL) {
			i |= PMAP_LEAF_PAGES - 1;
		} else if ((*pte = pte_get(pmap, i)) != 0) {
			kmutex_unlock(&pmap->lock);
			return va_of(pmap, i);
		}
	}
	kmutex_unlock(&pmap->lock);
	return 0;
}
