/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Reading ahead of a reader, and clearing up behind him.
 *
 *		  dropped    |   kept   | mapped by this fault |  being read  |
 *	----------------------------------------------------------------------------> pages
 *			behind_hi      the fault             next       ahead_end
 *
 * Mapped pages take no fault, so the reader is seen only where a cluster ends.  At each such fault, if
 * it is a sequential one, everything resident of the window is mapped, and so much is started that
 * a whole window more is on its way while the reader is in this one: the disk and the reader work at the same time.
 * The window is that of vm_cluster.c: it grows with each sequential fault and falls to a page
 * with a random one, so random readers start nothing.  When a transfer that is not done yet is
 * reached, the reader waits for its first page, as for any busy page.
 *
 * A page being read is BUSY, with a frame, in its object, whose paging_in_progress is raised for
 * each transfer: the object is neither merged nor taken down before the pager has
 * called completed().  What was not filled is freed, whatever the reason: the
 * reader who really wants it will ask the pager again, and learn that reason.
 *
 * Behind a reader who said that he is sequential clean pages are given up at once, if nobody else maps
 * the object: a pass over much data takes no memory from others, and the pageout daemon has nothing to do.
 * Behind any other long reader they are only unmapped when frames are short, many with one call, as the
 * daemon would do one by one; which of them stay is for its policy to say.  Behind a sequential writer
 * of a file what he has written is started on its way.
 */

#include "kern/assert.h"
#include "kern/probe.h"
#include "pmap.h"
#include "vm_clean.h"
#include "vm_cluster.h"
#include "vm_fault.h"
#include "vm_fault_state.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_pager.h"
#include "vm_readahead.h"

/* Pages at most; and where frames are few, as a share of all of them. */
#define AHEAD_MAX	VM_CLUSTER_MAX	/* on their way */
#define AHEAD_SHARE	32u		/* as in vm_cluster.c: more would go before he comes */
#define KEPT_MAX	VM_CLUSTER_MAX	/* that stay behind the reader, and half as many more */
#define KEPT_SHARE	32u
#define FRAME_SHARE	4u		/* of the frames that are left: for reading ahead */
#define SHORT_SHARE	16u		/* of all frames: if fewer are left, they are short */

static bool
can_start(const struct vm_object *o)
{
	return o->pager != NULL && o->pager->ops->start != NULL;
}

static vm_pindex_t
scaled(vm_pindex_t max, unsigned share)
{
	return (vm_pindex_t)MIN((uint64_t)max, MAX(physmem_budget() / share, 1));
}

/* The part of the plan that lies ahead, in pages of first_object: of a reader with such a window. */
static void
plan_ahead(struct faultstate *fs, struct vm_readahead *ra, vm_pindex_t window)
{
	struct vm_map_entry *e = fs->entry;
	vm_pindex_t done = atomic_load_explicit(&e->ahead_end, memory_order_relaxed);
	vm_pindex_t p = fs->first_pindex, size = MIN(window, scaled(AHEAD_MAX, AHEAD_SHARE));
	vm_pindex_t limit = entry_pindex(e, entry_end(e));

	if (fs->ahead > 1)
		limit = (vm_pindex_t)MIN((uint64_t)limit, (uint64_t)p + fs->ahead);
	/* Elsewhere than where this reader is: another one's, or an old one's. */
	if (done <= p || done - p > 4 * VM_CLUSTER_MAX)
		done = p + 1;
	/* His window, and another one: which is begun as soon as he has come into the last half. */
	if (done >= limit || done - p > size + size / 2)
		return;
	ra->lo = done;
	ra->hi = (vm_pindex_t)MIN((uint64_t)limit, (uint64_t)p + 2 * size);
	atomic_store_explicit(&e->ahead_end, ra->hi, memory_order_relaxed);
}

