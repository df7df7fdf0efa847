/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Frames: where they lie, and who may have one.
 *
 * Two bitmaps say what a frame is: `used`, and `dirty` (see physmem.h); a frame
 * with both bits clear is clean.  The bitmaps are as long as the frame space and
 * cost memory only where frames were.  Free runs of frame space are in a tree of
 * extents; a run that is given out as a home may still hold strangers' frames
 * (pages that moved to another object), which the used bits tell.
 */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/probe.h"
#include "kern/sys.h"
#include "machdep.h"
#include "physmem_impl.h"

#define HUGE_SHIFT	18			/* homes of 1 GB and more are aligned to it */
#define STRAY_RUN	(1u << RUN_SHIFT)	/* strays are taken from runs of this length; they are aligned to it */
#define STRAY_LOOKS	64			/* runs that are looked at for one that can serve again */
#define FLUSH_LEAST	256u			/* frames that are given back if one is wanted */
#define LEAST_SPACE	(1u << 16)		/* frames: fewer are not worth starting with */

struct extent {
	struct avl_node node;		/* key: first frame */
	uint32_t npages;
};

struct physmem pm;
vm_pfn_t physmem_base;

const char physmem_freed, physmem_plenty;

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
		pm.high = MAX(pm.high, (uint32_t)(base + npages));
		return (vm_pfn_t)base;
	}
	return 0;
}

static size_t
bitmaps_bytes(void)
{
	return 3 * pm.bitmap_bytes + blocks_bytes();
}

int
physmem_init(uint64_t budget_pages, uint64_t max_span)
{
	uint64_t n = MIN(MACHDEP_FRAME_SPACE, max_span);
	int error;

	memset(&pm, 0, sizeof(pm));
	physmem_base = 0;
	kmutex_init(&pm.lock, RANK_PHYSMEM);
	slab_init(&pm.extents, "extent", sizeof(struct extent), 8);
	pm.budget = budget_pages;
	pm.fd = sys_memfd("vmfault");
	if (pm.fd < 0)
		return pm.fd;

	/* Past this limit ftruncate would raise SIGXFSZ. */
	n = MIN(n, sys_file_limit() >> PAGE_SHIFT);
	n &= ~(((uint64_t)1 << RUN_SHIFT) - 1);		/* whole blocks */
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
	pm.used = sys_mmap(NULL, bitmaps_bytes(), PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_is_err(pm.used) || !extent_free(1, (uint32_t)(n - 1))) {
		if (!sys_is_err(pm.used))
			(void)sys_munmap(pm.used, bitmaps_bytes());
		window_fini();
		(void)sys_close(pm.fd);
		return -ENOMEM;
	}
	pm.dirty = pm.used + pm.bitmap_bytes / sizeof(uint64_t);
	pm.fresh = pm.dirty + pm.bitmap_bytes / sizeof(uint64_t);
	pm.blocks = pm.fresh + pm.bitmap_bytes / sizeof(uint64_t);
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
	while ((n = avl_first(&pm.stray_runs)) != NULL) {
		avl_remove(&pm.stray_runs, n);
		slab_free(&pm.extents, container_of(n, struct extent, node));
	}
	window_fini();
	freeze_fini();
	(void)sys_munmap(pm.used, bitmaps_bytes());
	slab_fini(&pm.extents);
	while (pm.nolder > 0)
		(void)sys_close(pm.older[--pm.nolder].fd);
	(void)sys_close(pm.fd);
}

/* Ours, and those that were inherited. */
static int
windows(void)
{
	int error = window_init(pm.fd, pm.nframes);

	for (uint32_t i = 0; i < pm.nolder && error == 0; i++)
		error = window_part(pm.older[i].fd, pm.older[i].base,
		    i + 1 < pm.nolder ? pm.older[i + 1].base : physmem_base, pm.common != NULL);
	return error;
}

int
physmem_forked(int fd)
{
	(void)sys_close(pm.fd);
	pm.fd = fd;
	return windows();
}

int
physmem_fd(void)
{
	return pm.fd;
}

