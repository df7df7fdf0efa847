/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Clusters.
 *
 * An entry remembers where its last cluster ended and how long it was.  A fault at exactly that
 * place is taken for a sequential pass, and the window grows fourfold, up to 1 MB.  A fault as far
 * from the last one as that was from the one before is taken for a STRIDE, and the window has the pages that
 * will be next, at that distance; it grows likewise.  Any other fault makes it a single
 * page again, unless the caller knows how many it wants.  Inside
 * the window pages may be MADE: zero-filled, copied up, pushed to a copy object.  Pages that are
 * resident anyway are entered from the 64 KB around the fault as well, for that costs next to nothing.
 *
 * A window never leaves its entry nor its 2 MB chunk, and takes at most an eighth of the
 * frames that are left.
 *
 * WHERE NOTHING BOUNDS MEMORY a fresh page brings with it all of its leaf that is not there yet, in one call of the
 * kernel: frames are set aside, but the kernel, which fills them with zeros by itself, has no memory for them before they
 * are touched.  So there is one trap for 2 MB, and memory is used as by the kernel's own first touch.  A pass
 * through fresh memory is seen by the leaf before: if all of it has been touched, the pages of this one are had at once,
 * which costs less than one by one.
 *
 * WHEN THE KERNEL'S MAPPINGS RUN SHORT each fault has to bring back as much as it can without taking one
 * more than its page alone would.  Those that are forgotten to make room for it would
 * else come back one by one, only to be forgotten again.  So then a cluster is ONE RUN: of the megabyte around the
 * page all that can be in one mapping with it, but nothing else.  For the same reason pages are
 * made coarser: of fresh memory 64 KB, for the kernel has no memory for what nobody
 * touches; and of 64 KB of which a half has been copied already, the other half.
 */

#include <sys/mman.h>

#include "kern/assert.h"
#include "kern/sys.h"
#include "vm_cluster.h"
#include "vm_fault.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_pager.h"
#include "vm_view.h"
#include "vm_written.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#define MADV_POPULATE_WRITE	23
#endif

#define AROUND		16u	/* resident pages this near are entered too; a power of two */
#define GROWTH		4u
#define STRIDE_MOST	32u	/* pages: beyond it is taken for random */
#define STRIDE_READ	8u	/* up to this the pages between are read, too */
#define POPULATE_LEAST	8u	/* pages to be written: for fewer, and to be read, the kernel's own faults cost less */
#define FRAME_SHARE	8u
#define COARSE_SHARE	16u	/* of what may be taken: so much is left when pages are made coarser */
#define USED_UP		16u	/* all but such a share of a leaf */
#define BUDGET_SHARE	32u	/* of all frames: a longer window's end would go before it is used */

bool
vm_cluster_follows(const struct faultstate *fs)
{
	const struct vm_map_entry *e = fs->entry;
	vm_pindex_t next = atomic_load_explicit(&e->fault_next, memory_order_relaxed);
	uint32_t last = atomic_load_explicit(&e->fault_window, memory_order_relaxed);

	/* In the last window or just after it: of that, perhaps not all could be entered. */
	return last != 0 && next - fs->first_pindex < last;
}

void
vm_cluster_went(struct faultstate *fs, vm_pindex_t to, uint32_t npages)
{
	atomic_store_explicit(&fs->entry->fault_next, to, memory_order_relaxed);
	atomic_store_explicit(&fs->entry->fault_window, npages, memory_order_relaxed);
}

/* How far the fault is from the last one, if that is how far that was from the one before; else 1. */
static vm_pindex_t
stride(const struct faultstate *fs)
{
	const struct vm_map_entry *e = fs->entry;
	vm_pindex_t far = fs->first_pindex - atomic_load_explicit(&e->fault_last, memory_order_relaxed);

	if ((fs->flags & VM_FAULT_WIRE) || e->advice != VM_ADVICE_NORMAL || fs->ahead > 1 || vm_cluster_follows(fs) ||
	    far < 2 || far != atomic_load_explicit(&e->fault_stride, memory_order_relaxed))
		return 1;
	return far;
}

/* At that distance, how many pages are to be made, itself included?  They span at most max pages. */
static uint32_t
strides(const struct faultstate *fs, vm_pindex_t far, uint32_t max)
{
	uint32_t last = atomic_load_explicit(&fs->entry->fault_strides, memory_order_relaxed);

	return MAX(MIN(last * GROWTH, max / far), 1);
}

