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
 *	home	the frames hold what o shows, as ever
 *
 * BRINGING HOME, of each page that the kernel has copied: c gets what the frame holds, unless it has the page;
 * then the frame gets what the mapping shows.  After that the mapping is a shared one again.  The order
 * makes it safe to give up on the way, and to begin again.
 *
 * WHO MEETS A VIEWED PAGE: faults wait until it is home, but for those of the mapping, which need nothing,
 * and for reading through c; whoever locks a map to change it brings home what is in the range first
 * (vm_map_lock_range); the pageout daemon brings all of them home before it looks at pages, and passes
 * by what it meets.  To make up for the kernel's pages, as many frames are lent to it as a view has pages.
 *
 * A thread, the keeper, looks after them: see keep().
 */

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

#include "kern/alone.h"
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
#include "vm_view.h"
#include "vm_written.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE	23
#endif

#define LEAF_SIZE	((vm_size_t)PMAP_LEAF_PAGES << PAGE_SHIFT)
#define GROUP_MOST	16u		/* leaves that become views together; a power of two */
#define GROUP_SHARE	2u		/* a group is made where there are so many times as many views already */
#define LEAVE_SHARE	16u		/* of the budget: so much stays for others */
#define BATCH		64u		/* pages at a time */
#define DENSE_PAGES	(PMAP_LEAF_PAGES / 5 + PMAP_LEAF_PAGES % 5)	/* changed: the rest will follow */
#define TRIES		100u		/* to copy into frames, in all ... */
#define AGAIN_NS	((int64_t)1000 * 1000)	/* ... with so much time between two of them */
#define DENSE_TIMES	4u		/* snapshots for which that is remembered */
#define AT_ONCE		8u		/* views that the keeper looks at before it pauses */
#define DUTY		8		/* of the keeper: one part in so many */
#define LEAST_PAUSE_NS	((int64_t)500 * 1000)
#define MOST_PAUSE_NS	((int64_t)200 * 1000 * 1000)

static struct {
	struct kmutex lock;		/* RANK_VIEW, V; guards what follows */
	TAILQ_HEAD(, vm_view) all;	/* those that were looked at last at the end */
	_Atomic uint32_t n;		/* a look without the lock is a hint */
	struct slab slab;
	pthread_t thread;
	_Atomic bool stop;
	char work;			/* its address: what the keeper waits on */
#ifdef VMF_TESTING
	_Atomic bool hold, held;	/* a test wants it to stop; it has */
#endif
} vv;

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

static inline bool
is_set(const uint64_t *map, uint32_t k)
{
	return map[k / 64] >> (k % 64) & 1;
}

static uint32_t
count(const uint64_t map[PMAP_LEAF_WORDS])
{
	uint32_t n = 0;

	for (size_t i = 0; i < PMAP_LEAF_WORDS; i++)
		n += (uint32_t)__builtin_popcountll(map[i]);
	return n;
}

static inline vm_pindex_t
first_page(const struct vm_view *v)
{
	return (vm_pindex_t)v->node.key;
}

/* The first view that has pages of [lo, hi), or null.  => locked */
static struct vm_view *
view_in(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
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
	struct vm_view *v = view_in(m->object, m->pindex, m->pindex + 1);

	KASSERT(v != NULL && (m->flags & PG_VIEW));
	return v;
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
	    c->ref_count == 0 || (c->pager != NULL && !c->pager->ops->queryable))
		return false;
	krwlock_read(&vm_rmap_lock);
	sole = LIST_FIRST(&o->children) == c && LIST_NEXT(c, sibling) == NULL;
	LIST_FOREACH(map, &o->mappings, link)
		showing += map->offset < hi &&
		    lo < map->offset + (uint64_t)atop(map->end - map->start);
	krwlock_read_unlock(&vm_rmap_lock);
	return sole && showing == 1;
}

vm_pfn_t
vm_view_row(struct vm_object *o, vm_pindex_t lo, const struct vm_page *ours)
{
	void *page[BATCH];
	vm_pfn_t pfn = 0;

	for (uint32_t k = 0, n; k < PMAP_LEAF_PAGES; k += n) {
		n = MIN(BATCH, PMAP_LEAF_PAGES - k);
		if (radix_run(&o->pages, lo + k, n, page) != n)
			return 0;
		for (uint32_t i = 0; i < n; i++)
			__builtin_prefetch(page[i], 1);
		for (uint32_t i = 0; i < n; i++) {
			const struct vm_page *m = page[i];

			if (k + i == 0)
				pfn = m->pfn;
			if (m->pfn != pfn + k + i || m->wire_count != 0 ||
			    (m->flags & (PG_FAKE | PG_LAUNDRY | PG_FREE | PG_VIEW)) ||
			    ((m->flags & PG_BUSY) && m != ours))
				return 0;
		}
	}
	return pfn;
}