int
physmem_fd_of(vm_pfn_t pfn)
{
	int fd = pm.fd;

	for (uint32_t i = pm.nolder; i > 0 && pfn < (i < pm.nolder ? pm.older[i].base : physmem_base); i--)
		fd = pm.older[i - 1].fd;
	return fd;
}

/* Where a child's frames are going to begin. */
static vm_pfn_t
next_base(void)
{
	uint64_t align = (uint64_t)1 << HUGE_SHIFT;

	return (vm_pfn_t)(((uint64_t)physmem_base + pm.high + align) & ~(align - 1));
}

bool
physmem_can_inherit(void)
{
	uint64_t room = next_base();

	return pm.nolder < OLDER_MOST && room + 2 * (uint64_t)pm.high + LEAST_SPACE <= pm.nframes;
}

int
physmem_another(void)
{
	uint64_t size = pm.nframes << PAGE_SHIFT;
	int error, fd;

	/* Past this limit ftruncate() would raise SIGXFSZ. */
	if (sys_file_limit() < size)
		return -ENOMEM;
	fd = sys_memfd("vmfault");
	if (fd < 0)
		return fd;
	error = sys_ftruncate(fd, size);
	if (error != 0)
		(void)sys_close(fd);
	return error != 0 ? error : fd;
}

int
physmem_inherit(int fd)
{
	vm_pfn_t base = next_base();
	struct extent *e;

	pm.older[pm.nolder].base = physmem_base;
	pm.older[pm.nolder++].fd = pm.fd;
	pm.fd = fd;
	/* What was never taken lies at the end, in one piece, and is shorter now. */
	e = container_of(avl_find_le(&pm.free, MAX(pm.high, 1)), struct extent, node);
	e->npages = (uint32_t)(pm.nframes - base - e->node.key);
	physmem_base = base;
	freeze_forked();
	(void)sys_madvise(pm.used, bitmaps_bytes(), MADV_DONTNEED);
	pm.nused = pm.ndirty = pm.least = pm.surplus = pm.interval_end = 0;
	pm.nknown = pm.npunching = 0;
	pm.hand = 0;
	pm.flushing = false;
	return windows();
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

/* Of a stray run.  => lock held */
static bool
is_half_empty(vm_pfn_t run)
{
	const uint64_t *word = &pm.used[(physmem_base + run) / 64];
	int n = 0;

	for (uint32_t i = 0; i < STRAY_RUN / 64; i++)
		n += __builtin_popcountll(word[i]);
	return n <= (int)STRAY_RUN / 2;
}

/*
 * The next run for strays: one that served before and that most have left, or else a new one.  So strays that come and
 * go, as with each fork, go round in a few runs, of which the frames may still be in memory.
 * => lock held.  0: none
 */
static vm_pfn_t
stray_run(void)
{
	struct avl_node *n = avl_find_ge(&pm.stray_runs, pm.stray_hand);
	struct extent *e;
	vm_pfn_t run;

	for (int looks = 0; looks < STRAY_LOOKS; looks++, n = avl_next(n)) {
		n = n != NULL ? n : avl_first(&pm.stray_runs);
		if (n == NULL)
			break;
		run = (vm_pfn_t)n->key;
		pm.stray_hand = run + 1;
		if (is_half_empty(run))
			return run;
	}
	run = extent_alloc(STRAY_RUN, STRAY_RUN);
	/* No memory to remember it by: it serves once. */
	e = run != 0 ? slab_alloc(&pm.extents) : NULL;
	if (e != NULL) {
		*e = (struct extent){ .node.key = run, .npages = STRAY_RUN };
		avl_insert(&pm.stray_runs, &e->node);
	}
	return run;
}

/* A free frame that is nobody's wish.  => lock held.  0: the frame space is full. */
static vm_pfn_t
stray_alloc(void)
{
	for (int tries = 0; tries < 64; tries++) {
		for (; pm.stray < pm.stray_end; pm.stray++)
			if (!test_bit(pm.used, physmem_base + pm.stray))
				return physmem_base + pm.stray++;
		pm.stray = stray_run();
		pm.stray_end = pm.stray + STRAY_RUN;
		if (pm.stray == 0)
			break;
	}
	pm.stray = pm.stray_end = 0;
	/* Every run is reserved or full of strangers: look everywhere. */
	for (uint64_t i = physmem_base / 64; i < pm.nframes / 64; i++) {
		uint64_t used = pm.used[i] | (i == physmem_base / 64);	/* the first one is no frame */

		if (~used != 0)
			return (vm_pfn_t)(i * 64 + (uint64_t)__builtin_ctzll(~used));
	}
	return 0;
}

void
physmem_note_low(void)
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
		pfn = flushed && pm.ndirty > pm.npunching ? dirty_any() : 0;
		if (pfn != 0 || pm.ndirty == 0)
			break;
		ticket = event_prepare(&pm.npunching);
		kmutex_unlock(&pm.lock);
		if (flushed) {
			PROBE("physmem_alloc: what is free is being punched");
			(void)event_wait(&pm.npunching, ticket, EVENT_FOREVER);
		} else {
			(void)physmem_flush(FLUSH_LEAST);
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
		dirty_take(pfn);
	} else {
		set_bit(pm.fresh, pfn);
		mark_used(pfn);
	}
	physmem_note_low();
	kmutex_unlock(&pm.lock);
	if (was_dirty && fill == PHYSMEM_ZERO)
		physmem_zero(pfn);
	return pfn;
}