/* Remember that n pages were seen to from this one on, at that distance. */
static void
strode(struct faultstate *fs, vm_pindex_t far, uint32_t n)
{
	struct vm_map_entry *e = fs->entry;
	vm_pindex_t p = fs->first_pindex;

	if (far == 1) {
		far = p - atomic_load_explicit(&e->fault_last, memory_order_relaxed);
		atomic_store_explicit(&e->fault_stride, far >= 2 && far <= STRIDE_MOST ? far : 0, memory_order_relaxed);
		n = 1;
	}
	atomic_store_explicit(&e->fault_last, p + (n - 1) * far, memory_order_relaxed);
	atomic_store_explicit(&e->fault_strides, n, memory_order_relaxed);
}

/* Pages that the next cluster at first_pindex may make, itself included. */
static uint32_t
window(const struct faultstate *fs, uint32_t max)
{
	struct vm_map_entry *e = fs->entry;
	uint32_t last = atomic_load_explicit(&e->fault_window, memory_order_relaxed);

	KASSERT(fs->lookup_valid);

	if ((fs->flags & VM_FAULT_WIRE) || e->advice == VM_ADVICE_RANDOM)
		return 1;
	if (e->advice == VM_ADVICE_SEQUENTIAL)
		return max;
	if (fs->ahead > 1)
		return MIN(fs->ahead, max);
	return vm_cluster_follows(fs) ? MIN(last * GROWTH, max) : 1;
}

/* No more than a share of the frames that are left. */
static uint32_t
affordable(uint32_t npages)
{
	uint64_t share;

	if (npages <= 1)
		return npages;
	share = physmem_free_count() / FRAME_SHARE;
	return (uint32_t)MIN((uint64_t)npages, MAX(share, 1));
}

/* Are frames to be had for nothing, and is there nothing but zeros to be made? */
static bool
is_boundless(const struct faultstate *fs, const struct vm_cluster *cl)
{
	const struct vm_object *o = fs->first_object;

	return fs->zeroed && !cl->one_run && physmem_is_boundless() && !(fs->flags & VM_FAULT_WIRE) && o->internal &&
	    o->shadow == NULL && o->pager == NULL;
}

/* All of the leaf, of which so many pages lie before and from the fault's own on. */
static void
start_whole(struct faultstate *fs, struct vm_cluster *cl, vm_pindex_t back, vm_pindex_t ahead)
{
	cl->lo = cl->make_lo = fs->first_pindex - back;
	cl->hi = cl->make_hi = fs->first_pindex + ahead;
	cl->stride = 1;
	strode(fs, 1, 1);
	vm_cluster_went(fs, cl->hi, cl->hi - cl->lo);
}

/* As the pattern of faults says. */
static void
start_window(struct faultstate *fs, struct vm_cluster *cl, vm_pindex_t back, vm_pindex_t ahead, bool parked)
{
	const struct vm_map_entry *e = fs->entry;
	vm_pindex_t p = fs->first_pindex;
	uint32_t max = (uint32_t)MIN(MAX(physmem_budget() / BUDGET_SHARE, AROUND), VM_CLUSTER_MAX);
	uint32_t n = window(fs, max);
	/* What was parked comes back to be read in long runs; who writes gets what he asks for. */
	vm_pindex_t around = cl->one_run ? VM_CLUSTER_MAX : !parked ? AROUND :
	    (fs->fault_type & VM_PROT_WRITE) ? 1 : VM_CLUSTER_MAX;

	cl->stride = stride(fs);
	if (cl->stride > 1) {
		uint32_t k = affordable(MIN(strides(fs, cl->stride, max), (ahead - 1) / cl->stride + 1));

		strode(fs, cl->stride, k);
		n = (k - 1) * cl->stride + 1;
		vm_cluster_went(fs, p + 1, 1);
		cl->make_hi = p + n;
	} else {
		n = MIN(n, ahead);
		strode(fs, 1, 1);
		vm_cluster_went(fs, p + n, n);
		vm_readahead_plan(fs, n);
		cl->make_hi = p + affordable(n);
	}
	cl->make_lo = p + 1;
	cl->lo = p;
	cl->hi = p + n;
	if (!(fs->flags & VM_FAULT_WIRE) && (e->advice != VM_ADVICE_RANDOM || cl->one_run)) {
		cl->lo = p - MIN(back, p % around);
		cl->hi = MIN(MAX(cl->hi, p - p % around + around), p + ahead);
		cl->hi = MIN(cl->hi, cl->lo + VM_CLUSTER_MAX);
	}
}