/* All pages of a view are viewed, or are not any more; those of `changed', or all, are written.  => locked */
static void
mark(struct vm_view *v, bool on, const uint64_t *changed, bool all)
{
	struct vm_object *o = v->object;
	void *page[BATCH];

	for (uint32_t k = 0, n; k < PMAP_LEAF_PAGES; k += n) {
		n = radix_run(&o->pages, first_page(v) + k, MIN(BATCH, PMAP_LEAF_PAGES - k), page);
		for (uint32_t i = 0; i < n; i++) {
			struct vm_page *m = page[i];

			KASSERT(!(m->flags & PG_VIEW) == on);
			m->flags = (uint16_t)((m->flags ^ PG_VIEW) | PG_REFERENCED);
			if (all || (changed != NULL && is_set(changed, k + i))) {
				vm_written_add(m);
				m->flags = (uint16_t)((m->flags & ~(PG_FREE | PG_HOLE)) | PG_MODIFIED);
			}
		}
	}
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

static void
unlink_view(struct vm_view *v)
{
	avl_remove(&v->object->views, &v->node);
	kmutex_lock(&vv.lock);
	TAILQ_REMOVE(&vv.all, v, link);
	atomic_fetch_sub(&vv.n, 1);
	kmutex_unlock(&vv.lock);
	physmem_lend_end(PMAP_LEAF_PAGES);
}

/* => o and c locked */
static bool
open_run(struct faultstate *fs, vm_offset_t va, vm_pindex_t lo, vm_pfn_t pfn, uint32_t leaves)
{
	struct vm_view *v[GROUP_MOST];
	uint32_t n = 0;
	bool opened;

	if (!physmem_lend(leaves << PMAP_LEAF_SHIFT, physmem_budget() / LEAVE_SHARE))
		return false;
	while (n < leaves && (v[n] = slab_alloc(&vv.slab)) != NULL)
		n++;
	opened = n == leaves && pmap_view_open(fs->map->pmap, va, pfn, leaves);
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
		mark(v[i], true, NULL, false);
		link_view(v[i]);
	}
	vm_count_n(v_views, leaves);
	return true;
}

/*
 * The leaf at va, and parked ones around it that are like it, unless alone: the more of them, the more views there
 * are already.  => o and c locked
 */
