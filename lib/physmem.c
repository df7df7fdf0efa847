/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Frames: where they lie, who may have one, and how they are cleaned.
 *
 * Two bitmaps say what a frame is: `used`, and `dirty` (see physmem.h); a frame
 * with both bits clear is clean.  The bitmaps are as long as the frame space and
 * cost memory only where frames were.  Free runs of frame space are in a tree of
 * extents; a run that is given out as a home may still hold strangers' frames
 * (pages that moved to another object), which the used bits tell.
 *
 * Freed frames are collected as runs and punched out of the memfd many at a
 * time, with the lock dropped: while that goes on their bits are those of used
 * frames, so that nobody takes a frame from under the hole, but they count as dirty
 * ones; who needs one of them waits the moment that it takes.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "kern/assert.h"
#include "kern/avl.h"
#include "kern/event.h"
#include "kern/lock.h"
#include "kern/probe.h"
#include "kern/slab.h"
#include "kern/sys.h"
#include "machdep.h"
#include "physmem.h"

#define RUN_SHIFT	9			/* homes of 2 MB and more are aligned to it */
#define HUGE_SHIFT	18			/* homes of 1 GB and more to this */
#define STRAY_RUN	(1u << RUN_SHIFT)	/* strays are taken from runs of this length */
#define BATCH_RUNS	512			/* freed runs that are collected ... */
#define BATCH_PAGES	4096			/* ... or frames, before they are punched */
#define RECYCLE_LEAST	32			/* frames in a row that are worth being used out of place */
#define RECYCLE_LOOKS	8			/* runs that are looked at for that */
#define PLENTY_STEP	32			/* frames freed for each physmem_plenty */
#define LEAST_SPACE	(1u << 16)		/* frames: fewer are not worth starting with */

struct extent {
	struct avl_node node;		/* key: first frame */
	uint32_t npages;
};

struct run {
	vm_pfn_t base;
	uint32_t npages;
};

static struct {
	struct kmutex lock;		/* guards all that follows */
	int fd;				/* constant */
	uint64_t nframes;		/* constant; frames are 1 .. nframes - 1 */
	_Atomic uint64_t budget;	/* changed with the lock; faults read it without */
	uint64_t nused, ndirty;		/* bits set in the bitmaps */
	uint64_t nlent;			/* frames that must stay free */
	uint64_t *used, *dirty;
	uint64_t *fresh;		/* not written since the kernel had it, as far as we know: a hint */
	size_t bitmap_bytes;		/* of each of the three */
	struct avl free;		/* extents; disjoint, not adjacent */
	struct slab extents;
	vm_pfn_t stray, stray_end;	/* the run that strays come from */
	struct run batch[BATCH_RUNS];	/* freed frames; some may have been used again */
	uint32_t nbatch, batch_pages;
	bool flushing;			/* somebody is punching ... */
	uint32_t npunching;		/* ... so many of the ndirty frames at the moment */
	uint64_t low_mark;
	_Atomic bool low;		/* not guarded: a hint; fewer than low_mark are left */
} pm;

const char physmem_freed, physmem_plenty;

static inline bool
test_bit(const uint64_t *map, vm_pfn_t pfn)
{
	return map[pfn / 64] >> (pfn % 64) & 1;
}

static inline void
set_bit(uint64_t *map, vm_pfn_t pfn)
{
	map[pfn / 64] |= (uint64_t)1 << (pfn % 64);
}

static inline void
clear_bit(uint64_t *map, vm_pfn_t pfn)
{
	map[pfn / 64] &= ~((uint64_t)1 << (pfn % 64));
}

