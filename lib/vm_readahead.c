/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Reading ahead of a reader, and clearing up behind him.
 *
 *		  dropped    |   kept   | mapped by this fault |  being read  |
 *	----------------------------------------------------------------------------> pages
 *			behind_hi      the fault             next       ahead_end
 *
 * Mapped pages take no fault, so the reader is seen only where a cluster ends.  At each such fault,
 * if it is a sequential one, everything resident of the window is mapped, and so much is started
 * that some windows more are on their way while the reader is in this one: the disk and the reader
 * work at the same time. The window is that of vm_cluster.c: it grows with each sequential fault
 * and falls to a page with a random one, so random readers start nothing.  When a transfer that is
 * not done yet is reached, the reader waits for its first page, as for any busy page.
 *
 * A page being read is BUSY, with a frame, in its object, whose paging_in_progress is raised for
 * each transfer: the object is neither merged nor taken down before the pager has
 * called completed().  What was not filled is freed, whatever the reason: the
 * reader who really wants it will ask the pager again, and learn that reason.
 *
 * Behind a reader who said that he is sequential clean pages are given up at once, if nobody else
 * maps the object: a pass over much data takes no memory from others, and the pageout daemon has
 * nothing to do. Behind any other long reader they are unmapped when frames are short, many with
 * one call, as the daemon would do one by one.  Of an object that cannot all be in memory those he
 * leaves far behind go, too, unless the daemon's policy takes them for hot; else who stays is for
 * it to say.  Behind a sequential writer of a file what he has written is started on its way: to
 * the pager first, and a while later to the disk.
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
#define AHEAD_MAX	VM_CLUSTER_MAX	/* in a window, ... */
#define AHEAD_WINDOWS	4u		/* of which so many are begun: with fewer the disk waits for him, too; ... */
#define AHEAD_SHORT	2u		/* ... or these, where all are more than ... */
#define AHEAD_ALL_SHARE	64u		/* ... this share of all frames */
#define AHEAD_SHARE	32u		/* as in vm_cluster.c: more would go before he comes */
#define KEPT_MAX	VM_CLUSTER_MAX	/* that stay behind the reader, and half as many more */
#define KEPT_SHARE	32u
#define WRITTEN		(2 * VM_CLUSTER_MAX)	/* behind which all that was begun should be written */
#define LAG_SHARE	32u		/* of all frames: they stay behind a reader who said nothing */
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
	vm_pindex_t all = MIN(AHEAD_WINDOWS * size, MAX(AHEAD_SHORT * size,
	    scaled(AHEAD_WINDOWS * AHEAD_MAX, AHEAD_ALL_SHARE)));

	if (fs->ahead > 1)
		limit = (vm_pindex_t)MIN((uint64_t)limit, (uint64_t)p + fs->ahead);
	/* Elsewhere than where this reader is: another one's, or an old one's. */
	if (done <= p || done - p > 4 * AHEAD_WINDOWS * VM_CLUSTER_MAX)
		done = p + 1;
	/* His window, and others: the next is begun as soon as he has come into the last half of his. */
	if (done >= limit || done - p > all - size / 2)
		return;
	ra->lo = done;
	ra->hi = (vm_pindex_t)MIN((uint64_t)limit, (uint64_t)p + all);
	/*
	 * Not further than there are frames for: he should come upon what was not begun as soon as
	 * can be.
	 */
	ra->hi = (vm_pindex_t)MIN((uint64_t)ra->hi, done + physmem_free_count() / FRAME_SHARE);
	if (ra->lo >= ra->hi)
		return;
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

	ra->advised = e->advice == VM_ADVICE_SEQUENTIAL;
	ra->drop_behind = ra->advised || (is_short(window) && fs->object->size > physmem_budget());
	ra->write_behind = (fs->fault_type & VM_PROT_WRITE) && !fs->object->internal;
	ra->unmap_behind = ra->drop_behind || ra->write_behind || is_short(window);
	/* What was begun to be written the last times is clean by now. */
	ra->lag = ra->write_behind ? WRITTEN : 0;
	if (!ra->advised)
		ra->lag = MAX(ra->lag, (vm_pindex_t)MIN(physmem_budget() / LAG_SHARE, UINT32_MAX));
	if (!ra->unmap_behind || fs->first_pindex - e->map.offset <= kept)
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
	if (!fs->zeroed)
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
	}
	vm_page_activate_many(io->m, io->done);
	for (uint32_t i = 0; i < io->done; i++)
		vm_page_wakeup(io->m[i]);
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
	struct vm_page_row row = { .want = MIN(max, hi - *at) };
	uint32_t n = 0;

	for (; *at < hi && n < max && !(o->flags & OBJ_DEAD); ++*at) {
		if (vm_page_lookup(o, *at) != NULL ||
		    (o->pager->ops->queryable && !vm_object_paged_out(o, *at))) {
			if (n != 0)
				break;
			continue;
		}
		m[n] = vm_page_alloc_row(o, *at, PHYSMEM_OVERWRITE, &row);
		if (m[n] == NULL)
			break;
		m[n++]->flags |= PG_AHEAD;
	}
	vm_page_row_end(&row);
	return n;
}