uint32_t
physmem_alloc_row(vm_pfn_t want, uint32_t n, bool *clean)
{
	uint64_t taken;
	uint32_t got = 0;

	*clean = true;
	if (want == 0)
		return 0;
	kmutex_lock(&pm.lock);
	*clean = !test_bit(pm.dirty, want);
	taken = pm.nused + pm.nlent + (*clean ? pm.ndirty : 0);
	n = (uint32_t)MIN((uint64_t)n, pm.budget - MIN(taken, pm.budget));
	for (; got < n && want + got < pm.nframes && !test_bit(pm.used, want + got) &&
	    test_bit(pm.dirty, want + got) != *clean; got++) {
		if (!*clean) {
			dirty_take(want + got);
			continue;
		}
		mark_used(want + got);
		set_bit(pm.fresh, want + got);
	}
	physmem_note_low();
	kmutex_unlock(&pm.lock);
	return got;
}

void
physmem_unalloc_row(vm_pfn_t pfn, uint32_t n)
{
	kmutex_lock(&pm.lock);
	for (uint32_t i = 0; i < n; i++) {
		(void)freeze_forget(pfn + i);
		clear_bit(pm.used, pfn + i);
	}
	pm.nused -= n;
	physmem_note_low();
	kmutex_unlock(&pm.lock);
	event_wake(&physmem_freed);
}

bool
physmem_lend(uint32_t n, uint64_t leave)
{
	uint64_t taken, dirty;
	bool enough, ok;

	for (bool flushed = false;; flushed = true) {
		kmutex_lock(&pm.lock);
		taken = pm.nused + pm.nlent + n;
		dirty = pm.ndirty;
		enough = taken + leave <= pm.budget;
		ok = enough && taken + dirty <= pm.budget;
		if (ok)
			pm.nlent += n;
		physmem_note_low();
		kmutex_unlock(&pm.lock);
		if (!enough || ok || flushed)
			return ok;
		/* What was freed must not stand in the way. */
		(void)physmem_flush((uint32_t)(taken + dirty - pm.budget));
	}
}

void
physmem_lend_end(uint32_t n)
{
	kmutex_lock(&pm.lock);
	KASSERT(pm.nlent >= n);
	pm.nlent -= n;
	physmem_note_low();
	kmutex_unlock(&pm.lock);
	event_wake(&physmem_freed);
	event_wake(&physmem_plenty);
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
	physmem_note_low();
	kmutex_unlock(&pm.lock);
}

bool
physmem_is_boundless(void)
{
	return physmem_budget() >= pm.nframes;
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
	physmem_note_low();
	kmutex_unlock(&pm.lock);
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
	used = physmem_is_inherited(pfn) || test_bit(pm.used, pfn);
	kmutex_unlock(&pm.lock);
	return used;
}