/* Add a run to the free extents, merged with its neighbours.  false: no memory. */
static bool
extent_free(vm_pfn_t base, uint32_t npages)
{
	struct avl_node *n;
	struct extent *e;

	n = avl_find_le(&pm.free, base);
	if (n != NULL) {
		e = container_of(n, struct extent, node);
		KASSERT(n->key + e->npages <= base);
		if (n->key + e->npages == base) {
			struct avl_node *next = avl_next(n);

			e->npages += npages;
			if (next != NULL && next->key == n->key + e->npages) {
				struct extent *f = container_of(next, struct extent, node);

				e->npages += f->npages;
				avl_remove(&pm.free, next);
				slab_free(&pm.extents, f);
			}
			return true;
		}
	}
	n = avl_find_ge(&pm.free, base);
	if (n != NULL && n->key == (uintptr_t)base + npages) {
		e = container_of(n, struct extent, node);
		avl_remove(&pm.free, n);
	} else {
		e = slab_alloc(&pm.extents);
		if (e == NULL)
			return false;
	}
	e->npages += npages;
	e->node.key = base;
	avl_insert(&pm.free, &e->node);
	return true;
}

/* First fit.  0: none. */
static vm_pfn_t
extent_alloc(uint32_t npages, uint32_t align)
{
	struct avl_node *n;

	for (n = avl_first(&pm.free); n != NULL; n = avl_next(n)) {
		struct extent *e = container_of(n, struct extent, node);
		uint64_t start = n->key, end = start + e->npages;
		uint64_t base = (start + align - 1) & ~(uint64_t)(align - 1);

		if (base + npages > end)
			continue;
		if (base != start && base + npages != end) {
			/* The tail becomes an extent of its own first: that may fail. */
			e->npages = (uint32_t)(base - start);
			if (!extent_free((vm_pfn_t)(base + npages), (uint32_t)(end - base - npages))) {
				e->npages = (uint32_t)(end - start);
				return 0;
			}
		} else if (base != start) {
			e->npages = (uint32_t)(base - start);
		} else {
			avl_remove(&pm.free, n);
			if (base + npages == end) {
				slab_free(&pm.extents, e);
			} else {
				e->node.key = (uintptr_t)(base + npages);
				e->npages = (uint32_t)(end - base - npages);
				avl_insert(&pm.free, &e->node);
			}
		}
		return (vm_pfn_t)base;
	}
	return 0;
}

int
physmem_init(uint64_t budget_pages, uint64_t max_span)
{
	uint64_t n = MIN(MACHDEP_FRAME_SPACE, max_span);
	int error;

	memset(&pm, 0, sizeof(pm));
	kmutex_init(&pm.lock, RANK_PHYSMEM);
	slab_init(&pm.extents, "extent", sizeof(struct extent), 8);
	pm.budget = budget_pages;
	pm.fd = sys_memfd("vmfault");
	if (pm.fd < 0)
		return pm.fd;

	/* Past this limit ftruncate would raise SIGXFSZ. */
	n = MIN(n, sys_file_limit() >> PAGE_SHIFT);
	for (error = -ENOMEM; n >= LEAST_SPACE; n /= 2) {
		error = sys_ftruncate(pm.fd, n << PAGE_SHIFT);
		if (error != 0)
			continue;
		error = window_init(pm.fd, n);
		if (error == 0)
			break;
	}
	if (error != 0) {
		(void)sys_close(pm.fd);
		return error;
	}
	pm.nframes = n;
	pm.bitmap_bytes = (size_t)(n / 8);
	pm.used = sys_mmap(NULL, 3 * pm.bitmap_bytes, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_is_err(pm.used) || !extent_free(1, (uint32_t)(n - 1))) {
		if (!sys_is_err(pm.used))
			(void)sys_munmap(pm.used, 3 * pm.bitmap_bytes);
		window_fini();
		(void)sys_close(pm.fd);
		return -ENOMEM;
	}
	pm.dirty = pm.used + pm.bitmap_bytes / sizeof(uint64_t);
	pm.fresh = pm.dirty + pm.bitmap_bytes / sizeof(uint64_t);
	return 0;
}

void
physmem_fini(void)
{
	struct avl_node *n;

	KASSERT(pm.nused == 0 && pm.nlent == 0);
	while ((n = avl_first(&pm.free)) != NULL) {
		avl_remove(&pm.free, n);
		slab_free(&pm.extents, container_of(n, struct extent, node));
	}
	window_fini();
	(void)sys_munmap(pm.used, 3 * pm.bitmap_bytes);
	slab_fini(&pm.extents);
	(void)sys_close(pm.fd);
}