void
vm_cluster_start(struct faultstate *fs, struct vm_cluster *cl, pt_entry_t pte, bool parked)
{
	const struct vm_map_entry *e = fs->entry;
	vm_pindex_t p = fs->first_pindex;
	/* The entry and the chunk, as pages of the object. */
	size_t in_chunk = atop(fs->va - fs->map->base) % PMAP_LEAF_PAGES;
	vm_pindex_t back = (vm_pindex_t)MIN(in_chunk, (size_t)(p - e->map.offset));
	vm_pindex_t ahead = (vm_pindex_t)MIN(PMAP_LEAF_PAGES - in_chunk, atop(entry_end(e) - fs->va));

	ahead = MIN(ahead, fs->first_object->size - p);
	cl->one_run = pmap_mappings_short();
	cl->whole = is_boundless(fs, cl);
	if (cl->whole)
		start_whole(fs, cl, back, ahead);
	else
		start_window(fs, cl, back, ahead, parked);
	cl->centre = p - cl->lo;
	cl->fresh = cl->coarse = false;
	cl->nmade = 0;
	cl->va = fs->va - ((vm_offset_t)cl->centre << PAGE_SHIFT);
	for (uint32_t i = 0; i < cl->hi - cl->lo; i++)
		cl->pte[i] = 0;
	cl->pte[cl->centre] = pte;
}

/*
 * A resident page of first_object: its pte; c: the copy, locked, or null; unsure: it could not be
 * locked.
 */
static pt_entry_t
own_page(struct faultstate *fs, struct vm_page *m, struct vm_object *c, bool unsure, bool make)
{
	unsigned rights = fs->prot;
	bool owed = unsure;

	if (c != NULL && vm_fault_copy_of(fs->first_object, m->pindex) == c)
		owed = vm_fault_copy_lacks(c, m->pindex);
	if (owed && !unsure && make && (fs->fault_type & VM_PROT_WRITE))
		owed = vm_page_lookup(c, m->pindex - c->shadow_offset) != NULL ||
		    !vm_fault_push_page(c, m);
	if (owed || !(m->flags & PG_MODIFIED) || (fs->first_object->flags & OBJ_CUT))
		rights &= ~PTE_W;
	if ((rights & PTE_W) && physmem_is_frozen(m->pfn) &&
	    (!make || !(fs->fault_type & VM_PROT_WRITE) || !vm_page_own(m)))
		rights &= ~PTE_W;
	if ((rights & PTE_W) && make && (fs->fault_type & VM_PROT_WRITE))
		vm_written_add(m);
	else if (vm_written_would(m))
		rights &= ~PTE_W;
	return PTE_MAKE(m->pfn, rights);
}

/* A new page of first_object at q: zeros, or a copy of `from'.  Its pte, or 0. */
static pt_entry_t
new_page(struct faultstate *fs, struct vm_cluster *cl, vm_pindex_t q, struct vm_page *from)
{
	struct vm_page *m = vm_page_alloc_row(fs->first_object, q,
	    from != NULL ? PHYSMEM_OVERWRITE : PHYSMEM_ZERO, &cl->row);

	if (m == NULL)
		return 0;
	if (from != NULL) {
		physmem_copy(from->pfn, m->pfn, 1);
		vm_object_shoot(fs->first_object, q, from, m);
		vm_count(v_cow_faults);
	} else {
		vm_count(v_zfod);
	}
	vm_written_add(m);
	m->flags &= (uint16_t)~PG_FAKE;
	if (fs->first_object->internal)
		m->flags |= PG_MODIFIED;
	else if (fs->fault_type & VM_PROT_WRITE)
		m->flags |= PG_MODIFIED | PG_HOLE;
	/* It is put on its queue with the others, at the end. */
	cl->made[cl->nmade++] = m;
	vm_page_wakeup(m);
	cl->fresh |= from == NULL && fs->first_object->internal;
	return PTE_MAKE(m->pfn, (m->flags & PG_MODIFIED) ? fs->prot : fs->prot & ~(unsigned)VM_PROT_WRITE);
}

