/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Private views: writers of a copied object whom the kernel serves.
 *
 *	c (copy) ---> o <--- mapping
 *
 * Before a page of o is written, c must get what it holds: a trap, a frame, a copy and a change of the
 * mapping for each page.  Where single pages are written here and there, the kernel does that several times as
 * fast: the leaf (2 MB) is mapped private over its frames (pmap_view.c), which stay as they are and so
 * serve c; what is written is in pages of the kernel's.
 *
 *	open	the mapping can be written; c reads the frames
 *	closed	it cannot: o has been copied again, by c2, which is between c and o.  The frames are c's; what
 *		the mapping shows is c2's and o's.  Nobody but c may look at a frame, and as a walk does not
 *		tell where it comes from, nobody may
 *	home	the frames hold what o shows, as ever (vm_view_home.c)
 *
 * The frames can be needed without any copy: by a forked child (physmem_freeze.c).  Then the view stays open until
 * the child is gone; if that is not to be waited for, what was written comes home to other frames.
 *
 * WHO MEETS A VIEWED PAGE: faults wait until it is home, but for those of the mapping, which need nothing,
 * and for reading through c; whoever locks a map to change it brings home what is in the range first
 * (vm_map_lock_range); the pageout daemon brings all of them home before it looks at pages, and passes
 * by what it meets.  To make up for the kernel's pages, as many frames are lent to it as a view has pages.
 *
 * A thread, the keeper, looks after them: vm_view_keep.c.
 */

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/probe.h"
#include "kern/slab.h"
#include "kern/sys.h"
#include "physmem.h"
#include "pmap.h"
#include "vm_cluster.h"
#include "vm_fault.h"
#include "vm_fault_state.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_pager.h"
#include "vm_view_impl.h"

#define GROUP_SHARE	2u		/* a group is made where there are so many times as many views already */
#define LEAVE_SHARE	16u		/* of the budget: so much stays for others */
#define BATCH		64u		/* pages at a time */

struct vm_views vv;

void
vm_view_init(void)
{
	kmutex_init(&vv.lock, RANK_VIEW);
	TAILQ_INIT(&vv.all);
	atomic_store(&vv.n, 0);
	slab_init(&vv.slab, "vm_view", sizeof(struct vm_view), 64);
}

void
vm_view_fini(void)
{
	KASSERT(atomic_load(&vv.n) == 0);
	slab_fini(&vv.slab);
}

uint32_t
vv_count(const uint64_t map[PMAP_LEAF_WORDS])
{
	uint32_t n = 0;

	for (size_t i = 0; i < PMAP_LEAF_WORDS; i++)
		n += (uint32_t)__builtin_popcountll(map[i]);
	return n;
}

struct vm_view *
vv_in(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	struct avl_node *n;

	KASSERT(kmutex_held(&o->lock));
	n = avl_find_le(&o->views, lo);
	if (n == NULL || n->key + PMAP_LEAF_PAGES <= lo)
		n = avl_find_ge(&o->views, lo);
	return n != NULL && n->key < hi ? container_of(n, struct vm_view, node) : NULL;
}

static struct vm_view *
view_of(const struct vm_page *m)
{
	struct vm_view *v = vv_in(m->object, m->pindex, m->pindex + 1);

	KASSERT(v != NULL);
	return v;
}

bool
vm_page_in_view(const struct vm_page *m)
{
	return vv_in(m->object, m->pindex, m->pindex + 1) != NULL;
}

/*
 * Opening
 */

bool
vm_view_is_eligible(const struct faultstate *fs, const struct vm_object *c, vm_offset_t va, size_t n)
{
	const struct vm_map_entry *e = fs->entry;
	uint64_t lo = (uint64_t)e->map.offset + atop(va - entry_start(e)), hi = lo + (n << PMAP_LEAF_SHIFT);
	const struct vm_object *o = fs->first_object;
	const struct vm_mapping *map;
	uint32_t showing = 0;
	bool sole;

	if (va < entry_start(e) || entry_end(e) - va < n * LEAF_SIZE || e->shared ||
	    e->wired_count != 0 || e->in_transition || e->protection != (VM_PROT_READ | VM_PROT_WRITE))
		return false;
	if (!o->internal || o->written.snapshot != 0 || (o->flags & (OBJ_CUT | OBJ_FROZEN | OBJ_GIVEN)) ||
	    (c != NULL && (c->ref_count == 0 || (c->pager != NULL && !c->pager->ops->queryable))))
		return false;
	krwlock_read(&vm_rmap_lock);
	sole = LIST_FIRST(&o->children) == c && (c == NULL || LIST_NEXT(c, sibling) == NULL);
	LIST_FOREACH(map, &o->mappings, link)
		showing += map->offset < hi &&
		    lo < map->offset + (uint64_t)atop(map->end - map->start);
	krwlock_read_unlock(&vm_rmap_lock);
	return sole && showing == 1;
}

