/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Keeping below the kernel's limit of mappings, by forgetting.
 *
 * When the mappings of all pmaps together near the budget, leaves are forgotten whole, round
 * and round: frames in a row become one mapping without rights, others none at all.  Who
 * touches them faults, and they come back.
 */

#include <fcntl.h>
#include <string.h>

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/sys.h"
#include "pmap_impl.h"
#include "vm_meter.h"

#define DEFAULT_MAX	65530				/* the kernel's own default */
#define RELIEF_SHARE	16				/* of the budget: more at a time would keep a fault waiting for long */
#define LAST_RESORT_NS	((int64_t)5 * 1000 * 1000 * 1000)
#define PAUSE_NS	1000000

uint64_t pmap_budget;
_Atomic uint64_t pmap_total_runs;
static struct kmutex list_lock;				/* guards pmaps */
static TAILQ_HEAD(, pmap) pmaps;

void
runs_add(struct pmap *pmap, uint64_t n)
{
	pmap->runs += n;
	atomic_fetch_add_explicit(&pmap_total_runs, n, memory_order_relaxed);
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
		error = pmap_ops->protect(va_of(pmap, i), j - i + 1, pfn, 0);
	else
		error = pmap_ops->unmap(va_of(pmap, i), (j - i + 1) << PAGE_SHIFT);
	if (error != 0)
		return;
	for (size_t k = i; k <= j; k++) {
		pt_entry_t old = l->pte[k % PMAP_LEAF_PAGES];

		vm_count_n(v_forgets, (old & PTE_PROT) != 0);
		pte_set(pmap, l, k, row ? PTE_MAKE(PTE_PFN(old), 0) : 0);
	}
	changed(pmap, i, j, before);
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

void
leaf_join(struct pmap *pmap, struct pmap_leaf *l, size_t first)
{
	size_t last = MIN(first + PMAP_LEAF_PAGES, pmap->size >> PAGE_SHIFT) - 1;
	uint64_t before;

	if (l->napart == 0 || pmap_ops->keep_apart(va_of(pmap, first), last - first + 1, false) != 0)
		return;			/* they stay, and are counted as mappings */
	before = boundaries(pmap, first, last);
	pmap->napart -= l->napart;
	l->napart = 0;
	l->stale = false;
	memset(l->apart, 0, sizeof(l->apart));
	changed(pmap, first, last, before);
}

void
pmap_join(struct pmap *pmap)
{
	for (uint32_t d = 0; d < pmap->ndir && pmap->napart != 0; d++)
		for (uint32_t n = 0; pmap->dir[d] != NULL && n < DIR_LEAVES; n++)
			if (pmap->dir[d]->leaf[n] != NULL)
				leaf_join(pmap, pmap->dir[d]->leaf[n],
				    (size_t)d << DIR_SHIFT | (size_t)n << PMAP_LEAF_SHIFT);
}

/*
 * Forget leaves of this pmap until all mappings together are at most `goal`.  First those of more mappings than
 * the average: what one mapping holds would cost many faults, and give little.  Then any.
 */
static void
pmap_forget(struct pmap *pmap, uint64_t goal)
{
	size_t nleaves = ((pmap->size >> PAGE_SHIFT) + PMAP_LEAF_PAGES - 1) >> PMAP_LEAF_SHIFT;
	uint64_t average;

	/* What can be had without a fault comes first. */
	pmap_join(pmap);
	if (pmap_runs() <= goal)
		return;
	average = pmap->runs / MAX(pmap->nleaves, 1);
	for (size_t n = 0; n < 2 * nleaves; n++) {
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
		if (l == NULL || l->nframe == l->nwired || l->view || (n < nleaves &&
		    boundaries(pmap, first, MIN(first + PMAP_LEAF_PAGES, pmap->size >> PAGE_SHIFT) - 1) < average))
			continue;
		leaf_forget(pmap, l, first);
		if (pmap_runs() <= goal)
			return;
	}
}

/* Our own first, then those of pmaps nobody holds. */
void
relieve(struct pmap *pmap, uint64_t goal)
{
	struct pmap *p;

	while (pmap_runs() > goal && park_reap())
		;
	pmap_forget(pmap, goal);
	if (pmap_runs() <= goal)
		return;
	kmutex_lock(&list_lock);
	TAILQ_FOREACH(p, &pmaps, link)
		if (p != pmap && kmutex_trylock(&p->lock)) {
			pmap_forget(p, goal);
			kmutex_unlock(&p->lock);
		}
	kmutex_unlock(&list_lock);
}

void
relieve_some(struct pmap *pmap)
{
	relieve(pmap, pmap_budget - pmap_budget / RELIEF_SHARE);
}

/* => no run half done */
void
settle(struct pmap *pmap)
{
	if (pmap_runs() > pmap_budget)
		relieve_some(pmap);
}

void
must_wait(struct pmap *pmap, size_t i, size_t n, uint64_t *deadline)
{
	uint32_t ticket = event_prepare(pmap);

	if (*deadline == 0)
		*deadline = sys_clock() + LAST_RESORT_NS;
	if (sys_clock() > *deadline)
		kpanic("the kernel will not take %lu pages at %p back: raise vm.max_map_count", (unsigned long)n,
		    (void *)va_of(pmap, i));
	(void)event_wait(pmap, ticket, PAUSE_NS);
}

void
must_unmap(struct pmap *pmap, size_t i, size_t j)
{
	uint64_t before = boundaries(pmap, i, j);
	uint64_t deadline = 0;

	while (pmap_ops->unmap(va_of(pmap, i), (j - i + 1) << PAGE_SHIFT) != 0)
		must_wait(pmap, i, j - i + 1, &deadline);
	for (size_t k = i; k <= j; k++) {
		struct pmap_leaf *l = leaf_of(pmap, k);

		if (l == NULL)
			k |= PMAP_LEAF_PAGES - 1;
		else if (l->pte[k % PMAP_LEAF_PAGES] != 0)
			pte_set(pmap, l, k, 0);
	}
	changed(pmap, i, j, before);
}

/*
 * The budget
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
	pmap_budget = mappings != 0 ? MIN(mappings, rest) : rest;
	if (strategy == NULL)
		strategy = pmap_best();
	if (strategy->view && !view_init())
		strategy = &pmap_park_ops;
	pmap_ops = strategy;
	atomic_store(&pmap_total_runs, 0);
	kmutex_init(&list_lock, RANK_PMAP_LIST);
	TAILQ_INIT(&pmaps);
	leaf_init();
	park_init();
}

void
pmap_fini(void)
{
	KASSERT(TAILQ_EMPTY(&pmaps));
	park_fini();
	view_fini();
	leaf_fini();
}

void
pmap_views_forked(bool again)
{
	view_fini();
	/* What was open tells of the parent's memory. */
	if (again && pmap_ops->view)
		(void)view_init();
}

void
pmap_link(struct pmap *pmap)
{
	kmutex_lock(&list_lock);
	TAILQ_INSERT_TAIL(&pmaps, pmap, link);
	kmutex_unlock(&list_lock);
}

void
pmap_unlink(struct pmap *pmap)
{
	kmutex_lock(&list_lock);
	TAILQ_REMOVE(&pmaps, pmap, link);
	kmutex_unlock(&list_lock);
}

uint64_t
pmap_mappings(void)
{
	return pmap_runs();
}

uint64_t
pmap_mappings_max(void)
{
	return pmap_budget;
}

bool
pmap_mappings_short(void)
{
	return pmap_runs() > pmap_budget / 2;
}
