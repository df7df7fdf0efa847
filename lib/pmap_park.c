/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Parking: forgetting any amount of memory in microseconds.
 *
 *	home	[ VMA, page tables ]	   --mremap(MREMAP_DONTUNMAP)-->	[ VMA, no tables ]
 *	alias	[ reserved ]						[ VMA, page tables ]
 *
 * mremap() moves whole subtrees of page tables, a GB or 2 MB with one store each, where both ends lie
 * alike; what it leaves is mapped as before, but empty, and so one mprotect() closes it at once.
 * When that returns nobody has any right to the run any more.  Touches that came between the two calls found
 * the frames where they were, which is as if they had come before both.
 *
 * The pmap has forgotten the run: its pages fault, and come back a window at a time.  That is dearer than
 * to take away the right to write page by page, but it is paid by who comes back, not by who waits for the
 * cut; and the kernel maps what may be read sixteen pages at a time.
 *
 * Only ROWS are parked (pmap_impl.h), whole leaves in one mapping of the kernel's, of which a bit for each
 * leaf is all that has to be set.
 *
 * The tables at the alias are of no use: to bring them home, protected, costs more than to fill new ones.
 * A thread, the reaper, lets go of them, a leaf at a time and with pauses, for the kernel keeps who maps
 * something waiting meanwhile.  Nobody ever looks at memory through an alias; where its frames are
 * punched out of the memfd the kernel takes them from there as well.
 *
 * Kernels before 5.13 do not move shared mappings this way: see park_works().
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
#include "pmap_impl.h"
#include "vm_meter.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define LEAF_SIZE	((vm_size_t)PMAP_LEAF_PAGES << PAGE_SHIFT)
#define DIR_SIZE	((vm_size_t)1 << (DIR_SHIFT + PAGE_SHIFT))
#ifndef PARK_LEAST
#define PARK_LEAST	4u			/* leaves: fewer are protected in as short a time */
#endif
#define PARKS_MOST	32u			/* at a time */
#define PARK_RUNS	3u			/* mappings: the alias, and what is reserved on both sides of it */
#define DUTY		8			/* of the reaper: one part in so many, while one park waits for it */
#define LEAST_PAUSE_NS	((int64_t)100 * 1000)
#define FIRST_PAUSE_NS	((int64_t)1000 * 1000)	/* who made the cut has more to tell the kernel */
#define RETRY_NS	((int64_t)10 * 1000 * 1000)

/* Tables that were parked: [start, end) is reserved, and has them somewhere; from start to at it has no more. */
struct park {
	TAILQ_ENTRY(park) link;
	vm_offset_t start, end, at;
	bool ours;			/* a child does not get it */
};

static struct {
	struct kmutex lock;		/* RANK_PARK; guards what follows */
	TAILQ_HEAD(, park) parks;	/* the oldest first */
	_Atomic uint32_t nparks;	/* a look without the lock is a hint */
	bool reaping;			/* somebody is at the first one */
	bool held;			/* nobody is to be */
	vm_offset_t spare, spare_end;	/* reserved for the next one; 0: nothing */
	struct slab slab;
	pthread_t thread;
	_Atomic bool stop;
	_Atomic bool idle;		/* the reaper has to be woken */
	char work;			/* its address: what the reaper waits on */
} pk;

void
park_init(void)
{
	kmutex_init(&pk.lock, RANK_PARK);
	TAILQ_INIT(&pk.parks);
	atomic_store(&pk.nparks, 0);
	pk.reaping = pk.held = false;
	pk.spare = pk.spare_end = 0;
	slab_init(&pk.slab, "park", sizeof(struct park), 8);
}

void
park_fini(void)
{
	while (park_reap())
		;
	KASSERT(atomic_load(&pk.nparks) == 0);
	if (pk.spare != pk.spare_end)
		(void)sys_munmap((void *)pk.spare, pk.spare_end - pk.spare);
	slab_fini(&pk.slab);
}