vm_pfn_t
vm_view_row(struct vm_object *o, vm_pindex_t lo, uint32_t pages, const struct vm_page *ours)
{
	void *page[BATCH];
	vm_pfn_t pfn = 0;

	if (vv_in(o, lo, lo + pages) != NULL)
		return 0;
	for (uint32_t k = 0, n; k < pages; k += n) {
		n = MIN(BATCH, pages - k);
		if (radix_run(&o->pages, lo + k, n, page) != n)
			return 0;
		for (uint32_t i = 0; i < n; i++)
			__builtin_prefetch(page[i]);
		for (uint32_t i = 0; i < n; i++) {
			const struct vm_page *m = page[i];

			if (k + i == 0)
				pfn = m->pfn;
			if (m->pfn != pfn + k + i || !vv_may_view(m, ours))
				return 0;
		}
	}
	return pfn;
}

static void
link_view(struct vm_view *v)
{
	avl_insert(&v->object->views, &v->node);
	kmutex_lock(&vv.lock);
	TAILQ_INSERT_TAIL(&vv.all, v, link);
	if (atomic_fetch_add(&vv.n, 1) == 0)
		event_wake(&vv.work);
	kmutex_unlock(&vv.lock);
}

void
vv_unlink(struct vm_view *v)
{
	avl_remove(&v->object->views, &v->node);
	kmutex_lock(&vv.lock);
	TAILQ_REMOVE(&vv.all, v, link);
	atomic_fetch_sub(&vv.n, 1);
	kmutex_unlock(&vv.lock);
	physmem_lend_end(PMAP_LEAF_PAGES);
}

/* mend: null, or what the first leaf's row lacks.  => o and c locked */
static bool
open_run(struct faultstate *fs, vm_offset_t va, vm_pindex_t lo, vm_pfn_t pfn, uint32_t leaves, bool populated,
    const struct vm_view_mend *mend)
{
	struct vm_view *v[GROUP_MOST];
	uint32_t n = 0;
	bool opened;

	if (!physmem_lend(leaves << PMAP_LEAF_SHIFT, physmem_budget() / LEAVE_SHARE))
		return false;
	while (n < leaves && (v[n] = slab_alloc(&vv.slab)) != NULL)
		n++;
	opened = n == leaves && pmap_view_open(fs->map->pmap, va, pfn, leaves, mend != NULL ? mend->away : NULL,
	    mend != NULL ? mend->n : 0);
	if (!opened) {
		while (n > 0)
			slab_free(&vv.slab, v[--n]);
		physmem_lend_end(leaves << PMAP_LEAF_SHIFT);
		return false;
	}
	for (uint32_t i = 0; i < leaves; i++) {
		v[i]->node.key = lo + (i << PMAP_LEAF_SHIFT);
		v[i]->object = fs->first_object;
		v[i]->pmap = fs->map->pmap;
		v[i]->va = va + i * LEAF_SIZE;
		v[i]->populated = populated;
		link_view(v[i]);
	}
	atomic_store(&vv.opened, sys_clock());
	vm_count_n(v_views, leaves);
	return true;
}

/* The leaf at va, which nobody has a copy of, although some of its pages have left the row.  => o locked */
static bool
open_mended(struct faultstate *fs, vm_offset_t va, vm_pindex_t lo, bool passing)
{
	struct vm_view_mend mend;
	bool opened;

	if (!vv_mend(fs->first_object, lo, fs->m, &mend))
		return false;
	/* Those that have frames of their own are written; not while they are moved. */
	pmap_unmap(fs->map->pmap, va, va + LEAF_SIZE);
	PROBE("vm_view: before a view of a row with gaps");
	opened = open_run(fs, va, lo, mend.base, 1, passing, &mend);
	vv_mend_end(fs->first_object, lo, &mend, opened);
	return opened;
}

/*
 * The leaf at va, and parked ones around it that are like it, unless the thread is passing through: the more of them, the more views there
 * are already.  => o and c locked
 */