/* Is page q of fs->object in the hole of its file that the fault fell into? */
static bool
is_hole(const struct faultstate *fs, vm_pindex_t q)
{
	return q >= fs->pindex && q < fs->hole_hi;
}

/* What was written to the file since it was asked is no hole any more.  => fs->object locked */
static void
trim_hole(struct faultstate *fs)
{
	const struct vm_pager *p = fs->object->pager;

	if (fs->hole_hi == 0)
		return;
	if (p->nputs - fs->hole_puts > VM_PAGER_PUTS)
		fs->hole_hi = 0;
	for (uint32_t n = fs->hole_puts; fs->hole_hi != 0 && n != p->nputs; n++) {
		const struct vm_pager_put *put = &p->put[n % VM_PAGER_PUTS];
		uint64_t at = (uint64_t)fs->pindex + fs->object->paging_offset;

		if (put->offset + put->n > at && put->offset < fs->hole_hi + fs->object->paging_offset)
			fs->hole_hi = put->offset <= at ? 0 : fs->pindex + (vm_pindex_t)(put->offset - at);
	}
}

/* The neighbour at page q of first_object, with the chain down to fs->object locked. */
static pt_entry_t
neighbour(struct faultstate *fs, struct vm_cluster *cl, vm_pindex_t q, struct vm_object *c, bool unsure,
    struct vm_object *below, bool make)
{
	struct vm_object *o = fs->first_object;
	vm_pindex_t at = q;
	struct vm_page *m;

	for (;; o = o->shadow) {
		m = vm_page_lookup(o, at);
		if (m != NULL)
			break;
		if (o->pager != NULL && !(o == fs->object && is_hole(fs, at)) &&
		    (!o->pager->ops->queryable || vm_object_paged_out(o, at)))
			return 0;
		if (o == fs->object)
			break;
		at += o->shadow_offset;
	}
	if (m != NULL) {
		if ((m->flags & PG_BUSY) || (o == fs->object && at >= fs->limit) ||
		    (vm_page_is_viewed(m) && !vm_view_may_read(m, o != fs->first_object)))
			return 0;
		vm_page_asked_for(m);
		m->flags |= PG_REFERENCED;
		if (o == fs->first_object)
			return own_page(fs, m, c, unsure, make);
		return PTE_MAKE(m->pfn, fs->prot & ~(unsigned)VM_PROT_WRITE);
	}
	/* Nothing here.  Make it as the page that faulted was made, unless a copy must be told. */
	if (!make || o != fs->first_object || unsure || vm_fault_copy_of(o, q) != NULL ||
	    (o->flags & OBJ_CUT))
		return 0;
	if (fs->zeroed && o->shadow == NULL && (o->internal || is_hole(fs, q)))
		return new_page(fs, cl, q, NULL);
	if (fs->copied && below != NULL && q + o->shadow_offset < below->size) {
		m = vm_page_lookup(below, q + o->shadow_offset);
		if (m != NULL && !(m->flags & PG_BUSY) && (!vm_page_is_viewed(m) || vm_view_may_read(m, true)))
			return new_page(fs, cl, q, m);
	}
	return 0;
}

/* What it takes to find a neighbour. */
struct gather {
	struct vm_object *c;		/* the copy, locked and alive, or null */
	bool unsure;			/* there is one, and it does not tell what it lacks */
	struct vm_object *below;	/* where pages are copied up from, locked, or null */
	bool make;			/* pages may be made */
};

static pt_entry_t
gather_one(struct faultstate *fs, struct vm_cluster *cl, const struct gather *g, vm_pindex_t q)
{
	bool make = g->make && q >= cl->make_lo && q < cl->make_hi &&
	    (cl->stride == 1 || (q - fs->first_pindex) % cl->stride == 0);

	return cl->pte[q - cl->lo] = neighbour(fs, cl, q, g->c, g->unsure, g->below, make);
}

/* Does first_object have page q for itself, and owe it to nobody? */
static bool
is_settled(const struct faultstate *fs, const struct gather *g, vm_pindex_t q)
{
	return vm_page_lookup(fs->first_object, q) != NULL &&
	    (g->c == NULL || vm_fault_copy_of(fs->first_object, q) != g->c || !vm_fault_copy_lacks(g->c, q));
}