int
physmem_forked(int fd)
{
	(void)sys_close(pm.fd);
	pm.fd = fd;
	return window_init(fd, pm.nframes);
}

int
physmem_fd(void)
{
	return pm.fd;
}

bool
physmem_reserve(uint32_t npages, struct physmem_home *home)
{
	uint32_t align = npages >= 1u << HUGE_SHIFT ? 1u << HUGE_SHIFT :
	    npages >= 1u << RUN_SHIFT ? 1u << RUN_SHIFT : 1;

	kmutex_lock(&pm.lock);
	home->base = extent_alloc(npages, align);
	if (home->base == 0 && align > 1u << RUN_SHIFT)
		home->base = extent_alloc(npages, 1u << RUN_SHIFT);
	kmutex_unlock(&pm.lock);
	home->npages = home->base != 0 ? npages : 0;
	return home->base != 0;
}

void
physmem_unreserve(struct physmem_home *home)
{
	if (home->npages == 0)
		return;
	kmutex_lock(&pm.lock);
	/* No memory to remember a free run by: the run is lost, not the frames. */
	(void)extent_free(home->base, home->npages);
	kmutex_unlock(&pm.lock);
	home->npages = 0;
}

/* A free frame that is nobody's wish.  => lock held.  0: the frame space is full. */
static vm_pfn_t
stray_alloc(void)
{
	for (int tries = 0; tries < 64; tries++) {
		for (; pm.stray < pm.stray_end; pm.stray++)
			if (!test_bit(pm.used, pm.stray))
				return pm.stray++;
		pm.stray = extent_alloc(STRAY_RUN, 1);
		if (pm.stray == 0)
			break;
		pm.stray_end = pm.stray + STRAY_RUN;
	}
	/* Every run is reserved or full of strangers: look everywhere. */
	for (uint64_t i = 0; i < pm.nframes / 64; i++) {
		if (~pm.used[i] == 0)
			continue;
		vm_pfn_t pfn = (vm_pfn_t)(i * 64 + (uint64_t)__builtin_ctzll(~pm.used[i]));
		if (pfn != 0)
			return pfn;
		if (~(pm.used[0] | 1) != 0)
			return (vm_pfn_t)__builtin_ctzll(~(pm.used[0] | 1));
	}
	return 0;
}

/* => lock held */
static void
note_low(void)
{
	bool low = pm.budget - MIN(pm.nused + pm.nlent, pm.budget) < pm.low_mark;

	if (low != atomic_load_explicit(&pm.low, memory_order_relaxed))
		atomic_store_explicit(&pm.low, low, memory_order_relaxed);
}

bool
physmem_is_low(void)
{
	return atomic_load_explicit(&pm.low, memory_order_relaxed);
}

/* Any frame with the dirty bit.  => lock held.  0: none. */
static vm_pfn_t
any_dirty(void)
{
	for (uint64_t i = 0; pm.ndirty != 0 && i < pm.nframes / 64; i++)
		if (pm.dirty[i] != 0)
			return (vm_pfn_t)(i * 64 + (uint64_t)__builtin_ctzll(pm.dirty[i]));
	return 0;
}