/* Does this kernel move the tables of shared mappings?  An empty one tells. */
static bool
park_works(void)
{
	void *p = sys_mmap(NULL, PAGE_SIZE, PROT_NONE, MAP_SHARED | MAP_NORESERVE, physmem_fd(), 0), *q;

	if (sys_is_err(p))
		return false;
	q = sys_mremap(p, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	if (!sys_is_err(q))
		(void)sys_munmap(q, PAGE_SIZE);
	(void)sys_munmap(p, PAGE_SIZE);
	return !sys_is_err(q);
}

/*
 * Parking
 */

/* How many rows from the leaf of page i on, before page end, make one run of frames. */
static size_t
rows(const struct pmap *pmap, size_t i, size_t end)
{
	vm_pfn_t next = 0;
	size_t n;

	for (n = 0; i + PMAP_LEAF_PAGES <= end; n++, i += PMAP_LEAF_PAGES) {
		const struct pmap_dir *d = pmap->dir[i >> DIR_SHIFT];
		vm_pfn_t pfn = d != NULL ? d->row[(i >> PMAP_LEAF_SHIFT) % DIR_LEAVES] : 0;

		if (pfn == 0 || (n != 0 && pfn != next))
			break;
		next = pfn + PMAP_LEAF_PAGES;
	}
	return n;
}

/* Address space that an earlier one left will do, if it is large enough and not far too large. */
static bool
take_spare(struct park *p, vm_size_t size)
{
	bool fits;

	kmutex_lock(&pk.lock);
	fits = pk.spare_end - pk.spare >= size && (pk.spare_end - pk.spare) / 2 <= size;
	if (fits) {
		p->start = p->at = pk.spare;
		p->end = pk.spare_end;
		pk.spare = pk.spare_end = 0;
	}
	kmutex_unlock(&pk.lock);
	return fits;
}

/* All of it is reserved address space again: keep it for the next one, or give it back.  => not in the list */
static void
leave_spare(struct park *p)
{
	vm_offset_t start = p->start, end = p->end;

	kmutex_lock(&pk.lock);
	if (end - start > pk.spare_end - pk.spare) {
		start = pk.spare;
		end = pk.spare_end;
		pk.spare = p->start;
		pk.spare_end = p->end;
	}
	kmutex_unlock(&pk.lock);
	if (start != end)
		(void)sys_munmap((void *)start, end - start);
}

/* The tables of [va, va + size) are somewhere else, and the mapping is as it was.  0 or -errno */
static int
move_away(vm_offset_t va, vm_size_t size)
{
	vm_size_t align = size >= DIR_SIZE ? DIR_SIZE : LEAF_SIZE;
	struct park *p = slab_alloc(&pk.slab);
	void *area, *alias;

	if (p == NULL)
		return -ENOMEM;
	if (!take_spare(p, size + align)) {
		area = sys_mmap(NULL, size + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (sys_is_err(area)) {
			slab_free(&pk.slab, p);
			return sys_err(area);
		}
		p->start = p->at = (vm_offset_t)area;
		p->end = p->start + size + align;
	}
	alias = (void *)(p->start + ((va - p->start) & (align - 1)));
	alias = sys_mremap((void *)va, size, size, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, alias);
	if (sys_is_err(alias)) {
		(void)sys_munmap((void *)p->start, p->end - p->start);
		slab_free(&pk.slab, p);
		return sys_err(alias);
	}
	atomic_fetch_add(&pmap_total_runs, PARK_RUNS);
	kmutex_lock(&pk.lock);
	TAILQ_INSERT_TAIL(&pk.parks, p, link);
	atomic_fetch_add(&pk.nparks, 1);
	kmutex_unlock(&pk.lock);
	return 0;
}

size_t
park(struct pmap *pmap, size_t i, size_t end, bool *may)
{
	size_t n = *may ? rows(pmap, i, end) : 0, npages = n << PMAP_LEAF_SHIFT;
	vm_pfn_t pfn;
	uint64_t before;
	int error;

	if (n < PARK_LEAST || atomic_load(&pk.nparks) >= PARKS_MOST)
		return 0;
	pfn = PTE_PFN(pte_get(pmap, i));
	before = ends(pmap, i, i + npages - 1);
	*may = move_away(va_of(pmap, i), npages << PAGE_SHIFT) == 0;
	if (!*may)
		return 0;
	PROBE("park: tables moved");
	vm_count_n(v_parked, npages);
	error = pmap_ops->protect(va_of(pmap, i), npages, pfn, 0);
	if (error != 0) {
		must_unmap(pmap, i, i + npages - 1);
		return npages;
	}
	for (size_t k = i; k < i + npages; k += PMAP_LEAF_PAGES) {
		struct pmap_dir *d = pmap->dir[k >> DIR_SHIFT];

		bit_set(d->parked, (k >> PMAP_LEAF_SHIFT) % DIR_LEAVES, true);
		d->row[(k >> PMAP_LEAF_SHIFT) % DIR_LEAVES] = 0;
	}
	runs_add(pmap, ends(pmap, i, i + npages - 1) - before);
	return npages;
}

/*
 * Reaping
 */

/* The next leaf's worth of the oldest tables, or their last.  => false: the kernel is short of memory */
static bool
reap_some(struct park *p)
{
	vm_size_t size = MIN(p->end - p->at, LEAF_SIZE);

	/* A child has none of the managed memory, here neither. */
	if (!p->ours)
		(void)sys_madvise((void *)p->start, p->end - p->start, MADV_DONTFORK);
	p->ours = true;
	if (sys_is_err(sys_mmap((void *)p->at, size, PROT_NONE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0)))
		return false;
	p->at += size;
	return true;
}

bool
park_reap(void)
{
	bool done, over;
	struct park *p;

	kmutex_lock(&pk.lock);
	p = pk.reaping || pk.held ? NULL : TAILQ_FIRST(&pk.parks);
	pk.reaping = pk.reaping || p != NULL;
	kmutex_unlock(&pk.lock);
	if (p == NULL)
		return false;
	done = reap_some(p);
	kmutex_lock(&pk.lock);
	pk.reaping = false;
	over = p->at == p->end;
	if (over) {
		TAILQ_REMOVE(&pk.parks, p, link);
		atomic_fetch_sub(&pk.nparks, 1);
		atomic_fetch_sub(&pmap_total_runs, PARK_RUNS);
	}
	kmutex_unlock(&pk.lock);
	if (over) {
		leave_spare(p);
		slab_free(&pk.slab, p);
	}
	return done;
}

/* Who makes the cut has more to do than to wake the reaper: the first to come back does. */
void
park_over(void)
{
	if (unlikely(atomic_load_explicit(&pk.idle, memory_order_relaxed)) &&
	    atomic_load_explicit(&pk.nparks, memory_order_relaxed) != 0 && atomic_exchange(&pk.idle, false))
		event_wake(&pk.work);
}

static void *
reaper(void *arg)
{
	int64_t pause = FIRST_PAUSE_NS;

	(void)arg;
	while (!atomic_load(&pk.stop)) {
		uint32_t ticket = event_prepare(&pk.work);
		uint64_t began;
		bool idle;

		atomic_store(&pk.idle, true);
		idle = atomic_load(&pk.nparks) == 0;
		if (!idle)
			atomic_store(&pk.idle, false);
		if (!atomic_load(&pk.stop))
			(void)event_wait(&pk.work, ticket, idle ? EVENT_FOREVER : pause);
		if (idle) {
			pause = FIRST_PAUSE_NS;
			continue;
		}
		began = sys_clock();
		pause = park_reap() ? MAX((int64_t)(sys_clock() - began) * (DUTY - 1), LEAST_PAUSE_NS) /
		    (int64_t)MAX(atomic_load(&pk.nparks), 1) : RETRY_NS;
	}
	return NULL;
}

int
pmap_start(void)
{
	atomic_store(&pk.stop, false);
	if (!pmap_ops->park)
		return 0;
	return alone_thread(&pk.thread, reaper);
}

void
pmap_stop(void)
{
	if (!pmap_ops->park)
		return;
	atomic_store(&pk.stop, true);
	event_wake(&pk.work);
	alone_join(pk.thread);
}

static bool
hold(bool held)
{
	bool reaping;

	kmutex_lock(&pk.lock);
	pk.held = held;
	reaping = pk.reaping;
	kmutex_unlock(&pk.lock);
	return reaping;
}

void
pmap_hold(void)
{
	while (hold(true))
		sys_yield();
}

void
pmap_go_on(void)
{
	(void)hold(false);
}

/* The aliases have not come along.  Now, for what the kernel maps next may lie where they were. */
void
park_forked(void)
{
	struct park *p;

	kmutex_init(&pk.lock, RANK_PARK);
	while ((p = TAILQ_FIRST(&pk.parks)) != NULL) {
		(void)sys_munmap((void *)p->start, p->end - p->start);
		TAILQ_REMOVE(&pk.parks, p, link);
		atomic_fetch_sub(&pk.nparks, 1);
		atomic_fetch_sub(&pmap_total_runs, PARK_RUNS);
		slab_free(&pk.slab, p);
	}
	(void)sys_munmap((void *)pk.spare, pk.spare_end - pk.spare);
	pk.spare = pk.spare_end = 0;
	pk.held = false;
}

const struct pmap_ops *
pmap_best(void)
{
	return park_works() ? &pmap_view_ops : &pmap_mprotect_ops;
}
