/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The physical map: entering, taking away, looking up.
 *
 * Giving rights may fail; then the run is made reserved address space, and the
 * touch faults again.  Taking rights away must not fail: it is tried again
 * after forgetting, then in a way that needs no mapping, and at last the
 * process stops rather than let a write through that nobody knows of.
 */

#include "kern/assert.h"
#include "kern/probe.h"
#include "kern/slab.h"
#include "pmap_impl.h"
#include "vm_meter.h"

#define APART_PAGES	16				/* a longer run is not kept apart, ... */
#define APART_WRITE	16				/* ... nor any in a leaf where so many can be written; */
#define JOIN_WRITE	64				/* where so many can be, they are merged again */
#define DENSE_TIMES	4				/* snapshots after which a hint is old */
#define DENSE_SAMPLE	16				/* of so many leaves one is looked at again ... */
#define DENSE_MIX	7				/* ... not neighbours, and in time each of them */

const struct pmap_ops *pmap_ops;

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
	if (pmap_ops->map(va_of(pmap, first), last - first + 1, pfn, 0) != 0)
		return;			/* the run itself will be mapped, or fail, by itself */
	for (size_t k = first; k <= last; k++)
		pte_set(pmap, l, k, PTE_MAKE(pfn + (k - first), 0));
	changed(pmap, first, last, before);
}

/*
 * Should pages [i, i + n), which may be read, be kept apart when they are written?  Only where they
 * are few, and cut out of the midst of a mapping.
 */
