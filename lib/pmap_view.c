/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Private views: letting the kernel copy.
 *
 *	shared	va --> frames			a write is seen in the frames
 *	view	va --> frames, MAP_PRIVATE	a write is seen at va only: the kernel has copied the page
 *
 * A leaf whose frames nobody may write, because a copy or a snapshot still needs what they hold, can be
 * mapped private and writable.  Then the kernel serves the writers at its own speed, without a signal and
 * without cutting mappings, and system calls never see EFAULT.  The price: a changed page is the
 * kernel's, until vm_view.c brings it home into its frame; and /proc/self/pagemap has to be asked which
 * ones were changed.
 *
 * For the pmap a view is a leaf, whole, whose ptes say of each frame that it may be read: that is all
 * that happens to the frame.  Whether the kernel lets the page be written stands beside.
 * A view is never forgotten, for it holds what exists nowhere else; taking rights from it keeps that,
 * and is done to the leaf as a whole, so that no mapping is cut.
 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "kern/assert.h"
#include "kern/sys.h"
#include "physmem.h"
#include "pmap_impl.h"
#include "vm_meter.h"

#define LEAF_SIZE	((vm_size_t)PMAP_LEAF_PAGES << PAGE_SHIFT)
#define AVOID_TIMES	16u		/* snapshots and forks that what is known of a leaf is good for */
#define OWN_MANY	16u		/* pages: more than a few */
#define RUNS_SHARE	4u		/* of all mappings: with more in use no view is made, for it cannot be forgotten */

/* An entry of /proc/self/pagemap (the kernel's Documentation/admin-guide/mm/pagemap.rst). */
#define PM_FILE		((uint64_t)1 << 61)	/* of a file, or shared */
#define PM_SWAP		((uint64_t)1 << 62)
#define PM_PRESENT	((uint64_t)1 << 63)
#define PM_AT_ONCE	64u

static int pagemap = -1;		/* constant while the library runs; -1: no views */

/*
 * The kernel's side
 */

static void *
map_private(void *va, vm_size_t size, int fd, vm_pfn_t pfn)
{
	void *p = sys_mmap(va, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | (va != NULL ? MAP_FIXED : 0),
	    fd, (uint64_t)pfn << PAGE_SHIFT);

	if (!sys_is_err(p))
		(void)sys_madvise(p, size, MADV_DONTDUMP);
	return p;
}

/* The same for a leaf with some pages of other frames', at once: nobody sees it without these. */
static void *
map_mended(void *va, vm_pfn_t pfn, const struct pmap_away *away, uint32_t naway)
{
	char *p = map_private(NULL, LEAF_SIZE, physmem_fd_of(pfn), pfn);
	void *q = NULL;
	bool ok = true;

	if (sys_is_err(p))
		return p;
	for (uint32_t i = 0; i < naway && ok; i++)
		ok = sys_pread(physmem_fd_of(away[i].pfn), p + ((size_t)away[i].page << PAGE_SHIFT), PAGE_SIZE,
		    (uint64_t)away[i].pfn << PAGE_SHIFT) == PAGE_SIZE;
	if (ok)
		q = sys_mremap(p, LEAF_SIZE, LEAF_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, va);
	if (!ok || sys_is_err(q)) {
		(void)sys_munmap(p, LEAF_SIZE);
		return MAP_FAILED;
	}
	return q;
}

/* Which of n pages from va on are the kernel's copies?  A bit for each.  0 or -errno */
static int
read_changed(vm_offset_t va, size_t n, uint64_t *changed)
{
	uint64_t entry[PM_AT_ONCE];

	for (size_t i = 0, some; i < n; i += some) {
		int64_t bytes;

		some = MIN(n - i, PM_AT_ONCE);
		bytes = sys_pread(pagemap, entry, some * sizeof(entry[0]), (atop(va) + i) * sizeof(entry[0]));
		if (bytes != (int64_t)(some * sizeof(entry[0])))
			return bytes < 0 ? (int)bytes : -EIO;
		for (size_t k = 0; k < some; k++)
			bit_set(changed, i + k, (entry[k] & (PM_PRESENT | PM_SWAP)) && !(entry[k] & PM_FILE));
	}
	return 0;
}

/* Does this kernel tell, and does it tell the truth?  Of four pages one is written. */
static bool
works(void)
{
	uint64_t changed = 0;
	bool right = false;
	volatile char *p;
	int fd = sys_memfd("vmfault-probe");

	if (fd < 0)
		return false;
	p = sys_ftruncate(fd, 4 * PAGE_SIZE) == 0 ? map_private(NULL, 4 * PAGE_SIZE, fd, 0) : MAP_FAILED;
	if (p != MAP_FAILED && !sys_is_err((const void *)p)) {
		p[2 * PAGE_SIZE] = p[PAGE_SIZE];
		right = read_changed((vm_offset_t)p, 4, &changed) == 0 && changed == (uint64_t)1 << 2;
		(void)sys_munmap((void *)p, 4 * PAGE_SIZE);
	}
	(void)sys_close(fd);
	return right;
}