/* Make pages coarser, where that is cheap or is likely to pay. */
static void
coarsen(struct faultstate *fs, struct vm_cluster *cl, const struct gather *g)
{
	vm_pindex_t lo = MAX(fs->first_pindex - fs->first_pindex % AROUND, cl->lo);
	vm_pindex_t hi = MIN(fs->first_pindex - fs->first_pindex % AROUND + AROUND, cl->hi), settled = 0;

	if (!g->make || g->unsure || !(fs->fault_type & VM_PROT_WRITE) || affordable(COARSE_SHARE * AROUND) <
	    COARSE_SHARE * AROUND)
		return;
	for (vm_pindex_t q = lo; q < hi && !fs->zeroed; q++)
		settled += is_settled(fs, g, q);
	if (fs->zeroed || 2 * settled >= hi - lo) {
		cl->coarse = fs->zeroed && cl->make_hi <= fs->first_pindex + 1;
		cl->make_lo = lo;
		cl->make_hi = cl->stride > 1 ? hi : MAX(cl->make_hi, hi);
		cl->stride = 1;
	}
}

/*
 * From the page outwards, as long as it is one run.  Who reads gets all that can be read, and none of it to be written
 * unless all of it can.
 */
static void
gather_run(struct faultstate *fs, struct vm_cluster *cl, const struct gather *g)
{
	pt_entry_t mask = (fs->fault_type & VM_PROT_WRITE) ? ~0u : ~PTE_W, all = cl->pte[cl->centre];
	vm_pindex_t lo = fs->first_pindex, hi = lo + 1;

	coarsen(fs, cl, g);
	for (; hi < cl->hi; hi++, all &= cl->pte[hi - 1 - cl->lo])
		if (pte_boundary(cl->pte[hi - 1 - cl->lo] & mask, gather_one(fs, cl, g, hi) & mask))
			break;
	for (; lo > cl->lo; lo--, all &= cl->pte[lo - cl->lo])
		if (pte_boundary(gather_one(fs, cl, g, lo - 1) & mask, cl->pte[lo - cl->lo] & mask))
			break;
	for (vm_pindex_t q = cl->lo; q < cl->hi; q++) {
		pt_entry_t *pte = &cl->pte[q - cl->lo];

		if (q < lo || q >= hi)
			*pte = 0;
		else if (!(all & PTE_W))
			*pte &= ~PTE_W;
	}
}

void
vm_cluster_gather(struct faultstate *fs, struct vm_cluster *cl, bool writable)
{
	struct vm_object *first = fs->first_object, *c = first->copy;
	struct gather g = { .make = writable || fs->zeroed };
	bool locked = false;

	if (cl->hi - cl->lo <= 1)
		return;
	if (c != NULL) {
		locked = vm_object_lock_try(c);
		g.c = locked && c->ref_count != 0 ? c : NULL;
		/* What it has paged out, a pager that must not be asked here does not tell. */
		g.unsure = !locked || (c->pager != NULL && !c->pager->ops->queryable);
	}
	if (fs->copied && (cl->make_hi > fs->first_pindex + 1 || cl->one_run) && first->shadow != NULL) {
		g.below = first->shadow;
		vm_object_lock(g.below);
	}
	trim_hole(fs);
	/* What is far apart does not come in rows. */
	cl->row = (struct vm_page_row){ .want = cl->stride > 1 ? 0 : cl->make_hi - MIN(cl->make_lo, fs->first_pindex) - 1,
	    .lazy = cl->whole };
	if (cl->one_run) {
		gather_run(fs, cl, &g);
	} else {
		for (vm_pindex_t q = cl->lo; q < cl->hi; q++)
			if (q != fs->first_pindex)
				(void)gather_one(fs, cl, &g, q);
	}
	vm_page_row_end(&cl->row);
	vm_page_activate_many(cl->made, cl->nmade);
	if (g.below != NULL)
		vm_object_unlock(g.below);
	if (locked)
		vm_object_unlock(c);
}

/* Does the kernel have memory for nearly all of [s, e)? */
static bool
is_used_up(vm_offset_t s, vm_offset_t e)
{
	unsigned char there[PMAP_LEAF_PAGES];
	size_t n = atop(e - s), used = 0;

	if (sys_mincore((void *)s, e - s, there) != 0)
		return false;
	for (size_t i = 0; i < n; i++)
		used += there[i] & 1;
	return used >= n - n / USED_UP;
}