vm_pfn_t
physmem_alloc(vm_pfn_t want, enum physmem_fill fill)
{
	bool was_dirty, flushed = false;
	uint32_t ticket;
	vm_pfn_t pfn;

	kmutex_lock(&pm.lock);
	for (;;) {
		bool lent = fill == PHYSMEM_LENT;
		uint64_t nused = pm.nused + (lent ? 0 : pm.nlent);
		/* What was lent is due, however small the budget has become since: that brings the loan back. */
		uint64_t budget = lent ? MAX(pm.budget, nused + 1) : pm.budget;

		pfn = want != 0 && want < pm.nframes && !test_bit(pm.used, want) ? want : 0;
		if (nused >= budget) {
			pfn = 0;
			break;
		}
		/* A dirty frame is resident already, a clean one adds to what is. */
		if (pfn != 0 && test_bit(pm.dirty, pfn))
			break;
		if (nused + pm.ndirty < budget) {
			if (pfn == 0)
				pfn = stray_alloc();
			break;
		}
		/* If this was tried, the kernel would not take them, or others are at it. */
		pfn = flushed && pm.ndirty > pm.npunching ? any_dirty() : 0;
		if (pfn != 0 || pm.ndirty == 0)
			break;
		ticket = event_prepare(&pm.npunching);
		kmutex_unlock(&pm.lock);
		if (flushed) {
			PROBE("physmem_alloc: what is free is being punched");
			(void)event_wait(&pm.npunching, ticket, EVENT_FOREVER);
		} else {
			(void)physmem_flush();
		}
		flushed = true;
		kmutex_lock(&pm.lock);
	}
	if (pfn == 0) {
		kmutex_unlock(&pm.lock);
		return 0;
	}
	was_dirty = test_bit(pm.dirty, pfn);
	if (was_dirty) {
		clear_bit(pm.dirty, pfn);
		pm.ndirty--;
		clear_bit(pm.fresh, pfn);
	} else {
		set_bit(pm.fresh, pfn);
	}
	set_bit(pm.used, pfn);
	pm.nused++;
	note_low();
	kmutex_unlock(&pm.lock);
	if (was_dirty && fill == PHYSMEM_ZERO)
		physmem_zero(pfn);
	return pfn;
}

uint32_t
physmem_alloc_row(vm_pfn_t want, uint32_t n)
{
	uint64_t busy;
	uint32_t got = 0;

	if (want == 0)
		return 0;
	kmutex_lock(&pm.lock);
	busy = pm.nused + pm.nlent + pm.ndirty;
	n = (uint32_t)MIN((uint64_t)n, pm.budget - MIN(busy, pm.budget));
	for (; got < n && want + got < pm.nframes && !test_bit(pm.used, want + got) &&
	    !test_bit(pm.dirty, want + got); got++) {
		set_bit(pm.used, want + got);
		set_bit(pm.fresh, want + got);
	}
	pm.nused += got;
	note_low();
	kmutex_unlock(&pm.lock);
	return got;
}

void
physmem_unalloc_row(vm_pfn_t pfn, uint32_t n)
{
	kmutex_lock(&pm.lock);
	for (uint32_t i = 0; i < n; i++)
		clear_bit(pm.used, pfn + i);
	pm.nused -= n;
	note_low();
	kmutex_unlock(&pm.lock);
	event_wake(&physmem_freed);
}

/*
 * The batch is full: what is left of it?  Frames that were taken again while still in memory need no
 * punching, and who goes round in a few of them should keep them.  => lock held
 */
static bool
batch_is_worth_it(void)
{
	uint32_t n = 0, pages = 0;

	for (uint32_t i = 0; i < pm.nbatch; i++) {
		struct run r = pm.batch[i];
		uint32_t dirty = 0;

		for (uint32_t k = 0; k < r.npages; k++)
			dirty += test_bit(pm.dirty, r.base + k);
		if (dirty == 0)
			continue;
		pages += dirty;
		pm.batch[n++] = r;
	}
	pm.nbatch = n;
	pm.batch_pages = pages;
	return n > BATCH_RUNS / 2 || pages > BATCH_PAGES / 2;
}

/* => lock held */
static void
free_one(vm_pfn_t pfn)
{
	struct run *last;

	KASSERT_ALWAYS(test_bit(pm.used, pfn));
	KASSERT(!test_bit(pm.dirty, pfn));
	clear_bit(pm.used, pfn);
	pm.nused--;
	set_bit(pm.dirty, pfn);
	pm.ndirty++;
	last = pm.nbatch != 0 ? &pm.batch[pm.nbatch - 1] : NULL;
	if (last != NULL && last->base + last->npages == pfn) {
		last->npages++;
		pm.batch_pages++;
	} else if (pm.nbatch < BATCH_RUNS) {
		pm.batch[pm.nbatch++] = (struct run){ pfn, 1 };
		pm.batch_pages++;
	}	/* else: flush_lost() finds it by its bit */
}