/* Are frames so short that the pageout daemon is about to look at what a long reader leaves behind? */
static bool
is_short(vm_pindex_t window)
{
	return window >= scaled(AHEAD_MAX, AHEAD_SHARE) &&
	    physmem_free_count() < physmem_budget() / SHORT_SHARE;
}

/* The part behind, where something is to be done there. */
static void
plan_behind(struct faultstate *fs, struct vm_readahead *ra, vm_pindex_t window)
{
	struct vm_map_entry *e = fs->entry;
	vm_pindex_t lo = atomic_load_explicit(&e->behind_end, memory_order_relaxed), hi;
	vm_pindex_t kept = scaled(KEPT_MAX, KEPT_SHARE);

	ra->drop_behind = e->advice == VM_ADVICE_SEQUENTIAL;
	ra->unmap_behind = ra->drop_behind || is_short(window);
	ra->write_behind = (fs->fault_type & VM_PROT_WRITE) && !fs->object->internal;
	if ((!ra->unmap_behind && !ra->write_behind) || fs->first_pindex - e->map.offset <= kept)
		return;
	hi = fs->first_pindex - kept;
	if (lo > hi || hi - lo > 2 * VM_CLUSTER_MAX)
		lo = hi - MIN(hi - e->map.offset, VM_CLUSTER_MAX);
	if (hi - lo < kept / 2)
		return;
	ra->behind_lo = lo;
	ra->behind_hi = hi;
	atomic_store_explicit(&e->behind_end, hi, memory_order_relaxed);
}

void
vm_readahead_plan(struct faultstate *fs, vm_pindex_t window)
{
	struct vm_readahead *ra = &fs->readahead;
	vm_pindex_t shift = fs->pindex - fs->first_pindex;

	KASSERT(fs->lookup_valid && ra->object == NULL);
	if (window <= 1 || (fs->flags & VM_FAULT_WIRE) || !can_start(fs->object))
		return;
	plan_ahead(fs, ra, window);
	plan_behind(fs, ra, window);
	if (ra->lo >= ra->hi && ra->behind_lo >= ra->behind_hi)
		return;
	ra->lo += shift;
	ra->hi += shift;
	ra->behind_lo += shift;
	ra->behind_hi += shift;
	ra->object = fs->object;
	ra->object->ref_count++;
}

/*
 * Ahead
 */

/* A page that was read ahead is filled, or gone. */
static void
filled(struct vm_pager_io *io)
{
	struct vm_object *o = io->object;

	PROBE("vm_readahead: filled");
	vm_object_lock(o);
	for (uint32_t i = 0; i < io->n; i++) {
		struct vm_page *m = io->m[i];

		if (i >= io->done) {
			vm_page_free(m);
			continue;
		}
		m->flags &= (uint16_t)~PG_FAKE;
		vm_page_activate(m);
		vm_page_wakeup(m);
	}
	/* First, for the object may go when this is done, and with the last one the library. */
	vm_pager_io_free(io);
	vm_object_pip_done(o);
	vm_object_unlock(o);
}

/*
 * Busy pages, with frames, for what is missing from *at on, in a row, at most max.
 * => locked.  0: nothing is missing before hi, or there are no frames
 */
static uint32_t
gather_missing(struct vm_object *o, vm_pindex_t *at, vm_pindex_t hi, struct vm_page **m, uint32_t max)
{
	uint32_t n = 0;

	for (; *at < hi && n < max && !(o->flags & OBJ_DEAD); ++*at) {
		if (vm_page_lookup(o, *at) != NULL ||
		    (o->pager->ops->queryable && !vm_object_paged_out(o, *at))) {
			if (n != 0)
				break;
			continue;
		}
		m[n] = vm_page_alloc(o, *at, PHYSMEM_OVERWRITE);
		if (m[n] == NULL)
			break;
		m[n++]->flags |= PG_AHEAD;
	}
	return n;
}