void
vm_cluster_populate(struct faultstate *fs)
{
	if (fs->populate_pages >= POPULATE_LEAST && (!fs->populate_whole || is_used_up(fs->populate_va -
	    ((vm_size_t)PMAP_LEAF_PAGES << PAGE_SHIFT), fs->populate_va)))
		(void)sys_madvise((void *)fs->populate_va, (size_t)fs->populate_pages << PAGE_SHIFT,
		    fs->populate_fresh ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
	fs->populate_pages = 0;
}

/* What was entered just now is there to be used at once. */
static void
plan_populate(struct faultstate *fs, const struct vm_cluster *cl)
{
	vm_pindex_t lo = cl->lo, hi = cl->hi;

	while (lo < hi && cl->pte[lo - cl->lo] == 0)
		lo++;
	while (hi > lo && cl->pte[hi - 1 - cl->lo] == 0)
		hi--;
	fs->populate_va = cl->va + ((vm_offset_t)(lo - cl->lo) << PAGE_SHIFT);
	fs->populate_pages = hi - lo;
	fs->populate_fresh = cl->fresh;
	fs->populate_whole = cl->whole;
}

enum kern_return
vm_cluster_enter(struct faultstate *fs, struct vm_cluster *cl)
{
	const struct vm_map_entry *e = fs->entry;
	struct vm_object *first = fs->first_object;
	vm_offset_t home_lo = 0, home_hi = 0;
	struct physmem_home home;
	int64_t home_first;
	vm_pfn_t home_pfn = 0;
	uint32_t entered;
	enum kern_return result;

	if (first->shadow == NULL && vm_object_home(first, fs->first_pindex, &home, &home_first)) {
		int64_t lo = MAX((int64_t)e->map.offset, home_first);
		int64_t hi = MIN((int64_t)entry_pindex(e, entry_end(e)), home_first + home.npages);

		if (lo <= fs->first_pindex && fs->first_pindex < hi) {
			home_lo = entry_start(e) + ((vm_offset_t)(lo - e->map.offset) << PAGE_SHIFT);
			home_hi = entry_start(e) + ((vm_offset_t)(hi - e->map.offset) << PAGE_SHIFT);
			home_pfn = physmem_at(&home) + (vm_pfn_t)(lo - home_first);
		}
	}
	result = pmap_enter(fs->map->pmap, cl->va, cl->hi - cl->lo, cl->pte, cl->centre,
	    home_lo, home_hi, home_pfn, &entered);
	if (result == KERN_SUCCESS && entered >= POPULATE_LEAST && (fs->fault_type & VM_PROT_WRITE) && !cl->coarse &&
	    (!cl->whole || cl->va - entry_start(e) >= (vm_size_t)PMAP_LEAF_PAGES << PAGE_SHIFT))
		plan_populate(fs, cl);
	if (entered > 1)
		vm_count_n(v_clustered, entered - 1);
	return result;
}

uint32_t
vm_cluster_pagein(struct faultstate *fs, struct vm_page **run)
{
	struct vm_object *o = fs->object;
	struct vm_page_row row = { 0 };
	uint32_t max, n = 1;

	run[0] = fs->m;
	/* The entry is there as long as the map is locked. */
	if (!fs->lookup_valid || o->pager->npages <= o->paging_offset)
		return 1;
	max = stride(fs);
	if (max > 1 && max <= STRIDE_READ)
		max = affordable(max * strides(fs, max, VM_PAGEIN_MAX));
	else
		max = affordable(window(fs, VM_PAGEIN_MAX));
	max = (uint32_t)MIN((uint64_t)max, MIN((uint64_t)o->size, o->pager->npages - o->paging_offset) -
	    MIN(o->size, fs->pindex));
	row.want = max - MIN(max, 1);
	for (; n < max; n++) {
		vm_pindex_t q = fs->pindex + n;

		if (vm_page_lookup(o, q) != NULL ||
		    (o->pager->ops->queryable && !vm_object_paged_out(o, q)))
			break;
		run[n] = vm_page_alloc_row(o, q, PHYSMEM_OVERWRITE, &row);
		if (run[n] == NULL)
			break;
	}
	vm_page_row_end(&row);
	return n;
}