void
physmem_free(vm_pfn_t pfn)
{
	physmem_free_many(&pfn, 1);
}

void
physmem_free_many(const vm_pfn_t *pfn, uint32_t n)
{
	bool flush = false, plenty = n >= PLENTY_STEP;

	kmutex_lock(&pm.lock);
	for (uint32_t i = 0; i < n; i++) {
		free_one(pfn[i]);
		plenty |= pm.nused % PLENTY_STEP == 0;
	}
	note_low();
	if (pm.nbatch == BATCH_RUNS || pm.batch_pages >= BATCH_PAGES)
		flush = batch_is_worth_it();
	kmutex_unlock(&pm.lock);
	event_wake(&physmem_freed);
	if (plenty)
		event_wake(&physmem_plenty);
	if (flush)
		(void)physmem_flush();
}

/* Refill the batch from the bitmap: frees outran it, or the kernel refused them.  => lock held */
static void
flush_lost(void)
{
	for (uint64_t i = 0; i < pm.nframes / 64 && pm.nbatch < BATCH_RUNS; i++) {
		uint64_t word = pm.dirty[i];

		while (word != 0 && pm.nbatch < BATCH_RUNS) {
			vm_pfn_t pfn = (vm_pfn_t)(i * 64 + (uint64_t)__builtin_ctzll(word));
			struct run *last = pm.nbatch != 0 ? &pm.batch[pm.nbatch - 1] : NULL;

			word &= word - 1;
			if (last != NULL && last->base + last->npages == pfn)
				last->npages++;
			else
				pm.batch[pm.nbatch++] = (struct run){ pfn, 1 };
			pm.batch_pages++;
		}
	}
}

/* The dirty frames of a run, from *at on, as one run.  => lock held. */
static struct run
next_dirty(const struct run *run, vm_pfn_t *at)
{
	vm_pfn_t end = run->base + run->npages;
	struct run r;

	while (*at < end && !test_bit(pm.dirty, *at))
		(*at)++;
	r = (struct run){ *at, 0 };
	for (; *at < end && test_bit(pm.dirty, *at); (*at)++)
		r.npages++;
	return r;
}

/*
 * Of the newest runs the shortest that is long enough, or else the longest; a few frames here and there are
 * not worth it, for the pages in them would need as many mappings.  => lock held
 */
static struct run *
best_dirty(uint32_t n, struct run *found)
{
	uint32_t least = MIN(n, RECYCLE_LEAST);
	struct run *best = NULL;

	*found = (struct run){ 0 };
	for (uint32_t i = pm.nbatch, looks = RECYCLE_LOOKS; i > 0 && looks > 0; i--, looks--) {
		struct run *run = &pm.batch[i - 1], r;
		vm_pfn_t at = run->base;

		r = next_dirty(run, &at);
		if (r.npages >= least && (r.npages >= n ? found->npages < n || r.npages < found->npages :
		    r.npages > found->npages)) {
			best = run;
			*found = r;
		}
	}
	return best;
}

uint32_t
physmem_recycle(uint32_t n, vm_pfn_t *base)
{
	struct run *run, r;
	uint32_t gone;

	kmutex_lock(&pm.lock);
	run = n != 0 && pm.nused + pm.nlent < pm.budget ? best_dirty(n, &r) : NULL;
	n = run != NULL ? (uint32_t)MIN((uint64_t)MIN(n, r.npages), pm.budget - pm.nused - pm.nlent) : 0;
	if (n != 0) {
		*base = r.base;
		for (vm_pfn_t p = r.base; p < r.base + n; p++) {
			clear_bit(pm.dirty, p);
			clear_bit(pm.fresh, p);
			set_bit(pm.used, p);
		}
		pm.ndirty -= n;
		pm.nused += n;
		note_low();
		gone = r.base + n - run->base;
		run->base += gone;
		run->npages -= gone;
		pm.batch_pages -= gone;
		if (run->npages == 0)
			*run = pm.batch[--pm.nbatch];
	}
	kmutex_unlock(&pm.lock);
	return n;
}