static bool
open_around(struct faultstate *fs, const struct vm_object *c, vm_offset_t va, vm_pindex_t lo, bool passing)
{
	struct vm_object *o = fs->first_object;
	size_t before, after, group = 1;
	vm_pfn_t pfn, other;

	if (!vm_view_is_eligible(fs, c, va, 1))
		return false;
	pfn = vm_view_row(o, lo, PMAP_LEAF_PAGES, fs->m);
	if (pfn == 0)
		return c == NULL && open_mended(fs, va, lo, passing);
	while (!passing && group < GROUP_MOST && group * GROUP_SHARE < atomic_load_explicit(&vv.n, memory_order_relaxed))
		group *= 2;
	pmap_view_around(fs->map->pmap, va, group, &before, &after);
	for (size_t n = 1; n <= before; n++) {
		other = lo >= n << PMAP_LEAF_SHIFT ? vm_view_row(o, lo - (vm_pindex_t)(n << PMAP_LEAF_SHIFT), PMAP_LEAF_PAGES, NULL) : 0;
		if (other == 0 || other != pfn - (n << PMAP_LEAF_SHIFT) || !vm_view_is_eligible(fs, c, va - n * LEAF_SIZE, n + 1))
			before = n - 1;
	}
	for (size_t n = 1; n <= after; n++) {
		other = vm_view_row(o, lo + (vm_pindex_t)(n << PMAP_LEAF_SHIFT), PMAP_LEAF_PAGES, NULL);
		if (other == 0 || other != pfn + (n << PMAP_LEAF_SHIFT) || !vm_view_is_eligible(fs, c, va, n + 1))
			after = n - 1;
	}
	if (!open_run(fs, va - before * LEAF_SIZE, lo - (vm_pindex_t)(before << PMAP_LEAF_SHIFT),
	    pfn - (vm_pfn_t)(before << PMAP_LEAF_SHIFT), (uint32_t)(1 + before + after), passing, NULL))
		return false;
	/* Who comes to the first page after it next is passing through, and wants it all. */
	lo += (vm_pindex_t)((after + 1) << PMAP_LEAF_SHIFT);
	vm_cluster_went(fs, lo, PMAP_LEAF_PAGES / 8);
	return true;
}

bool
vm_view_open(struct faultstate *fs, struct vm_object *c)
{
	size_t in_leaf = atop(fs->va - fs->map->base) % PMAP_LEAF_PAGES;
	vm_offset_t va = fs->va - ((vm_offset_t)in_leaf << PAGE_SHIFT);
	bool passing = vm_cluster_follows(fs) || fs->entry->advice == VM_ADVICE_SEQUENTIAL;

	if (fs->first_pindex < in_leaf || !open_around(fs, c, va, fs->first_pindex - (vm_pindex_t)in_leaf, passing))
		return false;
	if (passing) {
		fs->populate_va = va;
		fs->populate_pages = PMAP_LEAF_PAGES;
		fs->populate_fresh = true;
	}
	return true;
}

bool
vm_view_any(void)
{
	return atomic_load(&vv.n) != 0;
}

bool
vm_view_may_read(const struct vm_page *m, bool below)
{
	const struct vm_view *v = view_of(m);

	return below && !v->closed && !v->busy;
}

bool
vv_is_frozen(const struct vm_view *v)
{
	return physmem_any_frozen(vm_page_lookup(v->object, vv_first(v))->pfn, PMAP_LEAF_PAGES);
}

bool
vm_view_serves(const struct vm_page *m, vm_prot_t want)
{
	const struct vm_view *v = view_of(m);

	return !v->busy && (want & ~pmap_view_rights(v->pmap, v->va)) == 0;
}

bool
vm_view_differs(struct vm_object *o, const struct vm_object *c, vm_pindex_t lo, vm_pindex_t hi)
{
	const struct vm_view *v;

	for (; (v = vv_in(o, lo, hi)) != NULL; lo = vv_first(v) + PMAP_LEAF_PAGES)
		if (!v->closed || v->copy == c)
			return true;
	return false;
}

void
vm_view_still(struct vm_object *o)
{
	struct vm_view *v;
	vm_pindex_t at = 0;

	do {
		vm_object_lock(o);
		v = o->copy == NULL ? vv_in(o, at, o->size) : NULL;
		if (v != NULL) {
			at = vv_first(v) + PMAP_LEAF_PAGES;
			/* Those after it that are like it lose it as well. */
			if (!v->busy && !vv_is_frozen(v) && (pmap_view_rights(v->pmap, v->va) & PTE_W))
				pmap_view_still(v->pmap, v->va, GROUP_MOST);
		}
		vm_object_unlock(o);
	} while (v != NULL);
}

void
vm_view_cut(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi, struct vm_object *old)
{
	struct vm_view *v;

	for (; (v = vv_in(o, lo, hi)) != NULL; lo = vv_first(v) + PMAP_LEAF_PAGES) {
		/* The one that was given all may be gone, and the new one lie where it was. */
		v->served = NULL;
		if (!v->closed) {
			v->closed = true;
			if (old != NULL)
				vv_owe(v, old);
		}
	}
}