bool
view_init(void)
{
	bool right;

	pagemap = sys_open("/proc/self/pagemap", O_RDONLY);
	if (pagemap < 0)
		return false;
	right = works();
	if (!right)
		view_fini();
	return right;
}

void
view_fini(void)
{
	if (pagemap >= 0)
		(void)sys_close(pagemap);
	pagemap = -1;
}

/*
 * The pmap's side
 */

static struct pmap_leaf *
view_at(struct pmap *pmap, vm_offset_t va)
{
	struct pmap_leaf *l = leaf_of(pmap, index_of(pmap, va));

	KASSERT(index_of(pmap, va) % PMAP_LEAF_PAGES == 0 && l != NULL && l->view);
	return l;
}

bool
pmap_has_views(void)
{
	return pagemap >= 0;
}

static bool
is_like(const struct pmap *pmap, size_t i)
{
	return leaf_is_parked(pmap, i) && leaf_peek(pmap, i)->dense == 0;
}

/*
 * How many leaves before that of va, and after it, were parked and not looked at since, and are not known to be
 * written all over, within `leaves' aligned ones?  0 and 0 if it was not parked itself.
 */
void
pmap_view_around(struct pmap *pmap, vm_offset_t va, size_t leaves, size_t *before, size_t *after)
{
	size_t i = index_of(pmap, va), all = leaves << PMAP_LEAF_SHIFT, first = i & ~(all - 1);
	size_t end = MIN(first + all, pmap->size >> PAGE_SHIFT);

	*before = *after = 0;
	kmutex_lock(&pmap->lock);
	if (leaf_is_parked(pmap, i)) {
		while (i - (*before << PMAP_LEAF_SHIFT) > first &&
		    is_like(pmap, i - ((*before + 1) << PMAP_LEAF_SHIFT)))
			++*before;
		while (i + ((*after + 1) << PMAP_LEAF_SHIFT) < end &&
		    is_like(pmap, i + ((*after + 1) << PMAP_LEAF_SHIFT)))
			++*after;
	}
	kmutex_unlock(&pmap->lock);
}

bool
pmap_view_open(struct pmap *pmap, vm_offset_t va, vm_pfn_t pfn, size_t leaves, const struct pmap_away *away, uint32_t naway)
{
	size_t i = index_of(pmap, va), j = i + (leaves << PMAP_LEAF_SHIFT) - 1;
	bool ok = false;

	kmutex_lock(&pmap->lock);
	if (pmap_runs() + leaves < pmap_budget / RUNS_SHARE && (leaves > 1 || leaf_make(pmap, i) != NULL)) {
		uint64_t before = leaves > 1 ? ends(pmap, i, j) : boundaries(pmap, i, j);

		KASSERT(naway == 0 || leaves == 1);
		vm_count(v_map_calls);
		ok = !sys_is_err(naway != 0 ? map_mended((void *)va, pfn, away, naway) :
		    map_private((void *)va, leaves * LEAF_SIZE, physmem_fd_of(pfn), pfn));
		if (!ok)
			must_unmap(pmap, i, j);
		for (size_t k = i; ok && k < j; k += PMAP_LEAF_PAGES, pfn += PMAP_LEAF_PAGES) {
			struct pmap_leaf *l;

			leaf_fill(pmap, k, pfn, PTE_R);
			l = leaf_of(pmap, k);
			l->view = l->view_write = true;
		}
		if (ok)
			runs_add(pmap, (leaves > 1 ? ends(pmap, i, j) : boundaries(pmap, i, j)) + leaves - 1 - before);
	}
	kmutex_unlock(&pmap->lock);
	return ok;
}

void
pmap_view_avoid(struct pmap *pmap, vm_offset_t va)
{
	struct pmap_leaf *l;

	kmutex_lock(&pmap->lock);
	l = leaf_peek(pmap, index_of(pmap, va));
	if (l != NULL)
		l->avoid = MAX(pmap->epoch + AVOID_TIMES, 1);
	kmutex_unlock(&pmap->lock);
}

bool
pmap_view_avoided(struct pmap *pmap, vm_offset_t va)
{
	struct pmap_leaf *l;
	bool avoid;

	kmutex_lock(&pmap->lock);
	l = leaf_peek(pmap, index_of(pmap, va));
	if (l != NULL && l->avoid != 0 && (int32_t)(l->avoid - pmap->epoch) < 0)
		l->avoid = 0;
	avoid = l != NULL && l->avoid != 0;
	kmutex_unlock(&pmap->lock);
	return avoid;
}