uint32_t
vm_readahead_start(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi, uint32_t max)
{
	uint32_t started = 0, n;

	locks_assert_none();
	if (!can_start(o) || o->pager->npages <= o->paging_offset)
		return 0;
	hi = (vm_pindex_t)MIN((uint64_t)MIN(hi, o->size), o->pager->npages - o->paging_offset);
	for (; lo < hi && started < max; started += n) {
		struct vm_pager_io *io = vm_pager_io_alloc();

		if (io == NULL)
			break;
		vm_object_lock(o);
		n = gather_missing(o, &lo, hi, io->m, MIN(max - started, VM_PAGER_IO_MAX));
		if (n == 0) {
			vm_object_unlock(o);
			vm_pager_io_free(io);
			break;
		}
		io->pager = o->pager;
		io->offset = (uint64_t)io->m[0]->pindex + o->paging_offset;
		io->n = n;
		io->complete = filled;
		io->object = o;
		vm_object_pip_add(o);
		vm_object_unlock(o);
		vm_count_n(v_readahead, n);
		PROBE("vm_readahead: start");
		if (!vm_pager_start(io)) {
			io->done = 0;
			filled(io);
			break;
		}
	}
	return started;
}

/*
 * Behind
 */

/* Clean, and nobody's but the reader's who has passed it? */
static bool
may_leave(const struct vm_page *m)
{
	return (m->flags & (PG_BUSY | PG_MODIFIED | PG_AHEAD)) == 0 && m->wire_count == 0;
}

/* Is the object mapped in one place only, directly or below a shadow?  => locked */
static bool
has_one_reader(struct vm_object *o)
{
	const struct vm_object *top = o;
	bool one;

	krwlock_read(&vm_rmap_lock);
	while (LIST_EMPTY(&top->mappings) && (top = LIST_FIRST(&top->children)) != NULL &&
	    LIST_NEXT(top, sibling) == NULL)
		;
	one = top != NULL && LIST_FIRST(&top->mappings) != NULL &&
	    LIST_NEXT(LIST_FIRST(&top->mappings), link) == NULL && LIST_EMPTY(&top->children);
	krwlock_read_unlock(&vm_rmap_lock);
	return one;
}

/* Unmap [lo, hi), and if `drop' free what is clean of it.  => the object stays */
static void
unmap_behind(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi, bool drop)
{
	struct vm_page *m;
	uint32_t n = 0;

	vm_object_lock(o);
	if (!(o->flags & OBJ_DEAD) && o->wired_pages == 0 && has_one_reader(o)) {
		bool direct = !LIST_EMPTY(&o->mappings);

		/* One call for all of them, where no shadow shows them. */
		if (direct)
			vm_object_forget(o, lo, hi);
		for (; drop && (m = radix_next(&o->pages, &lo)) != NULL && lo < hi; lo++) {
			if (!may_leave(m))
				continue;
			if (!direct)
				vm_object_page_protect(m, VM_PROT_NONE);
			vm_page_free(m);
			n++;
		}
	}
	vm_object_unlock(o);
	vm_count_n(v_drop_behind, n);
}

void
vm_readahead_run(struct vm_readahead *ra)
{
	struct vm_object *o = ra->object;

	if (o == NULL)
		return;
	PROBE("vm_readahead: run");
	if (ra->lo < ra->hi)
		(void)vm_readahead_start(o, ra->lo, ra->hi,
		    (uint32_t)MIN(physmem_free_count() / FRAME_SHARE, ra->hi - ra->lo));
	if (ra->behind_lo < ra->behind_hi && ra->write_behind)
		vm_count_n(v_write_behind,
		    vm_object_clean_begin(o, ra->behind_lo, ra->behind_hi) - ra->behind_lo);
	if (ra->behind_lo < ra->behind_hi && ra->unmap_behind)
		unmap_behind(o, ra->behind_lo, ra->behind_hi, ra->drop_behind);
	vm_object_deallocate(o);
	*ra = (struct vm_readahead){ 0 };
}