static bool
open_around(struct faultstate *fs, const struct vm_object *c, vm_offset_t va, vm_pindex_t lo, bool alone)
{
	struct vm_object *o = fs->first_object;
	size_t before, after, group = 1;
	vm_pfn_t pfn, other;

	if (!vm_view_is_eligible(fs, c, va, 1) || (pfn = vm_view_row(o, lo, fs->m)) == 0)
		return false;
	while (!alone && group < GROUP_MOST && group * GROUP_SHARE < atomic_load_explicit(&vv.n, memory_order_relaxed))
		group *= 2;
	pmap_view_around(fs->map->pmap, va, group, &before, &after);
	for (size_t n = 1; n <= before; n++) {
		other = lo >= n << PMAP_LEAF_SHIFT ? vm_view_row(o, lo - (vm_pindex_t)(n << PMAP_LEAF_SHIFT), NULL) : 0;
		if (other == 0 || other != pfn - (n << PMAP_LEAF_SHIFT) || !vm_view_is_eligible(fs, c, va - n * LEAF_SIZE, n + 1))
			before = n - 1;
	}
	for (size_t n = 1; n <= after; n++) {
		other = vm_view_row(o, lo + (vm_pindex_t)(n << PMAP_LEAF_SHIFT), NULL);
		if (other == 0 || other != pfn + (n << PMAP_LEAF_SHIFT) || !vm_view_is_eligible(fs, c, va, n + 1))
			after = n - 1;
	}
	if (!open_run(fs, va - before * LEAF_SIZE, lo - (vm_pindex_t)(before << PMAP_LEAF_SHIFT),
	    pfn - (vm_pfn_t)(before << PMAP_LEAF_SHIFT), (uint32_t)(1 + before + after)))
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
vm_view_may_read(const struct vm_page *m, bool below)
{
	const struct vm_view *v = view_of(m);

	return below && !v->closed && !v->busy;
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

	for (; (v = view_in(o, lo, hi)) != NULL; lo = first_page(v) + PMAP_LEAF_PAGES)
		if (!v->closed || v->copy == c)
			return true;
	return false;
}

/* The frames are what c shows, and not o: c must stay above o until the view is home.  => locked, c, too */
static void
owe(struct vm_view *v, struct vm_object *c)
{
	c->ref_count++;
	c->owed++;
	v->copy = c;
}

/* => nothing locked */
static void
quit(struct vm_object *c)
{
	vm_object_lock(c);
	c->owed--;
	vm_object_unlock(c);
	vm_object_deallocate(c);
}

void
vm_view_still(struct vm_object *o)
{
	struct vm_view *v;
	vm_pindex_t at = 0;

	do {
		vm_object_lock(o);
		v = o->copy == NULL ? view_in(o, at, o->size) : NULL;
		if (v != NULL) {
			at = first_page(v) + PMAP_LEAF_PAGES;
			/* Those after it that are like it lose it as well. */
			if (!v->busy && (pmap_view_rights(v->pmap, v->va) & PTE_W))
				pmap_view_still(v->pmap, v->va, GROUP_MOST);
		}
		vm_object_unlock(o);
	} while (v != NULL);
}

void
vm_view_cut(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi, struct vm_object *old)
{
	struct vm_view *v;

	for (; (v = view_in(o, lo, hi)) != NULL; lo = first_page(v) + PMAP_LEAF_PAGES)
		if (!v->closed) {
			v->closed = true;
			if (old != NULL)
				owe(v, old);
		}
}

/*
 * Bringing home
 */

#define NOT_ABOVE	((vm_pindex_t)-1)

/* Which page of o is page 0 of c?  NOT_ABOVE: c does not see o any more.  => both locked */
static vm_pindex_t
distance(const struct vm_object *c, const struct vm_object *o)
{
	vm_pindex_t n = 0;

	krwlock_read(&vm_rmap_lock);
	for (; c != NULL && c != o; c = c->shadow)
		n += c->shadow_offset;
	krwlock_read_unlock(&vm_rmap_lock);
	return c != NULL ? n : NOT_ABOVE;
}

/*
 * Give the copy page i of the object, as its frame has it, unless it has one.
 * *wait: null, or the page to wait for before it is tried again, with that ticket.
 * => both locked
 */
static enum kern_return
push(struct vm_view *v, vm_pindex_t i, struct vm_page **wait, uint32_t *ticket)
{
	struct vm_object *c = v->copy;
	vm_pindex_t shift = distance(c, v->object);
	struct vm_page *m = vm_page_lookup(v->object, i), *theirs;

	*wait = NULL;
	if (shift == NOT_ABOVE || i < shift || i - shift >= c->size)
		return KERN_SUCCESS;
	theirs = vm_page_lookup(c, i - shift);
	if ((m->flags & PG_BUSY) || (theirs != NULL && (theirs->flags & PG_BUSY))) {
		*wait = m->flags & PG_BUSY ? m : theirs;
		*ticket = event_prepare(*wait);
		(*wait)->flags |= PG_WANTED;
		return KERN_SUCCESS;
	}
	if (theirs != NULL || vm_object_paged_out(c, i - shift))
		return KERN_SUCCESS;
	if (c->pager != NULL && !c->pager->ops->queryable)
		return KERN_RESOURCE_SHORTAGE;	/* such a pager came since; they are for tests */
	return vm_fault_push_to(c, i - shift, m, PHYSMEM_LENT) ? KERN_SUCCESS : KERN_RESOURCE_SHORTAGE;
}

/* => busy by us, closed; nothing locked */
static enum kern_return
push_all(struct vm_view *v, const uint64_t *changed)
{
	enum kern_return result = KERN_SUCCESS;

	for (uint32_t k = 0; v->copy != NULL && k < PMAP_LEAF_PAGES && result == KERN_SUCCESS;) {
		struct vm_page *wait = NULL;
		uint32_t ticket = 0;

		vm_object_lock(v->copy);
		vm_object_lock(v->object);
		for (uint32_t n = 0; n < BATCH && k < PMAP_LEAF_PAGES && result == KERN_SUCCESS; n++) {
			if (is_set(changed, k))
				result = push(v, first_page(v) + k, &wait, &ticket);
			if (wait != NULL)
				break;
			k++;
		}
		vm_object_unlock(v->object);
		vm_object_unlock(v->copy);
		PROBE("vm_view: between pushes");
		if (wait != NULL)
			(void)event_wait(wait, ticket, EVENT_FOREVER);
	}
	return result;
}

/* The frames get what the mapping shows.  => nobody else looks at these; readable */
static enum kern_return
bring(const struct vm_view *v, vm_pfn_t pfn, const uint64_t *changed)
{
	uint32_t k = 0, n = 0, tries = 0;

	for (; k < PMAP_LEAF_PAGES; k += n) {
		const void *from = (const void *)(v->va + ((vm_offset_t)k << PAGE_SHIFT));
		int error;

		for (n = 1; k + n < PMAP_LEAF_PAGES && is_set(changed, k + n) == is_set(changed, k); n++)
			;
		if (!is_set(changed, k))
			continue;
		while ((error = physmem_write(pfn + k, from, n)) != 0) {
			uint32_t ticket = event_prepare(v);

			if (tries++ == TRIES)
				return KERN_RESOURCE_SHORTAGE;
			/* Somebody took the right to read as well (vm_map_cold()). */
			if (error == -EFAULT)
				pmap_view_close(v->pmap, v->va);
			else
				(void)event_wait(v, ticket, AGAIN_NS);
		}
		vm_count_n(v_views_home, n);
	}
	return KERN_SUCCESS;
}

/* => locked, not busy.  At return busy by us and closed; or not locked, and to be tried again. */
static bool
take(struct vm_view *v)
{
	struct vm_object *o = v->object, *c = o->copy;

	if (!v->closed && c != NULL) {
		if (!vm_object_lock_try(c)) {
			vm_object_unlock(o);
			PROBE("vm_view: copy busy");
			sys_yield();
			return false;
		}
		if (c->ref_count > 0)
			owe(v, c);
		vm_object_unlock(c);
	}
	v->closed = v->busy = true;
	vm_object_pip_add(o);
	return true;
}

/* What its mapping may do once it is home: write, unless somebody has to be told.  => locked */
static unsigned
rights_at_home(const struct vm_object *o)
{
	bool told = o->copy != NULL || o->written.snapshot != 0 || (o->flags & (OBJ_CUT | OBJ_FROZEN));

	return told ? PTE_R : PTE_R | PTE_W;
}

/* => busy by us; locked, unlocked at return */
static enum kern_return
bring_home(struct vm_view *v)
{
	struct vm_object *o = v->object, *copy;
	uint64_t changed[PMAP_LEAF_WORDS] = { 0 };
	vm_pfn_t pfn = vm_page_lookup(o, first_page(v))->pfn;
	enum kern_return result;

	pmap_view_close(v->pmap, v->va);
	vm_object_unlock(o);
	PROBE("vm_view: closed");
	pmap_view_changed(v->va, changed);
	result = push_all(v, changed);
	PROBE("vm_view: pushed");
	if (result == KERN_SUCCESS)
		result = bring(v, pfn, changed);
	PROBE("vm_view: brought");
	vm_object_lock(o);
	copy = v->copy;
	v->busy = false;
	if (result == KERN_SUCCESS) {
		pmap_view_end(v->pmap, v->va, rights_at_home(o));
		/* What was written after the copy had gone says nothing about how it will be after the next. */
		if ((copy != NULL ? count(changed) : v->nchanged) >= DENSE_PAGES)
			pmap_dense_set(v->pmap, v->va, DENSE_TIMES);
		mark(v, false, changed, rights_at_home(o) & PTE_W);
		unlink_view(v);
	}
	vm_object_pip_done(o);
	vm_object_unlock(o);
	event_wake(v);
	if (result == KERN_SUCCESS) {
		if (copy != NULL)
			quit(copy);
		slab_free(&vv.slab, v);
	}
	return result;
}

/* Wait until somebody is done with it.  => locked, not at return */
static void
wait_busy(struct vm_view *v)
{
	uint32_t ticket = event_prepare(v);

	vm_object_unlock(v->object);
	PROBE("vm_view: wait for busy view");
	(void)event_wait(v, ticket, EVENT_FOREVER);
}

enum kern_return
vm_view_home(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	enum kern_return result = KERN_SUCCESS;
	struct vm_view *v;

	while (result == KERN_SUCCESS) {
		vm_object_lock(o);
		v = view_in(o, lo, hi);
		if (v == NULL) {
			vm_object_unlock(o);
			break;
		}
		if (v->busy)
			wait_busy(v);
		else if (take(v))
			result = bring_home(v);
	}
	return result;
}

/* Call what for the pages of each object that is mapped in [s, end), until something fails.  => the map locked */
static enum kern_return
each_object(struct vm_map *map, vm_offset_t s, vm_offset_t end,
    enum kern_return (*what)(struct vm_object *, vm_pindex_t, vm_pindex_t))
{
	enum kern_return result = KERN_SUCCESS;
	struct vm_map_entry *e;

	if (atomic_load_explicit(&vv.n, memory_order_relaxed) == 0)
		return KERN_SUCCESS;
	for (e = vm_map_entry_ge(map, s); e != NULL && entry_start(e) < end && result == KERN_SUCCESS;
	    e = vm_map_entry_next(e))
		if (e->map.object != NULL)
			result = what(e->map.object, entry_pindex(e, MAX(s, entry_start(e))),
			    entry_pindex(e, MIN(end, entry_end(e))));
	return result;
}

enum kern_return
vm_view_settle(struct vm_map *map, vm_offset_t s, vm_offset_t end)
{
	return each_object(map, s, end, vm_view_home);
}

/* Does nobody need what is in the view, once its pages [lo, hi) are not mapped any more?  => locked */
static bool
is_droppable(const struct vm_view *v, vm_pindex_t lo, vm_pindex_t hi)
{
	return !v->closed && first_page(v) >= lo && first_page(v) + PMAP_LEAF_PAGES <= hi;
}

/* Bring home what must not be dropped, or drop the rest. */
static enum kern_return
drop_or_keep(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi, bool dropping)
{
	enum kern_return result = KERN_SUCCESS;
	vm_pindex_t at = lo;
	struct vm_view *v;

	vm_object_lock(o);
	while (result == KERN_SUCCESS && (v = view_in(o, at, hi)) != NULL) {
		bool droppable = is_droppable(v, lo, hi);

		if (v->busy) {
			wait_busy(v);
			vm_object_lock(o);
			continue;
		}
		at = first_page(v) + PMAP_LEAF_PAGES;
		if (droppable == dropping && dropping) {
			pmap_view_end(v->pmap, v->va, 0);
			mark(v, false, NULL, false);
			unlink_view(v);
			slab_free(&vv.slab, v);
		} else if (droppable == dropping) {
			vm_object_unlock(o);
			result = vm_view_home(o, at - PMAP_LEAF_PAGES, at);
			vm_object_lock(o);
		}
	}
	vm_object_unlock(o);
	return result;
}

static enum kern_return
keep_needed(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	return drop_or_keep(o, lo, hi, false);
}

static enum kern_return
drop_unneeded(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	return drop_or_keep(o, lo, hi, true);
}

enum kern_return
vm_view_keep(struct vm_map *map, vm_offset_t s, vm_offset_t end)
{
	return each_object(map, s, end, keep_needed);
}

void
vm_view_drop(struct vm_map *map, vm_offset_t s, vm_offset_t end)
{
	(void)each_object(map, s, end, drop_unneeded);
}

/*
 * The keeper
 *
 * It looks at all views round and round, at a few at a time, and less and less often while nothing changes:
 *
 *	nobody needs the frames any more, or they are closed	bring home, before somebody has to wait for it
 *	a good part was written		have the kernel copy the rest, before somebody writes that
 */

/* => busy by us; nothing locked.  Returns whether more was written since the last look. */
static bool
look(struct vm_view *v)
{
	uint64_t changed[PMAP_LEAF_WORDS] = { 0 };
	uint32_t n;
	bool more;

	pmap_view_changed(v->va, changed);
	n = count(changed);
	more = n != v->nchanged;
	v->nchanged = n;
	if (more && n >= DENSE_PAGES && n < PMAP_LEAF_PAGES) {
		/* Where it is refused the writers do it themselves. */
		(void)sys_madvise((void *)v->va, LEAF_SIZE, MADV_POPULATE_WRITE);
		v->nchanged = PMAP_LEAF_PAGES;
		vm_count(v_views_dense);
	}
	return more;
}

/* => locked, not at return */
static bool
keep(struct vm_view *v)
{
	struct vm_object *o = v->object;
	bool more;

	if (v->busy) {
		vm_object_unlock(o);
		return true;
	}
	if (v->closed || o->copy == NULL) {
		if (take(v))
			(void)bring_home(v);
		return true;
	}
	v->busy = true;
	vm_object_pip_add(o);
	vm_object_unlock(o);
	more = look(v);
	vm_object_lock(o);
	v->busy = false;
	vm_object_pip_done(o);
	vm_object_unlock(o);
	event_wake(v);
	return more;
}

/* The view that nobody has looked at for the longest time; its object is locked.  Null: none, or that is busy */
static struct vm_view *
next_view(void)
{
	struct vm_view *v;

	kmutex_lock(&vv.lock);
	v = TAILQ_FIRST(&vv.all);
	if (v != NULL) {
		TAILQ_REMOVE(&vv.all, v, link);
		TAILQ_INSERT_TAIL(&vv.all, v, link);
		if (!vm_object_lock_try(v->object))
			v = NULL;
	}
	kmutex_unlock(&vv.lock);
	return v;
}

/* Stop, while a test wants that, where nothing is in hand. */
static void
hold_here(void)
{
#ifdef VMF_TESTING
	for (;;) {
		uint32_t ticket = event_prepare(&vv.hold);

		atomic_store(&vv.held, atomic_load(&vv.hold));
		if (!atomic_load(&vv.held))
			break;
		event_wake(&vv.held);
		(void)event_wait(&vv.hold, ticket, EVENT_FOREVER);
	}
#endif
}

static void *
keeper(void *arg)
{
	int64_t pause = LEAST_PAUSE_NS;
	uint32_t quiet = 0;		/* views in a row in which nothing happened */

	(void)arg;
	while (!atomic_load(&vv.stop)) {
		uint32_t ticket = event_prepare(&vv.work), n = atomic_load(&vv.n);
		uint64_t began = sys_clock();

		hold_here();
		for (uint32_t i = 0; i < MIN(n, AT_ONCE) && !atomic_load(&vv.stop); i++) {
			struct vm_view *v = next_view();

			if (v != NULL && keep(v))
				quiet = 0;
			else
				quiet++;
		}
		if (quiet > n) {
			pause = MIN(2 * pause, MOST_PAUSE_NS);
			quiet = 0;
		} else if (quiet == 0) {
			pause = MAX((int64_t)(sys_clock() - began) * (DUTY - 1), LEAST_PAUSE_NS);
		}
		if (!atomic_load(&vv.stop))
			(void)event_wait(&vv.work, ticket, n == 0 ? EVENT_FOREVER : pause);
	}
	return NULL;
}

bool
vm_view_reclaim(void)
{
	struct vm_view *v;

	while (atomic_load(&vv.n) != 0) {
		v = next_view();
		if (v == NULL)
			sys_yield();
		else if (v->busy)
			wait_busy(v);
		else if (take(v))
			return bring_home(v) == KERN_SUCCESS;
	}
	return false;
}

int
vm_view_start(void)
{
	sys_sigset_t old;
	int error;

	atomic_store(&vv.stop, false);
	if (!pmap_has_views())
		return 0;
	sys_block(&old);		/* the thread is born with all signals blocked */
	error = pthread_create(&vv.thread, NULL, keeper, NULL);
	sys_setmask(&old);
	alone_ours(error == 0);
	return -error;
}

void
vm_view_stop(void)
{
	if (!pmap_has_views())
		return;
	atomic_store(&vv.stop, true);
	event_wake(&vv.work);
	(void)pthread_join(vv.thread, NULL);
	alone_ours(-1);
}

#ifdef VMF_TESTING
void
vm_view_hold(void)
{
	if (!pmap_has_views())
		return;
	atomic_store(&vv.hold, true);
	for (;;) {
		uint32_t ticket = event_prepare(&vv.held);

		event_wake(&vv.work);
		if (atomic_load(&vv.held))
			break;
		(void)event_wait(&vv.held, ticket, AGAIN_NS);
	}
}

void
vm_view_go_on(void)
{
	atomic_store(&vv.hold, false);
	event_wake(&vv.hold);
}
#endif