uint32_t
physmem_flush(void)
{
	static struct run work[BATCH_RUNS];	/* guarded by pm.flushing */
	uint32_t nwork, given = 0;

	kmutex_lock(&pm.lock);
	if (pm.flushing) {
		kmutex_unlock(&pm.lock);
		sys_yield();
		return 0;
	}
	pm.flushing = true;
	if (pm.nbatch == 0 && pm.ndirty != 0)
		flush_lost();
	memcpy(work, pm.batch, pm.nbatch * sizeof(work[0]));
	nwork = pm.nbatch;
	pm.nbatch = pm.batch_pages = 0;
	for (uint32_t i = 0; i < nwork; i++) {
		for (vm_pfn_t at = work[i].base; at < work[i].base + work[i].npages;) {
			struct run r = next_dirty(&work[i], &at);
			int error;

			if (r.npages == 0)
				break;
			for (vm_pfn_t p = r.base; p < r.base + r.npages; p++) {
				clear_bit(pm.dirty, p);
				set_bit(pm.used, p);
			}
			pm.npunching = r.npages;
			kmutex_unlock(&pm.lock);
			PROBE("physmem_flush: punching");
			error = sys_punch(pm.fd, (uint64_t)r.base << PAGE_SHIFT,
			    (uint64_t)r.npages << PAGE_SHIFT);
			kmutex_lock(&pm.lock);
			for (vm_pfn_t p = r.base; p < r.base + r.npages; p++) {
				clear_bit(pm.used, p);
				if (error != 0)		/* the next flush finds them by their bits */
					set_bit(pm.dirty, p);
			}
			if (error == 0) {
				pm.ndirty -= r.npages;
				given += r.npages;
			}
			pm.npunching = 0;
			event_wake(&pm.npunching);
		}
	}
	pm.flushing = false;
	kmutex_unlock(&pm.lock);
	if (nwork != 0)
		event_wake(&physmem_freed);
	return given;
}

bool
physmem_lend(uint32_t n, uint64_t leave)
{
	bool ok;

	kmutex_lock(&pm.lock);
	ok = pm.nused + pm.ndirty + pm.nlent + n + leave <= pm.budget;
	if (ok)
		pm.nlent += n;
	note_low();
	kmutex_unlock(&pm.lock);
	return ok;
}

void
physmem_lend_end(uint32_t n)
{
	kmutex_lock(&pm.lock);
	KASSERT(pm.nlent >= n);
	pm.nlent -= n;
	note_low();
	kmutex_unlock(&pm.lock);
	event_wake(&physmem_freed);
	event_wake(&physmem_plenty);
}

bool
physmem_is_zero(vm_pfn_t pfn)
{
	int64_t off = (int64_t)pfn << PAGE_SHIFT, data = sys_seek_data(pm.fd, off);
	const uint64_t *p;
	bool zero = true;

	/* To look at a hole would fill it. */
	if (data == -ENXIO || data >= off + (int64_t)PAGE_SIZE)
		return true;
	p = window_map(WINDOW_SOURCE, pfn, 1);
	for (size_t i = 0; i < PAGE_SIZE / sizeof(*p) && zero; i++)
		zero = p[i] == 0;
	window_unmap((void *)(uintptr_t)p);
	return zero;
}

bool
physmem_differ(vm_pfn_t a, vm_pfn_t b)
{
	void *p = window_map(WINDOW_SOURCE, a, 1), *q = window_map(WINDOW_TARGET, b, 1);
	bool differ = memcmp(p, q, PAGE_SIZE) != 0;

	window_unmap(q);
	window_unmap(p);
	return differ;
}

void
physmem_zero(vm_pfn_t pfn)
{
	void *p = window_map(WINDOW_TARGET, pfn, 1);

	memset(p, 0, PAGE_SIZE);
	window_unmap(p);
}