bool
pmap_wants_own(struct pmap *pmap, vm_offset_t va)
{
	const struct pmap_leaf *l;
	bool many;

	kmutex_lock(&pmap->lock);
	l = leaf_peek(pmap, index_of(pmap, va));
	many = l != NULL && l->nwrite >= OWN_MANY;
	kmutex_unlock(&pmap->lock);
	return many || pmap_view_avoided(pmap, va);
}

/* The kernel's rights for the views of pages [i, i + n) become those.  Nothing may be lost by it. */
static void
must_protect(struct pmap *pmap, size_t i, size_t n, unsigned rights)
{
	uint64_t deadline = 0;

	while (pmap_ops->protect(va_of(pmap, i), n, 0, rights) != 0) {
		relieve(pmap, 0);
		must_wait(pmap, i, n, &deadline);
	}
}

/* A view may keep so much of what it has.  => its rights, of the kernel */
static unsigned
view_rights(const struct pmap_leaf *l)
{
	return (l->pte[0] & PTE_R) | (l->view_write ? PTE_W : 0);
}

size_t
view_limit(struct pmap *pmap, size_t i, size_t end, unsigned prot)
{
	size_t first = i & ~(size_t)(PMAP_LEAF_PAGES - 1), n = 0;
	struct pmap_leaf *l = leaf_of(pmap, first);
	unsigned old = view_rights(l), new = old & prot;

	/* What cannot be read cannot be written. */
	if (!(new & PTE_R))
		new = 0;
	while (l != NULL && l->view && view_rights(l) == old) {
		if (new != old) {
			l->view_write = new & PTE_W;
			/* A view is a mapping of its own, whatever its rights. */
			if ((new ^ old) & PTE_R)
				leaf_fill(pmap, first + n, PTE_PFN(l->pte[0]), new & PTE_R);
		}
		n += PMAP_LEAF_PAGES;
		l = first + n < end ? leaf_of(pmap, first + n) : NULL;
	}
	if (new != old)
		must_protect(pmap, first, n, new);
	return first + n;
}

void
pmap_view_still(struct pmap *pmap, vm_offset_t va, size_t leaves)
{
	size_t i = index_of(pmap, va);

	kmutex_lock(&pmap->lock);
	(void)view_at(pmap, va);
	(void)view_limit(pmap, i, MIN(i + (leaves << PMAP_LEAF_SHIFT), pmap->size >> PAGE_SHIFT), PTE_R);
	kmutex_unlock(&pmap->lock);
}

void
pmap_view_close(struct pmap *pmap, vm_offset_t va)
{
	size_t i = index_of(pmap, va);
	struct pmap_leaf *l;

	kmutex_lock(&pmap->lock);
	l = view_at(pmap, va);
	if (view_rights(l) != PTE_R) {
		l->view_write = false;
		if (!(l->pte[0] & PTE_R))
			leaf_fill(pmap, i, PTE_PFN(l->pte[0]), PTE_R);
		must_protect(pmap, i, PMAP_LEAF_PAGES, PTE_R);
	}
	kmutex_unlock(&pmap->lock);
}

unsigned
pmap_view_rights(struct pmap *pmap, vm_offset_t va)
{
	const struct pmap_leaf *l;
	unsigned rights;

	kmutex_lock(&pmap->lock);
	l = leaf_of(pmap, index_of(pmap, va));
	rights = l != NULL && l->view ? view_rights(l) : 0;
	kmutex_unlock(&pmap->lock);
	return rights;
}

void
pmap_view_changed(vm_offset_t va, uint64_t changed[PMAP_LEAF_WORDS])
{
	/* If the kernel does not tell, all may be: to bring home what never left does no harm. */
	if (read_changed(va, PMAP_LEAF_PAGES, changed) != 0)
		memset(changed, 0xff, PMAP_LEAF_WORDS * sizeof(*changed));
}

void
pmap_view_end(struct pmap *pmap, vm_offset_t va, unsigned rights)
{
	size_t i = index_of(pmap, va);
	struct pmap_leaf *l;
	uint64_t before;
	vm_pfn_t pfn;

	kmutex_lock(&pmap->lock);
	l = view_at(pmap, va);
	pfn = PTE_PFN(l->pte[0]);
	before = boundaries(pmap, i, i + PMAP_LEAF_PAGES - 1);
	l->view = l->view_write = false;
	if (rights != 0 && pmap_ops->map(va, PMAP_LEAF_PAGES, pfn, rights) == 0) {
		leaf_fill(pmap, i, pfn, rights);
		runs_add(pmap, boundaries(pmap, i, i + PMAP_LEAF_PAGES - 1) - before);
	} else {
		runs_add(pmap, boundaries(pmap, i, i + PMAP_LEAF_PAGES - 1) - before);
		must_unmap(pmap, i, i + PMAP_LEAF_PAGES - 1);
	}
	settle(pmap);
	kmutex_unlock(&pmap->lock);
}