static bool
worth_apart(struct pmap *pmap, struct pmap_leaf *l, size_t i, size_t n, pt_entry_t pte)
{
	if (pmap_ops->keep_apart == NULL || !(pte & PTE_W) || n > APART_PAGES ||
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

/* Could page i, which is mapped as `old' says, be in one mapping with its neighbour, whose pte is `pte'? */
static bool
continues(const struct pmap *pmap, size_t i, pt_entry_t old, pt_entry_t pte, bool ahead)
{
	const struct pmap_leaf *l = leaf_of(pmap, i);

	return l != NULL && !l->view && (old & PTE_PROT) != 0 && !(old & PTE_WIRED) &&
	    !bit_get(l->apart, i % PMAP_LEAF_PAGES) && !(ahead ? pte_boundary(pte, old) : pte_boundary(old, pte));
}

/*
 * How many of the n pages from i on, of which the first is to be entered, make one run: frames in a row and equal
 * rights.  A few between them may be mapped so already; one call for all is cheaper than two that leave them out.
 */
static size_t
run_length(const struct pmap *pmap, size_t i, size_t n, const pt_entry_t *pte)
{
	pt_entry_t prev = pte[0];
	size_t run = 1;

	for (size_t k = 1; k < n; k++) {
		pt_entry_t now = pte[k] != 0 ? pte[k] : pte_get(pmap, i + k);

		if (pte[k] != 0 ? pte_boundary(prev, now) : !continues(pmap, i + k, now, prev, true))
			break;
		prev = now;
		if (pte[k] != 0)
			run = k + 1;
	}
	return run;
}

/*
 * When mappings are short a page brings with it only what will be in one mapping with it: leave out the rest of the n
 * pages from i on.
 */
static void
keep_one_run(const struct pmap *pmap, size_t i, uint32_t n, pt_entry_t *pte, uint32_t centre)
{
	uint32_t lo = centre, hi = centre + (uint32_t)run_length(pmap, i + centre, n - centre, pte + centre);
	pt_entry_t next = pte[centre];

	for (uint32_t k = centre; k-- > 0;) {
		pt_entry_t now = pte[k] != 0 ? pte[k] : pte_get(pmap, i + k);

		if (pte[k] != 0 ? pte_boundary(now, next) : !continues(pmap, i + k, now, next, false))
			break;
		next = now;
		lo = k;
	}
	for (uint32_t k = 0; k < n; k++)
		if (k < lo || k >= hi)
			pte[k] = 0;
}

/* Enter those of the pages [i, i + n) of one leaf that have a pte: see run_length().  0 or -errno */
static int
enter_run(struct pmap *pmap, struct pmap_leaf *l, size_t i, size_t n, const pt_entry_t *pte)
{
	bool same_frames = true, same = true, apart;
	uint64_t before;
	int error = 0;

	for (size_t k = 0; k < n; k++) {
		pt_entry_t old = l->pte[(i + k) % PMAP_LEAF_PAGES];

		if (pte[k] == 0)
			continue;
		same_frames = same_frames && PTE_PFN(old) == PTE_PFN(pte[k]);
		same = same && ((old ^ pte[k]) & ~PTE_WIRED) == 0;
	}
	apart = !same && same_frames && worth_apart(pmap, l, i, n, pte[0]);
	if (!same && same_frames)
		error = pmap_ops->protect(va_of(pmap, i), n, PTE_PFN(pte[0]), pte[0] & PTE_PROT);
	else if (!same)
		error = pmap_ops->map(va_of(pmap, i), n, PTE_PFN(pte[0]), pte[0] & PTE_PROT);
	if (error != 0)
		return error;
	apart = apart && pmap_ops->keep_apart(va_of(pmap, i), n, true) == 0;
	before = boundaries(pmap, i, i + n - 1);
	for (size_t k = 0; k < n; k++) {
		if (pte[k] == 0)
			continue;
		pte_set(pmap, l, i + k, pte[k]);
		if (apart || !same_frames)
			apart_set(pmap, l, i + k, apart);
	}
	changed(pmap, i, i + n - 1, before);
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
	}
	if (n > 1 && pmap_mappings_short())
		keep_one_run(pmap, i, n, pte, centre);
	for (uint32_t k = 0; k < n; k++)
		*entered += pte[k] != 0;
	for (uint32_t k = 0; k < n; k += (uint32_t)run) {
		size_t room = PMAP_LEAF_PAGES - (i + k) % PMAP_LEAF_PAGES;
		struct pmap_leaf *l;
		int error;

		run = 1;
		if (pte[k] == 0)
			continue;
		if (pmap_runs() + 4 >= pmap_budget)
			relieve_some(pmap);
		/* What is forgotten between its pages cuts a run: this comes after. */
		run = run_length(pmap, i + k, MIN(room, (size_t)(n - k)), pte + k);
		l = leaf_make(pmap, i + k);
		KASSERT(l == NULL || !l->view);
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
			run = run_length(pmap, i + k, run, pte + k);
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
		size_t k = i % PMAP_LEAF_PAGES;
		uint64_t word = l->write[k / 64] >> (k % 64);

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
	changed(pmap, i, j, before);
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
		if (!pmap_ops->spans)
			for (run = 1; k + run <= j && PTE_PFN(pte_get(pmap, k + run)) == pfn + run;)
				run++;
		error = pmap_ops->protect(va_of(pmap, k), run, pfn, prot);
		PROBE("pmap: rights taken");
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

/*
 * Is it a leaf that is pushed in parts (vm_dense.c), of which some were and some were not?  It loses all rights: the parts
 * that lost them before and the others, and leaves like it, become one mapping, in one call.  Nothing would be gained by
 * a right to read here and there.  => the whole leaf is to lose the right to write
 */
static bool
is_in_parts(const struct pmap *pmap, const struct pmap_leaf *l)
{
	return l->dense != 0 && (int32_t)(l->dense - pmap->epoch) >= 0 && l->nframe == PMAP_LEAF_PAGES &&
	    l->nwired == 0 && l->nwrite != 0 && l->nvalid != PMAP_LEAF_PAGES;
}

void
pmap_protect(struct pmap *pmap, vm_offset_t s, vm_offset_t e, vm_prot_t prot, unsigned flags)
{
	size_t end = index_of(pmap, e), stop;
	bool keep_read = prot == (VM_PROT_READ | VM_PROT_EXECUTE);
	bool may_park = pmap_ops->park && !(prot & VM_PROT_WRITE);
	struct limit run = { .any = false };

	kmutex_lock(&pmap->lock);
	pmap->epoch += (flags & PMAP_CUT) != 0;
	for (size_t i = index_of(pmap, s); i < end; i = stop) {
		const struct pmap_leaf *l;
		size_t parked;

		if (pmap->dir[i >> DIR_SHIFT] == NULL) {
			limit_flush(pmap, &run);
			stop = (i | (((size_t)1 << DIR_SHIFT) - 1)) + 1;
			continue;
		}
		stop = MIN((i | (PMAP_LEAF_PAGES - 1)) + 1, end);
		if (leaf_is_parked(pmap, i)) {
			limit_flush(pmap, &run);
			continue;
		}
		l = leaf_of(pmap, i);
		if (l != NULL && l->view) {
			limit_flush(pmap, &run);
			if (!(flags & PMAP_KEEP_VIEWS))
				stop = view_limit(pmap, i, end, prot);
			continue;
		}
		parked = i % PMAP_LEAF_PAGES == 0 ? park(pmap, i, end, &may_park) : 0;
		if (parked != 0) {
			limit_flush(pmap, &run);
			stop = i + parked;
			continue;
		}
		if (l != NULL && !(prot & VM_PROT_WRITE) && stop - i == PMAP_LEAF_PAGES && is_in_parts(pmap, l)) {
			limit_add(pmap, &run, i, 0);
			run.last = stop - 1;
			continue;
		}
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

static bool
is_known(const struct pmap *pmap, const struct pmap_leaf *l)
{
	return (l->avoid != 0 && (int32_t)(l->avoid - pmap->epoch) >= 0) ||
	    (l->dense != 0 && (int32_t)(l->dense - pmap->epoch) >= 0);
}

static void
take_away(struct pmap *pmap, vm_offset_t s, vm_offset_t e, bool hints)
{
	size_t i = index_of(pmap, s), end = index_of(pmap, e);
	bool any = false;

	kmutex_lock(&pmap->lock);
	for (size_t k = i; k < end && !any; k = (k | (PMAP_LEAF_PAGES - 1)) + 1)
		any = leaf_of(pmap, k) != NULL;
	if (any)
		must_unmap(pmap, i, end - 1);
	for (size_t k = i; any && k < end; k = (k | (PMAP_LEAF_PAGES - 1)) + 1) {
		struct pmap_leaf *l = leaf_of(pmap, k);

		if (l != NULL && l->nframe == 0 && (hints || !is_known(pmap, l)))
			leaf_drop(pmap, k);
	}
	settle(pmap);
	kmutex_unlock(&pmap->lock);
}

void
pmap_remove(struct pmap *pmap, vm_offset_t s, vm_offset_t e)
{
	take_away(pmap, s, e, true);
}

void
pmap_unmap(struct pmap *pmap, vm_offset_t s, vm_offset_t e)
{
	take_away(pmap, s, e, false);
}

void
pmap_page_limit(struct pmap *pmap, vm_offset_t va, vm_pfn_t pfn, vm_prot_t prot)
{
	size_t i = index_of(pmap, va);
	pt_entry_t pte;

	kmutex_lock(&pmap->lock);
	pte = pte_get(pmap, i);
	if (PTE_PFN(pte) != pfn || (pte & PTE_PROT & ~(unsigned)prot) == 0)
		;
	else if (leaf_of(pmap, i)->view)
		(void)view_limit(pmap, i, i + 1, prot);
	else
		limit_run(pmap, i, i, pte & PTE_PROT & prot);
	settle(pmap);
	kmutex_unlock(&pmap->lock);
}

pt_entry_t
pmap_look(struct pmap *pmap, vm_offset_t va, bool *parked)
{
	size_t i = index_of(pmap, va);
	const struct pmap_leaf *l;
	pt_entry_t pte;

	kmutex_lock(&pmap->lock);
	l = leaf_of(pmap, i);
	pte = l != NULL ? l->pte[i % PMAP_LEAF_PAGES] : 0;
	*parked = l != NULL && l->parked;
	kmutex_unlock(&pmap->lock);
	return pte;
}

/*
 * Who writes much cannot be seen at it while all is pushed at once, so the hint ends after some snapshots.  Then few
 * leaves are looked at again (as views), and the others do as these did: to look at all again would cut the rows.
 */
bool
pmap_dense(struct pmap *pmap, vm_offset_t va)
{
	struct pmap_leaf *l;
	bool dense;

	kmutex_lock(&pmap->lock);
	l = leaf_peek(pmap, index_of(pmap, va));
	dense = l != NULL && l->dense != 0;
	if (dense && (int32_t)(l->dense - pmap->epoch) < 0) {
		size_t number = index_of(pmap, va) >> PMAP_LEAF_SHIFT;

		dense = pmap->dense && (number * DENSE_MIX + pmap->epoch) % DENSE_SAMPLE != 0;
		l->dense = dense ? MAX(pmap->epoch + DENSE_TIMES, 1) : 0;
	}
	kmutex_unlock(&pmap->lock);
	return dense;
}

void
pmap_dense_set(struct pmap *pmap, vm_offset_t va, bool dense)
{
	struct pmap_leaf *l;

	kmutex_lock(&pmap->lock);
	pmap->dense = dense;
	l = leaf_peek(pmap, index_of(pmap, va));
	if (l != NULL)
		l->dense = dense ? MAX(pmap->epoch + DENSE_TIMES, 1) : 0;
	kmutex_unlock(&pmap->lock);
}

pt_entry_t
pmap_extract(struct pmap *pmap, vm_offset_t va)
{
	bool parked;

	return pmap_look(pmap, va, &parked);
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
		uint64_t before = boundaries(pmap, i, i);

		pte = l->pte[i % PMAP_LEAF_PAGES];
		pte_set(pmap, l, i, wired ? pte | PTE_WIRED : pte & ~PTE_WIRED);
		changed(pmap, i, i, before);
	}
	kmutex_unlock(&pmap->lock);
}

/*
 * Life
 */

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
	runs_add(pmap, 1);
	pmap_link(pmap);
	return pmap;
}

void
pmap_destroy(struct pmap *pmap)
{
	pmap_unlink(pmap);
	runs_add(pmap, -pmap->runs);
	leaf_free_all(pmap);
	kmem_free(pmap->dir, pmap->ndir * sizeof(*pmap->dir));
	kmem_free(pmap, sizeof(*pmap));
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
pmap_next_write(struct pmap *pmap, vm_offset_t va, pt_entry_t *pte)
{
	size_t n = pmap->size >> PAGE_SHIFT, i;
	const struct pmap_leaf *l;

	kmutex_lock(&pmap->lock);
	for (i = index_of(pmap, va); i < n; i = (i | (PMAP_LEAF_PAGES - 1)) + 1) {
		size_t end = MIN((i | (PMAP_LEAF_PAGES - 1)) + 1, n);

		if (pmap->dir[i >> DIR_SHIFT] == NULL) {
			i |= ((size_t)1 << DIR_SHIFT) - 1;
			continue;
		}
		l = leaf_is_parked(pmap, i) ? NULL : leaf_of(pmap, i);
		if (l == NULL || l->nwrite == 0)
			continue;
		i = next_write(l, i, end);
		if (i < end) {
			*pte = l->pte[i % PMAP_LEAF_PAGES];
			kmutex_unlock(&pmap->lock);
			return va_of(pmap, i);
		}
		i = end - 1;
	}
	kmutex_unlock(&pmap->lock);
	return 0;
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