static bool
is_fresh(vm_pfn_t pfn)
{
	bool fresh;

	kmutex_lock(&pm.lock);
	fresh = test_bit(pm.fresh, pfn);
	clear_bit(pm.fresh, pfn);
	kmutex_unlock(&pm.lock);
	return fresh;
}

/* Where the kernel must find memory first, it need not fault for it, nor clear it.  false: not all was copied. */
static bool
copy_to_fresh(const void *s, vm_pfn_t to, uint32_t n)
{
	size_t size = (size_t)n << PAGE_SHIFT;

	return is_fresh(to) && sys_pwrite(pm.fd, s, size, (uint64_t)to << PAGE_SHIFT) == (int64_t)size;
}

void
physmem_copy(vm_pfn_t from, vm_pfn_t to, uint32_t n)
{
	while (n > 0) {
		uint32_t len = MIN(n, MACHDEP_WINDOW_PAGES);
		void *s = window_map(WINDOW_SOURCE, from, len), *t;

		if (!copy_to_fresh(s, to, len)) {
			t = window_map(WINDOW_TARGET, to, len);
			memcpy(t, s, (size_t)len << PAGE_SHIFT);
			window_unmap(t);
		}
		window_unmap(s);
		from += len;
		to += len;
		n -= len;
	}
}

int
physmem_write(vm_pfn_t to, const void *from, uint32_t n)
{
	size_t size = (size_t)n << PAGE_SHIFT, done = 0;

	while (done < size) {
		int64_t got = sys_pwrite(pm.fd, (const char *)from + done, size - done,
		    ((uint64_t)to << PAGE_SHIFT) + done);

		if (got <= 0 && got != -EINTR)
			return got < 0 ? (int)got : -EIO;
		done += (size_t)MAX(got, 0);
	}
	return 0;
}

void
physmem_counts(struct physmem_counts *c)
{
	kmutex_lock(&pm.lock);
	*c = (struct physmem_counts){ pm.budget, pm.nused, pm.ndirty };
	kmutex_unlock(&pm.lock);
}

void
physmem_set_low(uint64_t low_mark)
{
	kmutex_lock(&pm.lock);
	pm.low_mark = low_mark;
	note_low();
	kmutex_unlock(&pm.lock);
}

uint64_t
physmem_budget(void)
{
	return atomic_load_explicit(&pm.budget, memory_order_relaxed);
}

void
physmem_set_budget(uint64_t budget_pages)
{
	kmutex_lock(&pm.lock);
	pm.budget = budget_pages;
	note_low();
	kmutex_unlock(&pm.lock);
}

bool
physmem_fits(void)
{
	bool fits, refused = false;

	kmutex_lock(&pm.lock);
	for (;;) {
		uint32_t ticket = event_prepare(&pm.npunching);
		bool flushing = pm.flushing;

		fits = pm.nused + pm.nlent + pm.ndirty <= pm.budget;
		if (fits || pm.nused + pm.nlent > pm.budget || (refused && !flushing))
			break;
		kmutex_unlock(&pm.lock);
		if (flushing) {
			PROBE("physmem_fits: others are punching");
			(void)event_wait(&pm.npunching, ticket, EVENT_FOREVER);
		} else {
			refused = physmem_flush() == 0;
		}
		kmutex_lock(&pm.lock);
	}
	kmutex_unlock(&pm.lock);
	return fits;
}

uint64_t
physmem_free_count(void)
{
	uint64_t free;

	kmutex_lock(&pm.lock);
	free = pm.budget - MIN(pm.nused + pm.nlent, pm.budget);
	kmutex_unlock(&pm.lock);
	return free;
}

bool
physmem_is_unused(vm_pfn_t pfn, uint32_t n)
{
	bool unused = true;

	kmutex_lock(&pm.lock);
	for (uint32_t i = 0; i < n && unused; i++)
		unused = !test_bit(pm.used, pfn + i);
	kmutex_unlock(&pm.lock);
	return unused;
}

bool
physmem_used(vm_pfn_t pfn)
{
	bool used;

	kmutex_lock(&pm.lock);
	used = test_bit(pm.used, pfn);
	kmutex_unlock(&pm.lock);
	return used;
}