/*
 * Zeros are made by whoever comes, and need not be read: is what is missing first from *lo on such
 * a hole?  Then pass it.
 */
static bool
skip_hole(struct vm_object *o, vm_pindex_t *lo, vm_pindex_t hi)
{
	uint64_t hole;

	if (o->pager->ops->hole == NULL)
		return false;
	vm_object_lock(o);
	while (*lo < hi && vm_page_lookup(o, *lo) != NULL)
		++*lo;
	vm_object_unlock(o);
	hole = *lo < hi ? vm_pager_hole(o->pager, (uint64_t)*lo + o->paging_offset) : 0;
	*lo += (vm_pindex_t)MIN(hole, (uint64_t)(hi - *lo));
	return hole != 0;
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
		struct vm_pager_io *io;

		n = 0;
		if (skip_hole(o, &lo, hi))
			continue;
		io = vm_pager_io_alloc();
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

/*
 * Clean, not touched again since the reader passed it, and worth no more than what he will read
 * next?  Where there was time for that it may have been mapped beside another one.
 */
static bool
may_leave(struct vm_page *m, const struct vm_readahead *ra)
{
	return (m->flags & (PG_BUSY | PG_MODIFIED | PG_AHEAD | PG_REFERENCED)) == 0 && m->wire_count == 0 &&
	    (ra->advised || vm_page_is_cold(m)) && (ra->lag == 0 || !vm_object_page_mapped(m));
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

/*
 * Unmap [lo, hi), where one call does that, or `all' of it anyhow, so that who comes back to a
 * page is seen.  => locked
 */
static void
unmap(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi, bool all)
{
	bool direct = vm_object_forget(o, lo, hi);
	struct vm_page *m;

	for (; (m = radix_next(&o->pages, &lo)) != NULL && lo < hi; lo++) {
		if (!direct && all)
			vm_object_page_protect(m, VM_PROT_NONE);
		if (direct || all)
			m->flags &= (uint16_t)~PG_REFERENCED;
	}
}

/* Free what may leave of what lies behind.  => locked, unmapped just now */
static void
drop(struct vm_object *o, const struct vm_readahead *ra)
{
	vm_pindex_t lo = ra->behind_lo - ra->lag, hi = ra->behind_hi - ra->lag;
	struct vm_page *m, *leave[VM_PAGE_MANY];
	uint32_t n = 0;

	for (; (m = radix_next(&o->pages, &lo)) != NULL && lo < hi; lo++) {
		if (may_leave(m, ra))
			leave[n++] = m;
		if (n == VM_PAGE_MANY) {
			vm_page_free_many(leave, n, !ra->advised);
			vm_count_n(v_drop_behind, n);
			n = 0;
		}
	}
	vm_page_free_many(leave, n, !ra->advised);
	vm_count_n(v_drop_behind, n);
}

/* Returns whether he is alone with them. */
static bool
leave_behind(struct vm_object *o, const struct vm_readahead *ra)
{
	bool alone;

	vm_object_lock(o);
	alone = !(o->flags & OBJ_DEAD) && o->wired_pages == 0 && has_one_reader(o);
	if (alone) {
		unmap(o, ra->behind_lo, ra->behind_hi, ra->drop_behind);
		if (ra->drop_behind && ra->behind_lo >= ra->lag)
			drop(o, ra);
	}
	vm_object_unlock(o);
	return alone;
}

static void
flushed(struct vm_pager_io *io)
{
	struct vm_object *o = io->object;

	vm_object_lock(o);
	vm_pager_io_free(io);
	vm_object_pip_done(o);
	vm_object_unlock(o);
}

/* What was put of [lo, hi) will not change soon: let the disk begin.  => the object stays */
static void
flush_behind(struct vm_object *o, vm_pindex_t lo, vm_pindex_t hi)
{
	struct vm_pager_io *io = vm_pager_io_alloc();

	if (io == NULL)
		return;
	io->pager = o->pager;
	io->offset = (uint64_t)lo + o->paging_offset;
	io->n = hi - lo;
	io->flush = true;
	io->complete = flushed;
	io->object = o;
	vm_object_lock(o);
	vm_object_pip_add(o);
	vm_object_unlock(o);
	if (!vm_pager_start(io))
		flushed(io);
}

void
vm_readahead_run(struct vm_readahead *ra)
{
	struct vm_object *o = ra->object;

	if (o == NULL)
		return;
	PROBE("vm_readahead: run");
	if (ra->lo < ra->hi)
		(void)vm_readahead_start(o, ra->lo, ra->hi, ra->hi - ra->lo);
	if (ra->behind_lo < ra->behind_hi) {
		bool alone = false;

		/* First, so that the kernel is told once. */
		if (ra->unmap_behind)
			alone = leave_behind(o, ra);
		if (ra->write_behind && ra->behind_lo >= WRITTEN)
			flush_behind(o, ra->behind_lo - WRITTEN, ra->behind_hi - WRITTEN);
		if (ra->write_behind)
			vm_count_n(v_write_behind,
			    vm_object_clean_begin(o, ra->behind_lo, ra->behind_hi, ra->advised && alone) -
			    ra->behind_lo);
	}
	vm_object_deallocate(o);
	*ra = (struct vm_readahead){ 0 };
}
